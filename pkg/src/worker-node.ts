import { readFile } from 'node:fs/promises';
import { parentPort, Worker } from 'node:worker_threads';

import { bestBuild } from './build.js';
import { Engine, type EngineHooks } from './engine.js';
import { EddyError } from './error.js';
import { NodeDirectory } from './node-directory.js';
import { type PoolAnswer, type PoolMessage, type PoolThread, SearchPool, servePool } from './pool.js';
import type { ClientMessage } from './protocol.js';
import { serve } from './serve.js';
import { engineOptions, start } from './wasm.js';

// The thread of one database in Node, or one that searches beside it: the first message tells.

const port = parentPort!;
let directory: NodeDirectory | undefined;
let pool: ((message: PoolMessage) => void) | undefined;

function poolThread(): PoolThread {
  const worker = new Worker(new URL(import.meta.url), { name: 'eddydb-pool' });
  return {
    post: (message, transfer) => worker.postMessage(message, transfer),
    onMessage: (listener) => void worker.on('message', (message: PoolAnswer) => listener(message)),
    onEnd: (listener) => {
      worker.on('error', (error) => listener(error.message));
      worker.on('exit', (code) => listener(`it ended with ${code}`));
    },
    terminate: () => void worker.terminate(),
  };
}

serve(
  {
    post: (message, transfer) => port.postMessage(message, transfer),
    onMessage: (listener) =>
      port.on('message', (message: ClientMessage | PoolMessage) => {
        if ('pool' in message) pool = servePool(message.pool, (answer, transfer) => port.postMessage(answer, transfer));
        else if ('message' in message) pool?.(message);
        else listener(message);
      }),
    end: () => {
      directory?.close();
      // The client ends the thread when it has read what was posted.
    },
  },
  async (open, send, onDeath) => {
    let module: WebAssembly.Module | undefined;
    const build = bestBuild(open);
    const wasm = await start(async () => (module = await WebAssembly.compile(await readFile(new URL(`./eddydb_${build}.wasm`, import.meta.url)))), build);
    if (open.storage === 'files') directory = lockDirectory(open.path!);
    const hooks: EngineHooks = {
      startPool: () => (open.workers ? new SearchPool(Array.from({ length: open.workers }, poolThread), { module: module!, build }) : undefined),
      pause: () => new Promise((resolve) => setImmediate(resolve)),
      onDeath,
      onUncaught: (listener) => {
        process.on('uncaughtException', (error) => listener(error.message));
      },
    };
    let engine: Engine;
    try {
      engine = await Engine.open(
        wasm,
        (database) => {
          if (!directory) return database.openMemory(engineOptions(open));
          return database.openDirectory(directory, engineOptions(open));
        },
        hooks,
      );
    } catch (error) {
      directory?.close();
      throw error;
    }
    const session = engine.connect(send);
    return {
      request: (op, target, body) => session.request(op, target, body),
      close: async () => {
        try {
          await engine.close();
        } finally {
          directory?.close();
        }
      },
    };
  },
);

function lockDirectory(path: string): NodeDirectory {
  try {
    return NodeDirectory.open(path);
  } catch (error) {
    const { name, message } = error as DOMException;
    const kind = name === 'NoModificationAllowedError' ? 'locked' : name === 'QuotaExceededError' ? 'storage_full' : 'io';
    throw new EddyError(kind, message, { cause: error });
  }
}
