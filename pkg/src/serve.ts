import type { EddyError } from './error.js';
import { toErrorMessage } from './error.js';
import type { ClientMessage, EngineEvent, EngineMessage, OpenMessage, Session } from './protocol.js';

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
      port.post({ id, body }, body ? [body.buffer] : []);
    } catch (error) {
      port.post({ id, error: toErrorMessage(error) }, []);
    }
  });
}
