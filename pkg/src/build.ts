import { EddyError } from './error.js';

/**
 * The builds of the engine, `eddydb_<name>.wasm`: all know the same stores. Of the first three, the first that a host runs is its fastest;
 * `full` is `simd` with what those leave out for their size: pipelines, and the hub of embedded databases.
 */
export type EngineBuild = 'relaxed' | 'simd' | 'plain' | 'full';

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

/** The build that this host runs best; with `streams`, that which has pipelines. */
export function bestBuild({ streams = false }: { streams?: boolean | undefined } = {}): EngineBuild {
  const simd = WebAssembly.validate(probes.simd);
  if (streams) {
    if (simd) return 'full';
    throw new EddyError('unsupported', 'this host has no SIMD in WebAssembly, which the build with streams needs: open without streams');
  }
  if (WebAssembly.validate(probes.relaxed)) return 'relaxed';
  return simd ? 'simd' : 'plain';
}
