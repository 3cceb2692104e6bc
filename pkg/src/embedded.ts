import type { EngineBuild } from './build.js';
import { Client } from './client.js';
import { type Codec, Database, type MergePolicy } from './database.js';
import type { DirectoryHandle } from './directory.js';
import { Engine } from './engine.js';
import { EddyError } from './error.js';
import type { Hub, HubOptions } from './hub.js';
import { inProcessPort } from './in-process.js';
import type { ForeignStorage } from './storage.js';
import { engineOptions, start } from './wasm.js';

export * from './exports.js';
export { bestBuild, type EngineBuild } from './build.js';
export type { ForeignStorage, StorageOp } from './storage.js';
export { type Admission, answerToPing, faultFrame, type Grant, Hub, HubConnection, type HubOptions, type HubSocket, tokenOf } from './hub.js';

/** How an engine is opened in the thread of its caller. */
export interface EmbeddedOptions<B extends boolean = boolean> {
  /** Its name, for messages. */
  name: string;
  /** The compiled `eddydb/eddydb_relaxed.wasm`, `eddydb_simd.wasm` or `eddydb_plain.wasm`; for pipelines and {@link EmbeddedDatabase.hub}, `eddydb_full.wasm`. */
  wasm: WebAssembly.Module;
  /** Which of them `wasm` is. Default `'relaxed'`. */
  build?: EngineBuild;
  /** Where it lives; in memory when this and `storage` are left out. Only this database may use it. */
  directory?: DirectoryHandle;
  /** Where it lives, by calls that wait. Only this database may use it; it is closed with it. */
  storage?: ForeignStorage;
  /** As for `open`. */
  durability?: 'synced' | 'buffered';
  /** As for `open`. */
  retention?: number;
  /** As for `open`. */
  memoryLimitBytes?: number;
  /** As for `open`. */
  codec?: Codec;
  /** As for `open`. */
  mergePolicy?: MergePolicy;
  /** As for `open`. */
  replicaNumber?: number;
  /** As for `open`. */
  bigint?: B;
}

/** A database whose engine runs in the thread of its caller. */
export class EmbeddedDatabase<B extends boolean = false> extends Database<B> {
  readonly #engine: Engine;

  /** @internal */
  constructor(client: Client, name: string, bigint: boolean, engine: Engine) {
    super(client, name, bigint);
    this.#engine = engine;
  }

  /**
   * Serves the database to sync clients over connections that the caller has.
   *
   * @throws {@link EddyError} `unsupported` by builds other than `full`.
   */
  hub(options: HubOptions = {}): Hub {
    return this.#engine.hub(options);
  }

  /** Whether no call runs and no background work is waiting. */
  get isIdle(): boolean {
    return this.#engine.isIdle;
  }
}

/**
 * Opens a database whose engine runs in the thread of the caller: for edge isolates such as a Durable Object, which have no workers and
 * bring their WebAssembly compiled. In a page it would block: use `open` of the package's main entry there.
 */
export async function openEmbedded<const B extends boolean = false>(options: EmbeddedOptions<B>): Promise<EmbeddedDatabase<B>> {
  const { name, wasm, build = 'relaxed', directory, storage, durability = 'synced', retention = 0, memoryLimitBytes, codec = 'zstd', mergePolicy = 'hierarchical', replicaNumber, bigint = false } = options;
  if (directory && storage) throw new EddyError('invalid_argument', `${name}: a directory and a storage were given; expected one of them`);
  const open = { name, storage: 'memory' as const, durability, retention, memoryLimitBytes, codec, mergePolicy, replicaNumber };
  let opened: Engine | undefined;
  const port = inProcessPort(async (_open, send, onDeath) => {
    const classes = await start(async () => wasm, build);
    const engine = await Engine.open(
      classes,
      (database) => {
        if (storage) return database.openForeign(storage, engineOptions(open));
        return directory ? database.openDirectory(directory, engineOptions(open)) : database.openMemory(engineOptions(open));
      },
      { pause: () => new Promise((resolve) => setTimeout(resolve, 0)), onDeath, onUncaught: () => {} },
    );
    opened = engine;
    const session = engine.connect(send);
    return { request: (op, target, body) => session.request(op, target, body), close: () => engine.close() };
  });
  const client = await Client.open(port, open);
  return new EmbeddedDatabase<B>(client, name, bigint, opened!);
}
