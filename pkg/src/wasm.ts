import * as plain from '../dist/glue/eddydb_plain.js';
import * as simd from '../dist/glue/eddydb_simd.js';
import type { DirectoryHandle } from './directory.js';
import { EddyError } from './error.js';

// The shape of the generated classes; both builds have the same. An error that they throw has `kind`.

/** @internal */
export interface WasmCollection {
  describe(): Uint8Array<ArrayBuffer>;
  insert(rows: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  upsert(rows: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  delete(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  get(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  query(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  count(filter?: string | null): Promise<number>;
  search(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  flush(): Promise<void>;
  stats(): Promise<Uint8Array<ArrayBuffer>>;
  changedAfter(lsn: number): Promise<number>;
  free(): void;
}

/** @internal */
export interface WasmSyncSession {
  pause(): void;
  resume(): void;
  stop(): void;
}

/** @internal */
export interface WasmDatabase {
  readonly replicaId: number;
  createCollection(name: string, schema: Uint8Array, ifNotExists: boolean): Promise<WasmCollection>;
  collection(name: string): WasmCollection;
  collections(): string[];
  dropCollection(name: string): Promise<void>;
  loadDataset(name: string, bytes: Uint8Array): Promise<WasmCollection>;
  stats(): Promise<Uint8Array<ArrayBuffer>>;
  sync(request: Uint8Array, listener: (status: Uint8Array<ArrayBuffer>) => void): WasmSyncSession;
  maintain(): Promise<boolean>;
  close(): Promise<void>;
  free(): void;
}

/** @internal */
export interface Wasm {
  Database: {
    openMemory(): Promise<WasmDatabase>;
    openOpfs(name: string, synced: boolean): Promise<WasmDatabase>;
    openDirectory(directory: DirectoryHandle, synced: boolean): Promise<WasmDatabase>;
  };
  onPanic(listener: (message: string) => void): void;
}

// (module (func (result v128) i32.const 0 i32x4.splat)): valid where there is simd128.
const simdProbe = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, // magic, version 1
  1, 5, 1, 96, 0, 1, 123, // types: () -> v128
  3, 2, 1, 0, // functions: the first type
  10, 8, 1, 6, 0, 65, 0, 253, 17, 11, // code
);

/** Whether this host runs the SIMD build. @internal */
export function hasSimd(): boolean {
  return WebAssembly.validate(simdProbe);
}

/** Starts the build that this host runs best, whose module is compiled by `compile`. @internal */
export async function start(compile: (simd: boolean) => Promise<WebAssembly.Module>, withSimd = hasSimd()): Promise<Wasm> {
  const glue = withSimd ? simd : plain;
  try {
    await glue.default({ module_or_path: await compile(withSimd) });
  } catch (error) {
    throw new EddyError('unavailable', `the engine's WebAssembly was not loaded: ${(error as Error).message}`, { cause: error });
  }
  return glue as unknown as Wasm;
}
