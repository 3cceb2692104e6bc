import type { Engine } from './engine.js';
import { EddyError } from './error.js';
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
let engine: Engine | undefined;

scope.addEventListener('error', (event) => {
  // A trap in a task of the engine arrives here, because no promise is waiting for it.
  if (!engine) return;
  event.preventDefault();
  engine.die(new EddyError('internal', `the engine stopped: ${event.message}; open the database again, and please report it`));
});

serve(
  {
    post: (message, transfer) => scope.postMessage(message, transfer),
    onMessage: (listener) => scope.addEventListener('message', (event) => listener(event.data)),
    end: () => scope.close(),
  },
  browserOpener((opened) => (engine = opened)),
);
