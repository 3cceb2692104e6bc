import { browserOpener } from './host-browser.js';
import type { ClientMessage } from './protocol.js';
import { serve } from './serve.js';

// The dedicated worker of one database in a browser.

interface WorkerScope {
  postMessage(message: unknown, transfer: Transferable[]): void;
  addEventListener(type: 'message', listener: (event: MessageEvent<ClientMessage>) => void): void;
  addEventListener(type: 'error', listener: (event: ErrorEvent) => void): void;
  close(): void;
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

serve(
  {
    post: (message, transfer) => scope.postMessage(message, transfer),
    onMessage: (listener) =>
      scope.addEventListener('message', async ({ data }) => {
        if ('open' in data && data.alive) await hold(data.alive);
        listener(data);
      }),
    end: () => scope.close(),
  },
  browserOpener((listener) => (uncaught = listener)),
);
