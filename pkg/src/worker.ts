import { browserOpener } from './host-browser.js';
import { type PoolAnswer, type PoolMessage, type PoolThread, servePool } from './pool.js';
import type { ClientMessage } from './protocol.js';
import { serve } from './serve.js';

// The dedicated worker of one database in a browser, or one that searches beside it: the first message tells.

interface WorkerScope {
  postMessage(message: unknown, transfer: Transferable[]): void;
  addEventListener(type: 'message', listener: (event: MessageEvent<ClientMessage | PoolMessage>) => void): void;
  addEventListener(type: 'error', listener: (event: ErrorEvent) => void): void;
  close(): void;
  importScripts(): void;
  location: { href: string };
}

const scope = globalThis as unknown as WorkerScope;
let uncaught: ((message: string) => void) | undefined;

scope.addEventListener('error', (event) => {
  if (!uncaught) return;
  event.preventDefault();
  uncaught(event.message);
});

/** Takes a lock for as long as this worker lives. */
async function hold(name: string): Promise<void> {
  if (!globalThis.navigator?.locks) return;
  await new Promise<void>((held) => void navigator.locks.request(name, () => (held(), new Promise<never>(() => {}))));
}

let pool: ((message: PoolMessage) => void) | undefined;

/** Another worker of this very script, wherever a bundler has put it and whichever kind of script it has made of it. */
function poolThread(): PoolThread {
  let type: WorkerType = 'classic';
  try {
    scope.importScripts();
  } catch {
    type = 'module';
  }
  const worker = new globalThis.Worker(scope.location.href, { type, name: 'eddydb-pool' });
  return {
    post: (message, transfer) => worker.postMessage(message, transfer),
    onMessage: (listener) => (worker.onmessage = ({ data }: MessageEvent<PoolAnswer>) => listener(data)),
    onEnd: (listener) => {
      worker.onerror = (event) => {
        event.preventDefault();
        listener(event.message || 'its script was not loaded');
      };
      worker.onmessageerror = () => listener('a message could not be read');
    },
    terminate: () => worker.terminate(),
  };
}

serve(
  {
    post: (message, transfer) => scope.postMessage(message, transfer),
    onMessage: (listener) =>
      scope.addEventListener('message', async ({ data }) => {
        if ('pool' in data) {
          pool = servePool(data.pool, (answer, transfer) => scope.postMessage(answer, transfer));
          return;
        }
        if ('message' in data) {
          pool?.(data);
          return;
        }
        if ('open' in data && data.alive) await hold(data.alive);
        listener(data);
      }),
    end: () => scope.close(),
  },
  browserOpener((listener) => (uncaught = listener), typeof globalThis.Worker === 'undefined' ? undefined : poolThread),
);
