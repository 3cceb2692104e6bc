/// <reference lib="esnext.disposable" preserve="true" />
import { Client, type Port } from './client.js';
import { type Bytes, decode, encode, type FieldNames, reviveRow, toSchemaMessage } from './codec.js';
import { Collection } from './collection.js';
import { EddyError } from './error.js';
import { Bus } from './bus.js';
import { Functions, Pipeline, type PipelineSpec, type RowFunction, specText, type SqlResult } from './pipeline.js';
import type { OpenMessage } from './protocol.js';
import type { AnySchema, Schema } from './schema.js';
import { type SyncOptions, SyncSession } from './sync.js';

/** A piece of a file on its way in. */
const IMPORT_BYTES = 4 * 2 ** 20;

/** How a database is opened. */
export interface OpenOptions<B extends boolean = boolean> {
  /** Its name: in a browser, one of the origin's databases. Letters, digits, `.`, `_` and `-`. */
  name: string;
  /**
   * Where it lives: `'opfs'` is the browser's private file system, `'indexeddb'` a database of the browser, `'files'` a directory
   * (Node), `'memory'` nowhere. `'auto'`, the default, is `'opfs'` in a browser, and `'indexeddb'` where that is missing or the
   * database lives there already; in Node it is `'files'` with a `path`, else `'memory'`.
   */
  storage?: 'auto' | 'opfs' | 'indexeddb' | 'memory' | 'files';
  /** The directory of `'files'`. Created when it is not there. */
  path?: string;
  /**
   * `'synced'`, the default: a write that was acknowledged survives a crash. `'buffered'`: it is acknowledged before it is synced, which
   * follows within about half a second or 8 MiB of writes; a crash of the machine may lose what was written since.
   */
  durability?: 'synced' | 'buffered';
  /**
   * How many milliseconds rows that were replaced or deleted can still be read by the option `at`, from now on and, as far as they are
   * still there, from before. Default 0: only snapshots keep them. It costs their space.
   */
  retention?: number;
  /**
   * How many bytes of memory the collections may take, about. Keys, short columns, versions and indexes are always in memory; vectors, and
   * text and JSON of more than 64 bytes a row, are as far as there is room, and are read from storage otherwise. No limit by default.
   */
  memoryLimitBytes?: number;
  /**
   * How columns of collections that do not say are compressed in storage; vectors are not. Default `'zstd'`. `'lz4'` and `'snappy'` are faster
   * and larger; `'gzip'` is what every tool opens.
   */
  codec?: Codec;
  /** Which segments are merged with which in collections that do not say. Default `'hierarchical'`. */
  mergePolicy?: MergePolicy;
  /**
   * The number of this replica, 0 to 16,383, where several make `int64` keys (`autoId`) for one collection and sync it: each needs another
   * one, and to give them is up to you. The database keeps it. Keys of type `varchar` are unique without.
   */
  replicaNumber?: number;
  /**
   * How many workers search beside the engine's, 0 to 16; `'auto'` is one fewer than the host runs threads, and at most 4. Default 0. Each
   * gets copies of some segments' vectors and indexes, which count as memory, and searches those while the engine searches the others: more
   * queries a second of a batch, and a shorter wait for one query over several segments. Answers are the same. Of a database that tabs
   * share, the first tab's workers count; an embedded engine has none. {@link Database.stats} tells what they do.
   */
  workers?: number | 'auto';
  /**
   * Whether pipelines can run: see `createPipeline`. Default false. The engine with them is another and larger one, `eddydb_full.wasm`, which
   * is loaded only then. Of a database that tabs share, the tab that holds it runs them: open it in all tabs alike.
   */
  streams?: boolean;
  /** Read `int64` as `bigint`. By default it is a number, and one that a number cannot hold exactly is an error. */
  bigint?: B;
}

