/** The builds of the engine, `eddydb_<name>.wasm`: all three know the same stores, the first that a host runs is its fastest. */
export type EngineBuild = 'relaxed' | 'simd' | 'plain';

/** A module with one function of type () -> v128, which is valid where its instructions are. */
const probe = (...body: number[]) => Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, // magic, version 1
  1, 5, 1, 96, 0, 1, 123, // types: () -> v128
  3, 2, 1, 0, // functions: the first type
  10, body.length + 4, 1, body.length + 2, 0, ...body, 11, // code
);
const splat = [65, 0, 253, 17]; // i32.const 0, i32x4.splat
const probes = {
  relaxed: probe(...splat, ...splat, ...splat, 253, 0x93, 2), // i32x4.relaxed_dot_i8x16_i7x16_add_s
  simd: probe(...splat),
};

/** The build that this host runs best. */
export function bestBuild(): EngineBuild {
  if (WebAssembly.validate(probes.relaxed)) return 'relaxed';
  return WebAssembly.validate(probes.simd) ? 'simd' : 'plain';
}
