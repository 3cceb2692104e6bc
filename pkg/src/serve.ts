import type { EddyError } from './error.js';
import { toErrorMessage } from './error.js';
import type { ClientMessage, EngineEvent, EngineMessage, OpenMessage, Session } from './protocol.js';

/** Memory that goes back to the page, which keeps one piece of it. */
const SPARE_BYTES_MIN = 64 << 10;
const SPARE_BYTES_MAX = 8 << 20;

/** The engine's end of a client's line. @internal */
export interface ServerPort {
  post(message: EngineMessage, transfer: ArrayBuffer[]): void;
  onMessage(listener: (message: ClientMessage) => void): void;
  /** Ends the thread, when the thread is only for this. */
  end(): void;
}

/** What opens a store for a client. @internal */
export type Opener = (
  open: OpenMessage['open'],
  send: (event: EngineEvent) => void,
  onDeath: (error: EddyError) => void,
) => Promise<Session>;

/** Answers a client until it closes, or the engine dies. @internal */
export function serve(port: ServerPort, open: Opener): void {
  let session: Session | undefined;
  const onDeath = (error: EddyError) => {
    port.post({ dead: toErrorMessage(error) }, []);
    port.end();
  };
  port.onMessage(async (message) => {
    if ('open' in message) {
      try {
        session = await open(message.open, (event) => port.post(event, []), onDeath);
        port.post({ opened: true }, []);
      } catch (error) {
        port.post({ failed: toErrorMessage(error) }, []);
        port.end();
      }
      return;
    }
    const { id } = message;
    try {
      if ('close' in message) {
        await session!.close();
        port.post({ id }, []);
        return;
      }
      const body = await session!.request(message.op, message.target, message.body);
      const buffers = body ? [body.buffer] : [];
      const spare = message.op === 'write' ? message.body?.buffer : undefined;
      // The body of a write is read, and its memory of use to the next one.
      if (spare && spare.byteLength >= SPARE_BYTES_MIN && spare.byteLength <= SPARE_BYTES_MAX) port.post({ id, body, spare }, [...buffers, spare]);
      else port.post({ id, body }, buffers);
    } catch (error) {
      port.post({ id, error: toErrorMessage(error) }, []);
    }
  });
}
