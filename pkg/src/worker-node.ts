import { readFile } from 'node:fs/promises';
import { parentPort } from 'node:worker_threads';

import { Engine } from './engine.js';
import { EddyError } from './error.js';
import { NodeDirectory } from './node-directory.js';
import type { ClientMessage } from './protocol.js';
import { serve } from './serve.js';
import { start } from './wasm.js';

// The thread of one database in Node.

const port = parentPort!;
let engine: Engine | undefined;
let directory: NodeDirectory | undefined;

process.on('uncaughtException', (error) => {
  // A trap in a task of the engine arrives here, because no promise is waiting for it.
  engine?.die(new EddyError('internal', `the engine stopped: ${error.message}; open the database again, and please report it`, { cause: error }));
});

serve(
  {
    post: (message, transfer) => port.postMessage(message, transfer),
    onMessage: (listener) => port.on('message', (message: ClientMessage) => listener(message)),
    end: () => {
      directory?.close();
      // The client ends the thread when it has read what was posted.
    },
  },
  async (open, send, onDeath) => {
    const wasm = await start(async (simd) => {
      const file = simd ? new URL('./eddydb_simd.wasm', import.meta.url) : new URL('./eddydb_plain.wasm', import.meta.url);
      return WebAssembly.compile(await readFile(file));
    });
    if (open.storage === 'files') directory = lockDirectory(open.path!);
    const hooks = { pause: () => new Promise<void>((resolve) => setImmediate(resolve)), onDeath };
    try {
      engine = await Engine.open(
        wasm,
        (database) => (directory ? database.openDirectory(directory, open.durability === 'synced') : database.openMemory()),
        hooks,
      );
    } catch (error) {
      directory?.close();
      throw error;
    }
    const opened = engine;
    const session = opened.connect(send);
    return {
      request: (op, target, body) => session.request(op, target, body),
      close: async () => {
        try {
          await opened.close();
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
