import type { Bytes } from './codec.js';
import { EddyError, fromErrorMessage } from './error.js';
import type { ClientMessage, EngineEvent, EngineMessage, Op, OpenMessage } from './protocol.js';

/** A thread, or what stands for one: messages go in and come out in order. @internal */
export interface Port {
  post(message: ClientMessage, transfer: ArrayBuffer[]): void;
  onMessage(listener: (message: EngineMessage) => void): void;
  /** The thread died. */
  onFailure(listener: (reason: string) => void): void;
  /** The host went online or offline; the answer ends the listening. */
  onNetwork?(listener: (online: boolean) => void): () => void;
  terminate(): void;
  /** Whether the port keeps the process running, where that is a question. */
  hold?(held: boolean): void;
}

interface Waiting {
  resolve(body: Bytes | undefined): void;
  reject(error: EddyError): void;
}

/** The page's end of the line: numbers requests, matches responses, and tells every waiting call when the line breaks. @internal */
export class Client {
  readonly #port: Port;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(event: EngineEvent) => void>();
  readonly #endings = new Set<(error: EddyError) => void>();
  readonly #retained = new Map<string, number>();
  #forgetNetwork: (() => void) | undefined;
  #held = 0;
  #next = 1;
  #ended: EddyError | undefined;
  #closing: Promise<void> | undefined;
  #opened: Waiting | undefined;
  #spare: ArrayBuffer | undefined;

  private constructor(port: Port) {
    this.#port = port;
  }

  /** Opens a store on the other side of `port`. */
  static async open(port: Port, open: OpenMessage['open']): Promise<Client> {
    const client = new Client(port);
    port.onMessage((message) => client.#receive(message));
    port.onFailure((reason) => client.#end(new EddyError('unavailable', `the database's worker died: ${reason}; open the database again`)));
    client.hold(true);
    try {
      await new Promise<unknown>((resolve, reject) => {
        client.#opened = { resolve, reject };
        port.post({ open }, []);
      });
    } catch (error) {
      port.terminate();
      throw error;
    } finally {
      client.hold(false);
    }
    client.#forgetNetwork = port.onNetwork?.((online) => {
      // It fails when the database is closed, which needs no network.
      client.request('network', online ? 'online' : 'offline').catch(() => {});
    });
    return client;
  }

  /** Memory for a body: what came back of an earlier one, where it is long enough. A page of memory is slow to touch for the first time. */
  allocate(bytes: number): ArrayBuffer {
    const spare = this.#spare;
    if (!spare || spare.byteLength < bytes || spare.byteLength > 2 * bytes) return new ArrayBuffer(bytes);
    this.#spare = undefined;
    return spare;
  }

  /** Asks; `body` is transferred and gone afterwards. */
  request(op: Op, target?: string, body?: Bytes): Promise<Bytes | undefined> {
    if (this.#ended) return Promise.reject(this.#ended);
    return this.#ask((id) => this.#port.post({ id, op, target, body }, body ? [body.buffer] : []));
  }

  /** Listens to what happens without having been asked for. */
  onEvent(listener: (event: EngineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Listens to the end of the line, however it comes. */
  onEnd(listener: (error: EddyError) => void): () => void {
    this.#endings.add(listener);
    return () => this.#endings.delete(listener);
  }

  /** Keeps the process running while something is expected: a response, a change, a sync. */
  hold(held: boolean): void {
    this.#held += held ? 1 : -1;
    this.#port.hold?.(this.#held > 0);
  }

  /** Starts what goes on until it is released: events of a collection, a sync. Starting it again is counted. */
  async retain(op: 'watch' | 'syncStart', target: string, body?: Bytes): Promise<void> {
    this.#retained.set(`${op} ${target}`, (this.#retained.get(`${op} ${target}`) ?? 0) + 1);
    this.hold(true);
    await this.request(op, target, body);
  }

  /** Ends what {@link Client.retain} started, when everyone who started it has. */
  async release(op: 'watch' | 'syncStart', target: string): Promise<void> {
    const left = (this.#retained.get(`${op} ${target}`) ?? 1) - 1;
    this.#retained.set(`${op} ${target}`, left);
    this.hold(false);
    if (left > 0) return;
    this.#retained.delete(`${op} ${target}`);
    await this.request(op === 'watch' ? 'unwatch' : 'syncStop', target);
  }

  /** Closes the store and the thread. Safe to call again. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#ended) return;
    const closed = this.#ask((id) => this.#port.post({ id, close: true }, []));
    this.#ended = new EddyError('closed', 'the database is closed: open it again');
    try {
      await closed;
    } finally {
      this.#end(this.#ended);
    }
  }

  #ask(post: (id: number) => void): Promise<Bytes | undefined> {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      const settle = () => {
        this.#waiting.delete(id);
        this.hold(false);
      };
      this.#waiting.set(id, {
        resolve: (body) => (settle(), resolve(body)),
        reject: (error) => (settle(), reject(error)),
      });
      this.hold(true);
      post(id);
    });
  }

  #receive(message: EngineMessage): void {
    if ('id' in message) {
      const waiting = this.#waiting.get(message.id);
      if ('spare' in message) this.#spare = message.spare;
      if ('error' in message) waiting?.reject(fromErrorMessage(message.error));
      else waiting?.resolve(message.body);
    } else if ('event' in message) {
      for (const listener of this.#listeners) listener(message);
    } else if ('opened' in message) {
      this.#opened?.resolve(undefined);
    } else if ('failed' in message) {
      this.#opened?.reject(fromErrorMessage(message.failed));
    } else {
      this.#end(fromErrorMessage(message.dead));
    }
  }

  #end(error: EddyError): void {
    this.#ended ??= error;
    this.#opened?.reject(error);
    for (const waiting of [...this.#waiting.values()]) waiting.reject(error);
    this.#listeners.clear();
    for (const ending of [...this.#endings]) ending(this.#ended);
    this.#endings.clear();
    this.#forgetNetwork?.();
    this.#port.terminate();
  }
}