/** What a collection holds. */
export interface CollectionStats {
  /** Its name. */
  name: string;
  /** Living rows. */
  rows: number;
  /** Living rows by partition. */
  partitions: Record<string, number>;
  /** Rows replaced or deleted whose space is not yet reclaimed. */
  rowsDead: number;
  /** Vectors not yet in their index; searches scan them. */
  rowsUnindexed: number;
  /** Segments, the growing one included. */
  segments: number;
  /** Bytes held in memory. */
  memoryBytes: number;
  /** Bytes in storage. */
  storageBytes: number;
  /** The newest position in the local log. */
  lsn: number;
  /** How many segments are in each state of their life. */
  states: { growing: number; sealed: number; flushed: number; compacting: number; dropped: number };
  /** Bytes in storage by kind of file: `log`, `layout`, `rows`, `column`, `vector`, `index`, `deletes`. */
  files: Record<string, number>;
  /** Bytes written since the database was opened: to the log, to segments from the log, to segments from segments. */
  written: { logged: number; flushed: number; compacted: number };
  /** How well the graphs hang together. */
  graphs: GraphStats;
  /** Answers that were given again: see {@link CollectionOptions.resultCacheBytes}. */
  resultsReused: number;
  /** Which segments are merged with which. */
  mergePolicy: MergePolicy;
  /**
   * What was merged since the collection was created: how many merges came to their end, how many rows they wrote, how many rows came to segments
   * otherwise, and how often each of these was written again, on average.
   */
  merges: { finished: number; rows: number; rowsFlushed: number; writeAmplification: number };
}

/** How well the graphs of a collection's vectors hang together, over all segments and fields. */
export interface GraphStats {
  /** Rows in a graph. */
  rows: number;
  /** Those with neighbours of their own: rows whose codes are the same share one node. */
  nodes: number;
  /** Those that are replaced or deleted: they lead on and take memory until segments are merged. */
  dead: number;
  /** Nodes to which no way leads, so that searches may miss them. A segment with more than one in 1,000 is rewritten. */
  unreachable: number;
  /** Neighbours of a node, on average. */
  meanDegree: number;
}

/** What is held in memory, in bytes. */
export interface MemoryUse {
  /** All of it. */
  total: number;
  /** Short columns and versions of rows. */
  rows: number;
  /** Long columns. */
  columns: number;
  /** Vectors in full precision. */
  vectors: number;
  /** Graphs and the codes in them. */
  indexes: number;
  /** Primary keys, estimated. */
  keys: number;
  /** What was read from storage lately. */
  cache: number;
  /** Copies of vectors and indexes that workers beside the engine search. */
  pool: number;
}

/** How far work in the background has come. */
export interface ProgressEvent {
  /** The collection's name. */
  collection: string;
  /** What is done: rows join their index, go to storage, or segments become one. */
  work: 'index' | 'flush' | 'compaction';
  /** Rows done. */
  rowsDone: number;
  /** Rows in all. */
  rows: number;
}

/** What the workers beside the engine do. */
export interface PoolStats {
  /** Those that run. */
  workers: number;
  /** Segments, by their vector fields, of which one of them has a copy. */
  segments: number;
  /** The bytes of these copies. */
  bytes: number;
  /** How many messages with searches they have answered. */
  searches: number;
  /** How often one has failed: the engine did its work then, and answers were right and whole all the same. */
  failures: number;
  /** The last failure. */
  error?: string;
}

/** What a database holds. */
export interface DatabaseStats {
  /** The random id of this replica. */
  replicaId: number;
  /** Each collection, by name. */
  collections: CollectionStats[];
  /** What the workers beside the engine do, when it was opened with `workers`. */
  pool?: PoolStats;
  /** The last failure of background work (indexing, flushing), until it succeeds again. Nothing acknowledged is lost by it. */
  maintenanceError?: { kind: string; message: string };
}

/** How columns are compressed in storage. */
export type Codec = 'zstd' | 'lz4' | 'gzip' | 'snappy' | 'none';

