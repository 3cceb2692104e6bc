import { type Bytes, decode, describe, encode } from './codec.js';
import type { FilterParams } from './collection.js';
import { EddyError, toEddyError } from './error.js';
import type { WasmHub, WasmHubConnection } from './wasm.js';

/** Some actions with some collections. */
export interface Grant {
  /** Names; `*` at the end stands for any rest. */
  collections: readonly string[];
  /** What may be done: `admin` is everything, to create and drop them too. */
  actions: readonly ('read' | 'write' | 'admin')[];
  /** Only with rows that this filter admits. Not together with `admin`. */
  filter?: string;
  /** What `{name}` stands for in it. */
  filterParams?: FilterParams;
}

/** What the holder of a token may do, and how long. */
export interface Admission {
  /** Everything, when left out. */
  grants?: readonly Grant[];
  /** Until then, in milliseconds since 1970: the client is asked for a newer token before. */
  expiresAt?: number;
}

/** How clients are served. */
export interface HubOptions {
  /**
   * Called with the token of a client, each that it shows; says what it may do, or throws: an {@link EddyError} of kind `unauthorized` tells
   * the client what is wrong. Without it everybody may do everything.
   */
  admit?: (token: string | undefined) => Admission;
  /** Whether a client that brings a collection that is not here gets it created, if it may. Default true. */
  createCollections?: boolean;
}

/** The way to one client: a WebSocket, or anything that carries whole binary messages in order. */
export interface HubSocket {
  /** Sends a frame; a promise says when more can be sent. What it throws ends the connection. */
  send(frame: Uint8Array): void | Promise<void>;
  /** The connection is over, with an error that the client was told, or because the client left. Called once. */
  close(error?: EddyError): void;
}

/**
 * Serves the collections of a database to sync clients, whatever carries their messages: `db.sync()` of this package, stores in Rust, or
 * hubs below this one.
 */
export class Hub {
  readonly #hub: WasmHub;
  readonly #wake: () => void;
  readonly #understand: (error: unknown) => EddyError;

  /** @internal */
  constructor(hub: WasmHub, wake: () => void, understand: (error: unknown) => EddyError) {
    this.#hub = hub;
    this.#wake = wake;
    this.#understand = understand;
  }

  /**
   * Serves a client, whose frames go to {@link HubConnection.receive}. With `rested`, one that had come to rest: see
   * {@link HubConnection.rest}.
   */
  connect(socket: HubSocket, rested?: Uint8Array): HubConnection {
    const ended = (error: unknown) => socket.close(error === undefined ? undefined : toEddyError(error));
    try {
      return new HubConnection(this.#hub.connect(rested, (frame) => socket.send(frame), ended), this.#wake, this.#understand);
    } catch (error) {
      throw this.#understand(error);
    }
  }

  /** Tells all clients that it goes away (they come back later), and waits until their connections have ended. */
  async stop(): Promise<void> {
    try {
      await this.#hub.stop();
    } catch (error) {
      throw this.#understand(error);
    }
  }
}

/** One client of a {@link Hub}. */
export class HubConnection {
  readonly #connection: WasmHubConnection;
  readonly #wake: () => void;
  readonly #understand: (error: unknown) => EddyError;

  /** @internal */
  constructor(connection: WasmHubConnection, wake: () => void, understand: (error: unknown) => EddyError) {
    this.#connection = connection;
    this.#wake = wake;
    this.#understand = understand;
  }

  /** Takes in a frame of the client; false when the connection is over, or rests. */
  receive(frame: Uint8Array): boolean {
    try {
      const taken = this.#connection.receive(frame);
      // What it brings may be work for later.
      this.#wake();
      return taken;
    } catch (error) {
      throw this.#understand(error);
    }
  }

  /** The client is gone. */
  closed(): void {
    this.#connection.closed();
  }

  /**
   * When nothing is under way on the connection: what {@link Hub.connect} goes on from, after this database was closed and opened again too, on
   * the same connection. The client does not notice. Until then nothing is sent to it. `undefined` when something is under way.
   */
  async rest(): Promise<Uint8Array | undefined> {
    try {
      return await this.#connection.rest();
    } catch (error) {
      throw this.#understand(error);
    }
  }
}

/** What `admit` says, as the engine reads it. @internal */
export function toAdmitted(admit: NonNullable<HubOptions['admit']>): (token: string | undefined) => Bytes {
  return (token) => {
    const admission: unknown = admit(token);
    if (typeof admission !== 'object' || admission === null) {
      throw new EddyError('internal', `admit: an object that says what is allowed expected, got ${describe(admission)}`);
    }
    const { grants, expiresAt } = admission as Admission;
    return encode({ grants, expiresAt });
  };
}

// Frames that a host reads and makes without a database: their bytes are told in the documentation of the protocol.
const [faultType, pingType, tokenType] = [8, 9, 16];
const pong = Uint8Array.of(0x92, 10, 0xc0);

/** The token that a frame of a client shows: its first frame, where the hub asks for one. */
export function tokenOf(frame: Uint8Array): string | undefined {
  // Longer ones no hub looks at.
  if (frame[0] !== 0x92 || frame[1] !== tokenType || frame.length > 16_400) return undefined;
  try {
    const message: unknown = decode(frame as Bytes);
    return Array.isArray(message) && typeof message[1] === 'string' ? message[1] : undefined;
  } catch {
    return undefined;
  }
}

/** The answer to a frame that only asks for a sign of life: a host can give it while the connection rests. */
export function answerToPing(frame: Uint8Array): Uint8Array | undefined {
  return frame.length === 3 && frame[0] === 0x92 && frame[1] === pingType && frame[2] === 0xc0 ? pong.slice() : undefined;
}

/** The frame that tells a client why its connection ends. */
export function faultFrame({ kind, message }: EddyError): Uint8Array {
  return encode([faultType, [null, [kind, message]]]);
}
