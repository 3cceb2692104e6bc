import type { EngineBuild } from './build.js';
import type { Bytes } from './codec.js';
import { EddyError, type ErrorMessage, fromErrorMessage, toErrorMessage } from './error.js';
import { start } from './wasm.js';

// Workers beside the engine's: each has the engine's WebAssembly, with a memory of its own, and searches copies of segments there.

/** What a worker of the pool is sent: first what it is made of, then messages of the engine. @internal */
export type PoolMessage = PoolStart | { id: number; message: Bytes };

/** @internal */
export interface PoolStart {
  pool: { module: WebAssembly.Module; build: EngineBuild };
}

/** What a worker of the pool sends. @internal */
export type PoolAnswer = { id: number; answer: Bytes } | { id: number; error: ErrorMessage } | { ended: string };

/** A thread for a worker of a pool. @internal */
export interface PoolThread {
  post(message: PoolMessage, transfer: ArrayBuffer[]): void;
  onMessage(listener: (message: PoolAnswer) => void): void;
  /** The thread died. */
  onEnd(listener: (reason: string) => void): void;
  terminate(): void;
}

interface Waiting {
  resolve(answer: Bytes): void;
  reject(error: EddyError): void;
}

/** The engine's end: it has the shape that `src/wasm/pool.rs` expects. @internal */
export class SearchPool {
  readonly #lines: Line[];

  constructor(threads: PoolThread[], engine: PoolStart['pool']) {
    this.#lines = threads.map((thread) => new Line(thread, engine));
  }

  /** How many workers it began with. */
  get size(): number {
    return this.#lines.length;
  }

  /** Sends a worker a message, which is gone then. Rejects with `closed` when it has ended, with `unavailable` when it takes too long. */
  ask(worker: number, message: Bytes, patienceMs: number): Promise<Bytes> {
    return this.#lines[worker]!.ask(message, patienceMs);
  }

  end(worker: number): void {
    this.#lines[worker]!.end('it was ended');
  }

  endAll(): void {
    for (const line of this.#lines) line.end('the database was closed');
  }
}

class Line {
  readonly #thread: PoolThread;
  readonly #waiting = new Map<number, Waiting>();
  #next = 1;
  #ended: EddyError | undefined;

  constructor(thread: PoolThread, engine: PoolStart['pool']) {
    this.#thread = thread;
    thread.onMessage((message) => {
      if ('ended' in message) return this.end(message.ended);
      const waiting = this.#waiting.get(message.id);
      if ('error' in message) waiting?.reject(fromErrorMessage(message.error));
      else waiting?.resolve(message.answer);
    });
    thread.onEnd((reason) => this.end(reason));
    thread.post({ pool: engine }, []);
  }

  ask(message: Bytes, patienceMs: number): Promise<Bytes> {
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      let timer: ReturnType<typeof setTimeout>;
      const settle = () => {
        this.#waiting.delete(id);
        clearTimeout(timer);
      };
      const late = () => this.#waiting.get(id)?.reject(new EddyError('unavailable', `a search worker gave no answer in ${patienceMs} ms`));
      // In two halves: after a long call of the engine, or a sleep of the machine, an answer that is there is read between them.
      timer = setTimeout(() => (timer = setTimeout(late, patienceMs / 2)), patienceMs / 2);
      this.#waiting.set(id, {
        resolve: (answer) => (settle(), resolve(answer)),
        reject: (error) => (settle(), reject(error)),
      });
      this.#thread.post({ id, message }, [message.buffer]);
    });
  }

  end(reason: string): void {
    if (this.#ended) return;
    this.#ended = new EddyError('closed', `a search worker is gone: ${reason}`);
    for (const waiting of [...this.#waiting.values()]) waiting.reject(this.#ended);
    this.#thread.terminate();
  }
}

/** The worker's end: what it does with each message. @internal */
export function servePool({ module, build }: PoolStart['pool'], post: (answer: PoolAnswer, transfer: ArrayBuffer[]) => void): (message: PoolMessage) => void {
  const started = start(async () => module, build).then(({ PoolWorker }) => new PoolWorker());
  started.catch((error: unknown) => post({ ended: (error as Error).message }, []));
  return async (message) => {
    if (!('id' in message)) return;
    const worker = await started.catch(() => undefined);
    if (!worker) return;
    try {
      const answer = worker.answer(message.message);
      post({ id: message.id, answer }, [answer.buffer]);
    } catch (error) {
      // What the engine's code refuses has a kind. Anything else is a trap, after which nothing can be asked of the instance.
      if (typeof (error as { kind?: unknown }).kind === 'string') post({ id: message.id, error: toErrorMessage(error) }, []);
      else post({ ended: (error as Error).message }, []);
    }
  };
}

/** How many workers `open` asks for, of a host that runs so many threads at once. @internal */
export function workersOf(workers: number | 'auto' | undefined, threads: number | undefined): number {
  return workers === 'auto' ? Math.max(0, Math.min(4, (threads ?? 1) - 1)) : (workers ?? 0);
}