/**
 * Which segments are merged with which. A search looks into each, and each is built once and never changed, so rows are written again to have fewer.
 *
 * - `'hierarchical'`: those of about the same size become one of the next. A row is written about once for each size.
 * - `'sequential'`: the newest goes at once into the latest one that has room. Searches are fastest, for there are hardly more segments than full
 *   ones, and rows are written again with every flush until their segment is full.
 * - `'parallel'`: like `'hierarchical'` in smaller groups, several at once where there are threads. The engine of this package has one, and
 *   merges them one after the other; on a server (`eddy serve`) they go on side by side.
 */
export type MergePolicy = 'hierarchical' | 'sequential' | 'parallel';

/** How a collection keeps its rows. Each replica says so for itself. */
export interface CollectionOptions {
  /** How columns are compressed; vectors never are. As the database's option says when left out. */
  codec?: Codec;
  /** When rows that were written lately go from the log to a segment in storage: as soon as one of these is reached. */
  seal?: {
    /** So many rows: 1 to 131,072, which is the default. */
    rows?: number;
    /** So many bytes of log: 65,536 to 67,108,864, which is the default. */
    bytes?: number;
    /** So many milliseconds after the first of them, 1,000 or more. Not by default. */
    ageMs?: number;
    /** So many milliseconds without a write, 1,000 or more. Not by default. */
    idleMs?: number;
  };
  /** Candidates that a graph keeps for a search that does not say `ef`, 1 to 65,536; 64 by default. {@link Collection.tune} finds it. */
  ef?: number;
  /**
   * How many bytes of answers are kept for when the same is asked again and nothing was written in between. None by default, and where rows
   * expire. They count as `cache` in `memory()`, and take a 16th of `memoryLimitBytes` at most.
   */
  resultCacheBytes?: number;
  /** Which of its segments are merged with which, from the next merge on. As the database's option says when left out. */
  mergePolicy?: MergePolicy;
}

/** How a collection is created. */
export interface CreateOptions extends CollectionOptions {
  /** When a collection of that name and the same schema is there already, take that one. Default false: `already_exists`. */
  ifNotExists?: boolean;
}

/** An open database. Its engine runs in a worker; no call blocks the page. */
export class Database<B extends boolean = false> {
  /** Its name. */
  readonly name: string;
  readonly #client: Client;
  readonly #bigint: boolean;
  readonly #functions: Functions;
  #bus: Bus | undefined;

  /** @internal */
  protected constructor(client: Client, name: string, bigint: boolean) {
    this.#client = client;
    this.name = name;
    this.#bigint = bigint;
    this.#functions = new Functions(client, bigint);
  }

  /** @internal */
  static async open<B extends boolean>(port: Port, open: OpenMessage['open'], bigint: boolean): Promise<Database<B>> {
    return new Database<B>(await Client.open(port, open), open.name, bigint);
  }

  /**
   * Creates a collection, durably. Write the schema as a literal: rows are typed from it.
   *
   * @throws {@link EddyError} `already_exists` when the name is taken, `invalid_argument` for a schema or options that cannot be.
   */
  async createCollection<const S extends Schema>(name: string, schema: S, options: CreateOptions = {}): Promise<Collection<S, B>> {
    const { ifNotExists, ...kept } = options;
    const body = encode({ schema: encode(toSchemaMessage(schema)), options: encode(kept), ifNotExists: ifNotExists === true });
    await this.#client.request('createCollection', name, body);
    return this.collection<S>(name);
  }

