// Connections to a hub, for the engine: a WebSocket where one gets through, plain requests where none does. The requests are those of
// "Without WebSockets" in `src/docs/sync.md`.

/** What the engine uses of a WebSocket. @internal */
export interface Socket {
  binaryType: string;
  readonly readyState: number;
  readonly bufferedAmount: number;
  onopen: (() => void) | null;
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null;
  onerror: (() => void) | null;
  send(message: Uint8Array): void;
  close(): void;
}

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 3;
/** A WebSocket that is not open after so long has been swallowed on the way. */
const OPEN_WITHIN_MS = 5_000;
/** A server that does not answer for so long is taken for absent. */
const BEGIN_WITHIN_MS = 15_000;
/** So much goes into one request. */
const REQUEST_BYTES = 1 << 20;

/** Connects to a hub. Throws for a URL that cannot be. @internal */
export function makeSocket(url: string): Socket {
  return new HubSocket(url);
}

/** What whoever uses a socket sets. */
class Listened {
  binaryType = 'arraybuffer';
  onopen: Socket['onopen'] = null;
  onmessage: Socket['onmessage'] = null;
  onclose: Socket['onclose'] = null;
  onerror: Socket['onerror'] = null;
}

/** A WebSocket, or requests once that has turned out not to open. */
class HubSocket extends Listened implements Socket {
  readonly #url: string;
  #socket: Socket;
  #closed = false;

  constructor(url: string) {
    super();
    this.#url = url;
    if (typeof globalThis.WebSocket === 'undefined') {
      this.#socket = this.#overHttp();
      return;
    }
    const socket = new WebSocket(url) as Socket;
    this.#socket = socket;
    const timer = setTimeout(() => failed(), OPEN_WITHIN_MS);
    const failed = () => {
      clearTimeout(timer);
      forget(socket);
      socket.close();
      if (!this.#closed) this.#socket = this.#overHttp();
    };
    // Node 20 tells of a connection that cannot be made by `error` alone; others tell `close` after it.
    socket.onerror = failed;
    socket.onclose = failed;
    socket.onopen = () => {
      clearTimeout(timer);
      this.#forward(socket);
      this.onopen?.();
    };
  }

  get readyState(): number {
    return this.#closed ? CLOSED : this.#socket.readyState;
  }

  get bufferedAmount(): number {
    return this.#socket.bufferedAmount;
  }

  send(message: Uint8Array): void {
    this.#socket.send(message);
  }

  close(): void {
    this.#closed = true;
    this.#socket.close();
  }

  #overHttp(): Socket {
    const socket = new HttpSocket(this.#url);
    this.#forward(socket);
    socket.onopen = () => this.onopen?.();
    return socket;
  }

  #forward(socket: Socket): void {
    socket.binaryType = this.binaryType;
    socket.onmessage = (event) => this.onmessage?.(event);
    socket.onclose = (event) => this.onclose?.(event);
    socket.onerror = () => this.onerror?.();
  }
}

function forget(socket: Socket): void {
  socket.onopen = null;
  socket.onmessage = null;
  socket.onclose = null;
  socket.onerror = null;
}

/** A connection made of requests. */
class HttpSocket extends Listened implements Socket {
  readyState = CONNECTING;
  bufferedAmount = 0;
  readonly #begin: URL;
  readonly #ends = new AbortController();
  #name = '';
  #queue: Uint8Array<ArrayBuffer>[] = [];
  #sent = 0;
  #sending = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(url: string) {
    super();
    this.#begin = new URL(url);
    this.#begin.protocol = this.#begin.protocol === 'wss:' ? 'https:' : 'http:';
    this.#begin.pathname = `${this.#begin.pathname.replace(/\/$/, '')}/http`;
    void this.#run();
  }

  send(message: Uint8Array): void {
    // What is given is memory that is used again.
    this.#queue.push(message.slice());
    this.bufferedAmount += message.length;
    if (!this.#sending) void this.#send();
  }

  close(): void {
    if (this.readyState === OPEN) {
      // The server would notice by itself, after a minute.
      fetch(this.#place(), { method: 'DELETE', keepalive: true }).catch(() => {});
    }
    this.#end();
  }

  async #run(): Promise<void> {
    this.#timer = setTimeout(() => this.#ends.abort(), BEGIN_WITHIN_MS);
    try {
      const begun = await fetch(this.#begin, { method: 'POST', signal: this.#ends.signal });
      const name = await begun.text();
      if (begun.status !== 201 || !/^[0-9a-f]{32}$/.test(name)) throw new Error(`${this.#begin}: ${begun.status}`);
      clearTimeout(this.#timer);
      this.#name = name;
      this.readyState = OPEN;
      this.onopen?.();
      let received = 0;
      while (this.readyState === OPEN) {
        const told = await fetch(this.#place(received), { signal: this.#ends.signal, cache: 'no-store' });
        if (told.status === 410) {
          this.#end();
          this.onclose?.({ code: 1000, reason: '' });
          return;
        }
        if (told.status !== 200) throw new Error(`${told.status}: ${await told.text()}`);
        for (const message of split(await told.arrayBuffer())) {
          received += 1;
          this.onmessage?.({ data: message });
        }
      }
    } catch (error) {
      this.#break(error);
    }
  }

  async #send(): Promise<void> {
    this.#sending = true;
    try {
      while (this.#queue.length > 0 && this.readyState === OPEN) {
        const messages = this.#take();
        const bytes = messages.reduce((sum, message) => sum + message.length, 0);
        const taken = await fetch(this.#place(this.#sent), { method: 'POST', body: join(messages, bytes), signal: this.#ends.signal });
        // The connection has ended: what the server has sent before that is still to be read.
        if (taken.status === 410) return;
        if (taken.status !== 204) throw new Error(`${taken.status}: ${await taken.text()}`);
        this.#sent += messages.length;
        this.bufferedAmount -= bytes;
      }
      this.#sending = false;
    } catch (error) {
      this.#break(error);
    }
  }

  /** The next messages, as many as go into one request. */
  #take(): Uint8Array<ArrayBuffer>[] {
    let [count, bytes] = [0, 0];
    for (const { length } of this.#queue) {
      if (count > 0 && bytes + length > REQUEST_BYTES) break;
      count += 1;
      bytes += length;
    }
    return this.#queue.splice(0, count);
  }

  #place(at?: number): URL {
    const place = new URL(this.#begin);
    place.pathname += `/${this.#name}`;
    if (at !== undefined) place.searchParams.set('at', String(at));
    return place;
  }

  #break(error: unknown): void {
    if (this.readyState === CLOSED) return;
    this.#end();
    this.onerror?.();
    this.onclose?.({ code: 1006, reason: error instanceof Error ? error.message : String(error) });
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.readyState = CLOSED;
    this.#ends.abort();
  }
}

/** Each message behind its length. */
function join(messages: readonly Uint8Array[], bytes: number): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(bytes + 4 * messages.length);
  const view = new DataView(body.buffer);
  let at = 0;
  for (const message of messages) {
    view.setUint32(at, message.length, true);
    body.set(message, at + 4);
    at += 4 + message.length;
  }
  return body;
}

function split(body: ArrayBuffer): ArrayBuffer[] {
  const view = new DataView(body);
  const messages: ArrayBuffer[] = [];
  let at = 0;
  while (at < body.byteLength) {
    const start = at + 4;
    const end = start <= body.byteLength ? start + view.getUint32(at, true) : Infinity;
    if (end > body.byteLength) throw new Error(`a body of ${body.byteLength} bytes, cut short behind byte ${at}`);
    messages.push(body.slice(start, end));
    at = end;
  }
  return messages;
}
