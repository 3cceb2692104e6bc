// Parts of files that a hub offers, by plain requests, for the engine: see "Files by requests" in `src/docs/sync.md`.

/** A part of a file on its way. @internal */
export interface Download {
  /** All bytes that were asked for, or those before the request broke: fewer, never more. */
  readonly bytes: Promise<Uint8Array>;
  /** Nobody wants it any more. */
  stop(): void;
}

/** A server that sends nothing for so long is taken for absent, and a request of which nothing is wanted for so long is given up. */
const SILENT_MS = 15_000;

/** Requests that go on, by what they get. */
const open = new Map<string, FileRequest>();

/**
 * Gets `length` bytes from `offset` of the file at `path` below the place of a hub, with the scheme of a WebSocket. Parts that follow on each
 * other come of one request: in Chromium many small ones take twice as long, also side by side. No other origin is asked, whatever the hub
 * says. @internal
 */
export function download(hub: string, path: string, token: string | undefined, offset: number, length: number): Download {
  const url = place(hub, path);
  let request = open.get(url.href);
  if (request?.end !== offset) {
    request = new FileRequest(url, token, offset);
    open.set(url.href, request);
  }
  return request.take(length);
}

function place(hub: string, path: string): URL {
  const url = new URL(hub);
  url.protocol = url.protocol === 'wss:' ? 'https:' : 'http:';
  // A path has no host, however it is written.
  url.pathname = `${url.pathname.replace(/\/$/, '')}/${path}`;
  return url;
}

/** A file from some byte on, read as parts of it are asked for. */
class FileRequest {
  /** Where the parts end that were asked for. */
  end: number;
  readonly #url: URL;
  readonly #ends = new AbortController();
  readonly #reader: Promise<ReadableStreamDefaultReader<Uint8Array>>;
  #rest: Uint8Array = new Uint8Array();
  /** How many bytes are to come, where the server tells. */
  #left = Infinity;
  #wanted = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(url: URL, token: string | undefined, offset: number) {
    this.#url = url;
    this.end = offset;
    this.#reader = this.#begin(token, offset);
  }

  take(length: number): Download {
    this.end += length;
    this.#wanted += 1;
    let ended = false;
    const bytes = this.#turn.then(() => this.#read(length)).finally(() => {
      ended = true;
      this.#wanted -= 1;
      if (this.#left === 0) this.#close();
      else this.#wait();
    });
    this.#turn = bytes.catch(() => {});
    return { bytes, stop: () => ended || this.#close() };
  }

  async #begin(token: string | undefined, offset: number): Promise<ReadableStreamDefaultReader<Uint8Array>> {
    this.#wait();
    const headers: Record<string, string> = { range: `bytes=${offset}-` };
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    // The store keeps it: the browser need not, too. Who redirects would learn the token.
    const answer = await fetch(this.#url, { headers, cache: 'no-store', redirect: 'manual', signal: this.#ends.signal });
    if (answer.status !== 206) throw new Error(`${answer.status}, 206 expected`);
    const told = answer.headers.get('content-length');
    if (told !== null) this.#left = Number(told);
    return answer.body!.getReader();
  }

  async #read(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    let got = 0;
    try {
      const reader = await this.#reader;
      while (got < length) {
        if (this.#rest.length === 0) {
          this.#wait();
          const { done, value } = await reader.read();
          if (done) {
            this.#close();
            break;
          }
          this.#rest = value;
        }
        const part = this.#rest.subarray(0, length - got);
        this.#rest = this.#rest.subarray(part.length);
        bytes.set(part, got);
        got += part.length;
      }
    } catch (error) {
      this.#close();
      if (got === 0) throw new Error(`${this.#url.pathname}: ${(error as Error).message}`, { cause: error });
    }
    this.#left -= got;
    return bytes.subarray(0, got);
  }

  /** For the server, or for whoever wants more. */
  #wait(): void {
    clearTimeout(this.#timer);
    const what = this.#wanted > 0 ? 'nothing came' : 'nothing was wanted';
    const timer = setTimeout(() => this.#close(new Error(`${what} for ${SILENT_MS} ms`)), SILENT_MS);
    // In Node a program may end before.
    if (typeof timer === 'object') (timer as { unref?(): void }).unref?.();
    this.#timer = timer;
  }

  #close(why?: Error): void {
    clearTimeout(this.#timer);
    if (open.get(this.#url.href) === this) open.delete(this.#url.href);
    this.#ends.abort(why);
  }
}