  /**
   * A handle on the collection of that name. Nothing is asked yet: a collection that is not there is `not_found` on first use.
   *
   * @param _schema Gives the rows their type; it is not compared with the stored one.
   */
  collection<const S extends Schema = AnySchema>(name: string, _schema?: S): Collection<S, B> {
    return new Collection<S, B>(this.#client, name, this.#bigint);
  }

  /** The names of all collections, ascending. */
  async collections(): Promise<string[]> {
    return decode(required(await this.#client.request('collections'))) as string[];
  }

  /** Gives a collection another name, durably: wherever a collection's name is taken, an alias of it will do. */
  async createAlias(alias: string, collection: string): Promise<void> {
    await this.#client.request('setAlias', alias, encode({ collection, there: false }));
  }

  /** Has an alias name another collection from now on, durably. */
  async alterAlias(alias: string, collection: string): Promise<void> {
    await this.#client.request('setAlias', alias, encode({ collection, there: true }));
  }

  /** Removes an alias, durably. */
  async dropAlias(alias: string): Promise<void> {
    await this.#client.request('dropAlias', alias);
  }

  /** The aliases and the names of their collections. */
  async aliases(): Promise<{ [alias: string]: string }> {
    return Object.fromEntries(decode(required(await this.#client.request('aliases'))) as [string, string][]);
  }

  /** Removes a collection with its rows and aliases, durably. */
  async dropCollection(name: string): Promise<void> {
    await this.#client.request('dropCollection', name);
  }

  /**
   * Loads a dataset: an Arrow IPC file that describes its own collection. Replicas that load the same one have the same rows, and
   * nothing to send each other. Loading it again changes nothing.
   */
  async loadDataset(name: string, arrow: ArrayBuffer | Uint8Array): Promise<Collection<AnySchema, B>> {
    const bytes = arrow instanceof Uint8Array ? (arrow.slice() as Bytes) : new Uint8Array(arrow.slice(0));
    await this.#client.request('loadDataset', name, bytes);
    return this.collection(name);
  }

  /**
   * All collections with their indexes in one file, each as it was at one moment: to keep, to move to another browser, or to open with the
   * command `eddy restore`. It comes in small parts: a browser may keep those of a large file on disk.
   */
  async exportFile(): Promise<Blob> {
    const parts: Blob[] = [];
    await this.#export(async (piece) => void parts.push(new Blob([piece])));
    return new Blob(parts, { type: 'application/octet-stream' });
  }

  /**
   * The same as {@link Database.exportFile} into a stream, such as that of a file which `showSaveFilePicker` gives, never more than a few MiB
   * in memory. The stream is closed at the end, and aborted when something fails.
   */
  async exportTo(stream: WritableStream<Uint8Array>): Promise<void> {
    const writer = stream.getWriter();
    try {
      await this.#export((piece) => writer.write(piece));
      await writer.close();
    } catch (error) {
      await writer.abort(error).catch(() => {});
      throw error;
    }
  }

  async #export(write: (piece: Bytes) => Promise<void>): Promise<void> {
    const key = decode(required(await this.#client.request('exportFile'))) as string;
    try {
      for (;;) {
        const piece = required(await this.#client.request('exportPiece', key));
        if (piece.length === 0) return;
        await write(piece);
      }
    } finally {
      await this.#client.request('exportEnd', key).catch(() => {});
    }
  }

  /**
   * Adds the collections of a file that {@link Database.exportFile} or `eddy backup` made, all or none; tells their names.
   *
   * @throws {@link EddyError} `corrupt` when the file was cut or changed, `already_exists` when a collection of that name is there.
   */
  async importFile(file: Blob | ArrayBuffer | Uint8Array): Promise<string[]> {
    const blob = file instanceof Blob ? file : undefined;
    const bytes = file instanceof Blob ? undefined : file instanceof Uint8Array ? file : new Uint8Array(file);
    const size = blob?.size ?? bytes!.length;
    return this.#import(async (push) => {
      for (let at = 0; at < size; at += IMPORT_BYTES) {
        // What is sent is gone afterwards: what the caller has is copied.
        await push(bytes ? (bytes.slice(at, at + IMPORT_BYTES) as Bytes) : new Uint8Array(await blob!.slice(at, at + IMPORT_BYTES).arrayBuffer()));
      }
    });
  }

  /**
   * The same as {@link Database.importFile} from a stream, such as the body of an answer of `fetch`: it is written as it comes, never more
   * than a few MiB in memory. The stream is cancelled when something fails.
   */
  async importFrom(stream: ReadableStream<Uint8Array>): Promise<string[]> {
    const reader = stream.getReader();
    try {
      return await this.#import(async (push) => {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          for (let at = 0; at < value.length; at += IMPORT_BYTES) await push(value.slice(at, at + IMPORT_BYTES) as Bytes);
        }
      });
    } catch (error) {
      await reader.cancel(error).catch(() => {});
      throw error;
    }
  }

  async #import(read: (push: (piece: Bytes) => Promise<void>) => Promise<void>): Promise<string[]> {
    const key = decode(required(await this.#client.request('importStart'))) as string;
    try {
      await read(async (piece) => void (await this.#client.request('importPiece', key, piece)));
      return decode(required(await this.#client.request('importFinish', key))) as string[];
    } finally {
      await this.#client.request('importEnd', key).catch(() => {});
    }
  }

  /** What it holds. */
  async stats(): Promise<DatabaseStats> {
    return decode(required(await this.#client.request('databaseStats'))) as DatabaseStats;
  }

  /** What is held in memory, over all collections. */
  async memory(): Promise<MemoryUse> {
    return decode(required(await this.#client.request('memory'))) as MemoryUse;
  }

  /** Writes every collection to storage: see {@link Collection.flush}. */
  async flush(): Promise<void> {
    for (const name of await this.collections()) await this.#client.request('flush', name);
  }

  /** Gives up the space of every row that was replaced or deleted: see {@link Collection.compact}. */
  async compact(): Promise<void> {
    for (const name of await this.collections()) await this.#client.request('compact', name);
  }

  /**
   * Calls `listener` when work in the background has come a good way on.
   *
   * @returns A function that ends it.
   */
  onProgress(listener: (event: ProgressEvent) => void): () => void {
    return this.#client.onEvent((event) => {
      if (event.event !== 'progress') return;
      const { collection, work, rowsDone, rows } = event;
      listener({ collection, work, rowsDone, rows });
    });
  }

  /**
   * Creates a pipeline, durably, with the collections of its sinks that are not there. It goes on by itself wherever the engine runs, also
   * after a restart. Needs `streams: true`.
   *
   * @throws {@link EddyError} `unsupported` when the database was opened without streams; `already_exists` when the name is taken;
   * `invalid_argument` for SQL or a plan that cannot be, with its `position`.
   */
  async createPipeline(name: string, spec: PipelineSpec): Promise<Pipeline> {
    await this.#client.request('createPipeline', name, encode(specText(spec)));
    return this.pipeline(name);
  }

  /** A handle on the pipeline of that name. Nothing is asked yet: one that is not there is `not_found` on first use. */
  pipeline(name: string): Pipeline {
    return new Pipeline(this.#client, name, this.#bigint);
  }

  /** The names of all pipelines, ascending. */
  async pipelines(): Promise<string[]> {
    return decode(required(await this.#client.request('pipelines'))) as string[];
  }

  /** How a pipeline would be done, as text. */
  async explainPipeline(spec: PipelineSpec): Promise<string> {
    return decode(required(await this.#client.request('explainSpec', undefined, encode(specText(spec))))) as string;
  }

  /**
   * Gives a function to pipelines whose plans call it by that name, until the database is closed. It runs here, where it was given, a batch of
   * rows at a time. What it throws, and what it does not answer within `timeoutMs` (default 30,000), becomes a dead letter of the row. A
   * pipeline whose function is not there waits for it.
   */
  async setFunction(name: string, call: RowFunction, options?: { timeoutMs?: number }): Promise<void> {
    await this.#functions.set(name, call, options);
  }

  /** Takes a function away. */
  async removeFunction(name: string): Promise<void> {
    await this.#functions.remove(name);
  }

  /** The event bus: what happens to collections, and what the application tells, handed to handlers. Needs `streams: true`. */
  bus(): Bus {
    return (this.#bus ??= new Bus(this.#client, this.#functions));
  }

  /**
   * Asks the collections in SQL, as they are now. Needs `streams: true`. What an index finds is better asked of a collection.
   *
   * @param params What `{name}` stands for in the text.
   * @throws {@link EddyError} `invalid_argument` and `unsupported` with the `position` of what is meant; `unavailable` after `timeoutMs`, by
   * default 60,000.
   */
  async sql<R = Record<string, unknown>>(text: string, params: { [name: string]: unknown } = {}, { timeoutMs }: { timeoutMs?: number } = {}): Promise<SqlResult<R>> {
    const answer = required(await this.#client.request('sql', undefined, encode({ text, params, timeoutMs, bigint: this.#bigint })));
    const { columns, rows, plan, ...names } = decode(answer, this.#bigint) as SqlResult & FieldNames;
    return { columns, rows: rows.map((row) => reviveRow(row, names) as R), plan };
  }

  /** Keeps collections in sync with a server, both ways, until stopped. Offline it waits, and catches up afterwards. */
  sync(options: SyncOptions): SyncSession {
    return new SyncSession(this.#client, options);
  }

  /** Writes everything out and closes. Every later call fails with `closed`. Safe to call again. */
  async close(): Promise<void> {
    await this.#client.close();
  }

  /** The same as {@link Database.close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** @internal */
export function required(body: Bytes | undefined): Bytes {
  if (!body) throw new EddyError('internal', 'the engine gave an empty answer');
  return body;
}

/** Checks the options that JavaScript callers may get wrong. @internal */
export function checkOptions(options: OpenOptions, hosts: readonly string[]): void {
  const { name, storage = 'auto', durability = 'synced', retention = 0, memoryLimitBytes = 0, codec = 'zstd', mergePolicy = 'hierarchical', replicaNumber = 0, workers = 0, streams = false, path } = options;
  if (typeof name !== 'string' || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)) {
    const got = typeof name === 'string' ? JSON.stringify(name) : typeof name;
    throw new EddyError('invalid_argument', `name: 1 to 128 letters, digits, '.', '_' or '-' expected, starting with a letter or digit; got ${got}`);
  }
  if (!['auto', ...hosts].includes(storage)) {
    throw new EddyError('invalid_argument', `storage: one of ${['auto', ...hosts].join(', ')} expected here, got ${String(storage)}`);
  }
  if (!['synced', 'buffered'].includes(durability)) {
    throw new EddyError('invalid_argument', `durability: synced or buffered expected, got ${String(durability)}`);
  }
  if (typeof retention !== 'number' || !(retention >= 0)) {
    throw new EddyError('invalid_argument', `retention: a number of milliseconds expected, got ${String(retention)}`);
  }
  if (typeof memoryLimitBytes !== 'number' || !(memoryLimitBytes >= 0)) {
    throw new EddyError('invalid_argument', `memoryLimitBytes: a number of bytes expected, got ${String(memoryLimitBytes)}`);
  }
  if (!Number.isInteger(replicaNumber) || replicaNumber < 0 || replicaNumber > 16_383) {
    throw new EddyError('invalid_argument', `replicaNumber: an integer from 0 to 16383 expected, got ${String(replicaNumber)}`);
  }
  if (workers !== 'auto' && !(Number.isInteger(workers) && workers >= 0 && workers <= 16)) {
    throw new EddyError('invalid_argument', `workers: an integer from 0 to 16 or auto expected, got ${String(workers)}`);
  }
  if (typeof streams !== 'boolean') {
    throw new EddyError('invalid_argument', `streams: true or false expected, got ${String(streams)}`);
  }
  if (!['zstd', 'lz4', 'gzip', 'snappy', 'none'].includes(codec)) {
    throw new EddyError('invalid_argument', `codec: zstd, lz4, gzip, snappy or none expected, got ${String(codec)}`);
  }
  if (!['hierarchical', 'sequential', 'parallel'].includes(mergePolicy)) {
    throw new EddyError('invalid_argument', `mergePolicy: hierarchical, sequential or parallel expected, got ${String(mergePolicy)}`);
  }
  if (path !== undefined && storage !== 'files' && storage !== 'auto') {
    throw new EddyError('invalid_argument', `path belongs to storage 'files', got storage '${storage}'`);
  }
}
