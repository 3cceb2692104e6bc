import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';

import type { Port } from './client.js';
import { checkOptions, Database, type OpenOptions } from './database.js';
import { EddyError } from './error.js';
import { workersOf } from './pool.js';
import type { EngineMessage } from './protocol.js';

export * from './exports.js';
export { NodeDirectory } from './node-directory.js';

/** Opens a database. See the package's other entries for the same function in a browser. */
export async function open<const B extends boolean = false>(options: OpenOptions<B>): Promise<Database<B>> {
  checkOptions(options, ['memory', 'files']);
  const { name, path, durability = 'synced', retention = 0, memoryLimitBytes, codec = 'zstd', mergePolicy = 'hierarchical', replicaNumber, streams = false, bigint = false } = options;
  const workers = workersOf(options.workers, availableParallelism());
  const storage = options.storage === 'files' || (options.storage !== 'memory' && path !== undefined) ? 'files' : 'memory';
  if (storage === 'files' && path === undefined) {
    throw new EddyError('invalid_argument', "storage 'files' needs path, the directory to keep the database in");
  }
  return Database.open<B>(spawn(), { name, storage, path, durability, retention, memoryLimitBytes, codec, mergePolicy, replicaNumber, workers, streams }, bigint);
}

function spawn(): Port {
  // Node has had WebSocket behind a flag before version 22; without one sync makes requests.
  const flags = typeof globalThis.WebSocket === 'undefined' ? { execArgv: ['--experimental-websocket'] } : {};
  const worker = new Worker(new URL('./worker-node.js', import.meta.url), { name: 'eddydb', ...flags });
  let ended = false;
  return {
    post: (message, transfer) => worker.postMessage(message, transfer),
    onMessage: (listener) => void worker.on('message', (message: EngineMessage) => listener(message)),
    onFailure: (listener) => {
      worker.on('error', (error) => listener(error.message));
      worker.on('exit', (code) => {
        if (!ended) listener(`it ended with ${code}`);
      });
    },
    terminate: () => {
      ended = true;
      void worker.terminate();
    },
    hold: (held) => (held ? worker.ref() : worker.unref()),
  };
}
