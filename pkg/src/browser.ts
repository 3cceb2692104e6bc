import type { Port } from './client.js';
import { checkOptions, Database, type OpenOptions } from './database.js';
import { EddyError } from './error.js';
import { workersOf } from './pool.js';
import type { EngineMessage } from './protocol.js';

export * from './exports.js';

/**
 * Opens a database, creating it when it is not there. Its engine runs in a worker of its own.
 *
 * In a browser, tabs that open the same name share one database: one tab's worker holds the files, the others talk to it, and when that
 * tab goes, another takes over.
 *
 * @throws {@link EddyError} `corrupt` when stored bytes are not what was written, `unsupported` when the host lacks the storage, `unavailable`
 * when the engine could not be loaded; in Node, `locked` when another process has the directory.
 */
export async function open<const B extends boolean = false>(options: OpenOptions<B>): Promise<Database<B>> {
  checkOptions(options, ['opfs', 'indexeddb', 'memory']);
  const { name, storage = 'auto', durability = 'synced', retention = 0, memoryLimitBytes, codec = 'zstd', mergePolicy = 'hierarchical', replicaNumber, streams = false, bigint = false } = options;
  const workers = workersOf(options.workers, globalThis.navigator?.hardwareConcurrency);
  if (storage === 'opfs' && !globalThis.navigator?.storage?.getDirectory) {
    throw new EddyError('unsupported', "this context has no private file system (it needs https or localhost): open with storage: 'indexeddb'");
  }
  return Database.open<B>(await spawn(), { name, storage, durability, retention, memoryLimitBytes, codec, mergePolicy, replicaNumber, workers, streams }, bigint);
}

async function spawn(): Promise<Port> {
  // A worker that cannot have workers of its own is one already, and runs the engine itself.
  if (typeof Worker === 'undefined') {
    const { browserOpener, inProcessPort } = await import('./inline.js');
    return inProcessPort(browserOpener(() => {}));
  }
  const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'eddydb' });
  const alive = `eddydb:alive:${crypto.randomUUID()}`;
  let failed: (reason: string) => void = () => {};
  return {
    post: (message, transfer) => worker.postMessage('open' in message ? { ...message, alive } : message, transfer),
    onMessage: (listener) => {
      worker.onmessage = ({ data }: MessageEvent<EngineMessage>) => {
        // A worker that is ended from outside says nothing: it holds this lock while it lives.
        if ('opened' in data) void globalThis.navigator?.locks?.request(alive, () => failed('it was ended'));
        listener(data);
      };
    },
    onFailure: (listener) => {
      failed = listener;
      worker.onerror = (event) => {
        event.preventDefault();
        listener(event.message || 'its script was not loaded');
      };
      worker.onmessageerror = () => listener('a message could not be read');
    },
    onNetwork: (listener) => {
      const online = () => listener(true);
      const offline = () => listener(false);
      globalThis.addEventListener('online', online);
      globalThis.addEventListener('offline', offline);
      return () => {
        globalThis.removeEventListener('online', online);
        globalThis.removeEventListener('offline', offline);
      };
    },
    terminate: () => worker.terminate(),
  };
}
