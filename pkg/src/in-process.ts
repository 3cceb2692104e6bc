import type { Port } from './client.js';
import type { ClientMessage, EngineMessage } from './protocol.js';
import { type Opener, serve } from './serve.js';

/** A port to an engine in this very thread, for hosts that have no worker to give it. Messages arrive in tasks of their own. @internal */
export function inProcessPort(open: Opener): Port {
  let toClient: (message: EngineMessage) => void = () => {};
  let toServer: (message: ClientMessage) => void = () => {};
  let ended = false;
  serve(
    {
      post: (message) => queueMicrotask(() => toClient(message)),
      onMessage: (listener) => (toServer = listener),
      end: () => {
        ended = true;
      },
    },
    open,
  );
  return {
    post: (message) =>
      queueMicrotask(() => {
        if (!ended) toServer(message);
      }),
    onMessage: (listener) => (toClient = listener),
    onFailure: () => {},
    terminate: () => {
      ended = true;
    },
  };
}
