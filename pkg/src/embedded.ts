import type { EngineBuild } from './build.js';
import { type Codec, Database } from './database.js';
import type { DirectoryHandle } from './directory.js';
import { Engine } from './engine.js';
import { inProcessPort } from './in-process.js';
import { engineOptions, start } from './wasm.js';

export * from './exports.js';
export { bestBuild, type EngineBuild } from './build.js';

/** How an engine is opened in the thread of its caller. */
export interface EmbeddedOptions<B extends boolean = boolean> {
  /** Its name, for messages. */
  name: string;
  /** The compiled `eddydb/eddydb_relaxed.wasm`, `eddydb_simd.wasm` or `eddydb_plain.wasm`; for pipelines, `eddydb_full.wasm`. */
  wasm: WebAssembly.Module;
  /** Which of them `wasm` is. Default `'relaxed'`. */
  build?: EngineBuild;
  /** Where it lives; in memory when left out. Only this database may use it. */
  directory?: DirectoryHandle;
  /** As for `open`. */
  durability?: 'synced' | 'buffered';
  /** As for `open`. */
  retention?: number;
  /** As for `open`. */
  memoryLimitBytes?: number;
  /** As for `open`. */
  codec?: Codec;
  /** As for `open`. */
  replicaNumber?: number;
  /** As for `open`. */
  bigint?: B;
}

/**
 * Opens a database whose engine runs in the thread of the caller: for edge isolates such as a Durable Object, which have no workers and
 * bring their WebAssembly compiled. In a page it would block: use `open` of the package's main entry there.
 */
export async function openEmbedded<const B extends boolean = false>(options: EmbeddedOptions<B>): Promise<Database<B>> {
  const { name, wasm, build = 'relaxed', directory, durability = 'synced', retention = 0, memoryLimitBytes, codec = 'zstd', replicaNumber, bigint = false } = options;
  const open = { name, storage: 'memory' as const, durability, retention, memoryLimitBytes, codec, replicaNumber };
  const port = inProcessPort(async (_open, send, onDeath) => {
    const classes = await start(async () => wasm, build);
    const engine = await Engine.open(
      classes,
      (database) => (directory ? database.openDirectory(directory, engineOptions(open)) : database.openMemory(engineOptions(open))),
      { pause: () => new Promise((resolve) => setTimeout(resolve, 0)), onDeath, onUncaught: () => {} },
    );
    const session = engine.connect(send);
    return { request: (op, target, body) => session.request(op, target, body), close: () => engine.close() };
  });
  return Database.open<B>(port, open, bigint);
}
