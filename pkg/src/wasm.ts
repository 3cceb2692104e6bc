import * as full from '../dist/glue/eddydb_full.js';
import * as plain from '../dist/glue/eddydb_plain.js';
import * as relaxed from '../dist/glue/eddydb_relaxed.js';
import * as simd from '../dist/glue/eddydb_simd.js';
import type { EngineBuild } from './build.js';
import { type Bytes, encode } from './codec.js';
import type { DirectoryHandle } from './directory.js';
import { type Download, download } from './download.js';
import { EddyError } from './error.js';
import type { SearchPool } from './pool.js';
import type { OpenMessage } from './protocol.js';
import { makeSocket, type Socket } from './socket.js';
import type { ForeignStorage } from './storage.js';

// The shape of the generated classes; all builds have the same, and the full one more. An error that they throw has `kind`.

/** @internal */
export interface WasmCollection {
  addField(field: Uint8Array): Promise<void>;
  createIndex(field: string, index: Uint8Array): Promise<void>;
  dropIndex(field: string): Promise<void>;
  setTtl(seconds: number | undefined): Promise<void>;
  options(): Uint8Array<ArrayBuffer>;
  setOptions(options: Uint8Array): Promise<void>;
  evaluate(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  tune(request: Uint8Array, recall: number, store: boolean): Promise<Uint8Array<ArrayBuffer>>;
  partitions(): string[];
  conflicts(bigint: boolean): Promise<Uint8Array<ArrayBuffer>>;
  createPartition(partition: string): Promise<void>;
  dropPartition(partition: string): Promise<void>;
  describe(): Uint8Array<ArrayBuffer>;
  write(request: Uint8Array, mark?: Float64Array): Promise<Uint8Array<ArrayBuffer>>;
  snapshot(at?: bigint | null): WasmCollection;
  release(): void;
  get(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  query(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  count(request: Uint8Array): Promise<number>;
  search(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  atLeast(level: string, boundedMs: number | undefined, tokens: string[], timeoutMs: number | undefined): Promise<void>;
  explain(request: Uint8Array, query: boolean, profile: boolean): Promise<Uint8Array<ArrayBuffer>>;
  searchIterator(request: Uint8Array): Promise<WasmIterator>;
  queryIterator(request: Uint8Array): WasmIterator;
  changes(request: Uint8Array): Promise<WasmChangeStream>;
  live(): Promise<WasmLiveQueries>;
  acknowledge(subscription: string, token: string): Promise<void>;
  unsubscribe(subscription: string): Promise<boolean>;
  subscriptions(): Uint8Array<ArrayBuffer>;
  flush(): Promise<void>;
  beginCompaction(): Promise<void>;
  isCompacting(): boolean;
  stats(): Promise<Uint8Array<ArrayBuffer>>;
  changedAfter(lsn: number): Promise<number>;
  free(): void;
}

/** @internal */
export interface WasmIterator {
  next(count: number): Promise<Uint8Array<ArrayBuffer>>;
  end(): void;
  free(): void;
}

/** @internal */
export interface WasmChangeStream {
  ready(): Promise<Uint8Array<ArrayBuffer>>;
  acknowledge(token: string): Promise<void>;
  end(): void;
  free(): void;
}

/** @internal */
export interface WasmLiveQueries {
  addSearch(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  addQuery(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  /** In the build with streams. */
  addHybrid?(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  remove(id: number): Promise<void>;
  update(): Promise<Float64Array>;
  differences(id: number, bigint: boolean): Uint8Array<ArrayBuffer>;
  end(): void;
  free(): void;
}

/** @internal */
export interface WasmSyncSession {
  pause(): void;
  resume(): void;
  reconcile(names: string[] | undefined): Promise<Uint8Array<ArrayBuffer>>;
  stop(): void;
}

/** In builds that have it. @internal */
export interface WasmHub {
  connect(rested: Uint8Array | undefined, send: (frame: Uint8Array) => void | Promise<void>, ended: (error?: unknown) => void): WasmHubConnection;
  stop(): Promise<void>;
}

/** @internal */
export interface WasmHubConnection {
  receive(frame: Uint8Array): boolean;
  closed(): void;
  rest(): Promise<Uint8Array<ArrayBuffer> | undefined>;
}

/** @internal */
export interface WasmArchive {
  next(): Promise<Uint8Array<ArrayBuffer>>;
  end(): void;
}

/** @internal */
export interface WasmImport {
  push(piece: Uint8Array): Promise<void>;
  finish(): Promise<string[]>;
  abort(): Promise<void>;
}

/** @internal */
export interface WasmDatabase {
  readonly replicaId: number;
  createCollection(name: string, schema: Uint8Array, options: Uint8Array, ifNotExists: boolean): Promise<WasmCollection>;
  collection(name: string): WasmCollection;
  collections(): string[];
  dropCollection(name: string): Promise<void>;
  setAlias(alias: string, collection: string, there: boolean): Promise<void>;
  dropAlias(alias: string): Promise<void>;
  aliases(): Uint8Array<ArrayBuffer>;
  loadDataset(name: string, bytes: Uint8Array): Promise<WasmCollection>;
  stats(): Promise<Uint8Array<ArrayBuffer>>;
  sync(request: Uint8Array, listener: (status: Uint8Array<ArrayBuffer>) => void, tokens?: () => Promise<string>): WasmSyncSession;
  hub?(admit: ((token: string | undefined) => Uint8Array) | undefined, createCollections: boolean): WasmHub;
  exportArchive(): Promise<WasmArchive>;
  importArchive(): WasmImport;
  memory(): Uint8Array<ArrayBuffer>;
  onProgress(listener: (collection: string, work: string, rowsDone: number, rows: number) => void): void;
  usePool(pool: SearchPool, workers: number): void;
  maintain(): Promise<boolean>;
  sealDueMs(): number | undefined;
  close(): Promise<void>;
  free(): void;
}

/** What the full build has more. @internal */
export interface WasmStreams {
  createPipeline(name: string, spec: string): Promise<void>;
  explainSpec(spec: string): string;
  pipelines(): string[];
  pipelineStatus(name: string): Promise<string>;
  explainPipeline(name: string): Promise<string>;
  dropPipeline(name: string): Promise<void>;
  pausePipeline(name: string): Promise<void>;
  recoverPipeline(name: string, savepoint: string | undefined, anew: boolean): Promise<void>;
  savepoint(name: string, label: string): Promise<void>;
  savepoints(name: string): Promise<string[]>;
  removeSavepoint(name: string, label: string): Promise<boolean>;
  unreadRows(name: string, sink: string, from: number | undefined, count: number, bigint: boolean): Promise<Uint8Array<ArrayBuffer>>;
  waitForRow(name: string, sink: string, from: number): Promise<void>;
  acknowledgeRows(name: string, sink: string, position: number): Promise<void>;
  setFunction(name: string, call: (rows: Uint8Array<ArrayBuffer>) => Promise<Uint8Array>, bigint: boolean): void;
  removeFunction(name: string): void;
  runPipeline(name: string): Promise<boolean>;
  pipelinesDueMs(): number | undefined;
  sql(request: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
}

/** @internal */
export interface Wasm {
  Database: {
    openMemory(options: Uint8Array): Promise<WasmDatabase>;
    openOpfs(name: string, options: Uint8Array): Promise<WasmDatabase>;
    openDirectory(directory: DirectoryHandle, options: Uint8Array): Promise<WasmDatabase>;
    openForeign(storage: ForeignStorage, options: Uint8Array): Promise<WasmDatabase>;
  };
  PoolWorker: new () => WasmPoolWorker;
  onPanic(listener: (message: string) => void): void;
  makeSocketsBy(make: (url: string) => Socket): void;
  downloadBy(download: (hub: string, path: string, token: string | undefined, offset: number, length: number) => Download): void;
}

/** @internal */
export interface WasmPoolWorker {
  answer(message: Uint8Array): Uint8Array<ArrayBuffer>;
}

const glue = { relaxed, simd, plain, full };

/** Starts a build of the engine, whose module is compiled by `compile`. @internal */
export async function start(compile: (build: EngineBuild) => Promise<WebAssembly.Module>, build: EngineBuild): Promise<Wasm> {
  try {
    await glue[build].default({ module_or_path: await compile(build) });
  } catch (error) {
    throw new EddyError('unavailable', `the engine's WebAssembly was not loaded: ${(error as Error).message}`, { cause: error });
  }
  const wasm = glue[build] as unknown as Wasm;
  wasm.makeSocketsBy(makeSocket);
  wasm.downloadBy(download);
  return wasm;
}

/** The options in the form that the engine takes. @internal */
export function engineOptions({ durability, retention, codec, mergePolicy, memoryLimitBytes, replicaNumber }: OpenMessage['open']): Bytes {
  return encode({ synced: durability === 'synced', retention, codec, mergePolicy, memoryLimitBytes, replicaNumber });
}
