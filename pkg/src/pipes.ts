import { type Bytes, decode, encode } from './codec.js';
import { EddyError, toEddyError } from './error.js';
import type { EngineEvent, Op } from './protocol.js';
import type { WasmCollection, WasmDatabase, WasmStreams } from './wasm.js';

/** Beyond the time that a function takes itself, its answer has so long. */
const ANSWER_MS = 5_000;

/** Who a function belongs to, and gets events. @internal */
export interface PipesClient {
  send(event: EngineEvent): void;
}

interface Asked {
  client: PipesClient;
  resolve(answer: Bytes): void;
  reject(error: EddyError): void;
}

/**
 * The pipelines of an open store, in the thread that holds it. Each goes on by itself, in steps between requests, so that one whose function
 * is slow keeps nobody waiting but itself.
 *
 * @internal
 */
export class Pipes {
  readonly #db: WasmDatabase & WasmStreams;
  readonly #pause: () => Promise<void>;
  readonly #onError: (error: unknown) => void;
  /** By name, those under way, and whether each is to look again. */
  readonly #steps = new Map<string, { again: boolean; ended: Promise<void> }>();
  readonly #followed = new Set<string>();
  readonly #functions = new Map<string, PipesClient>();
  readonly #asked = new Map<number, Asked>();
  readonly #listeners = new Map<string, { client: PipesClient }>();
  #nextAsk = 1;
  #due: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(db: WasmDatabase & WasmStreams, pause: () => Promise<void>, onError: (error: unknown) => void) {
    this.#db = db;
    this.#pause = pause;
    this.#onError = onError;
  }

  /** That of a store, when its engine's build has pipelines. */
  static of(db: WasmDatabase, pause: () => Promise<void>, onError: (error: unknown) => void): Pipes | undefined {
    return 'createPipeline' in db ? new Pipes(db as WasmDatabase & WasmStreams, pause, onError) : undefined;
  }

  /** Has all pipelines look whether there is something to do. */
  wake(): void {
    if (this.#closed) return;
    const names = this.#db.pipelines();
    if (names.length === 0) return;
    this.#followAll();
    for (const name of names) {
      const step = this.#steps.get(name);
      if (step) step.again = true;
      else this.#run(name);
    }
  }

  #run(name: string): void {
    const step = { again: true, ended: Promise.resolve() };
    this.#steps.set(name, step);
    step.ended = (async () => {
      try {
        while (step.again && !this.#closed) {
          await this.#pause();
          if (this.#closed) return;
          step.again = false;
          if (await this.#db.runPipeline(name)) step.again = true;
        }
      } catch (error) {
        // One that was dropped meanwhile is no failure.
        if (toEddyError(error).kind !== 'not_found') this.#onError(error);
      } finally {
        this.#steps.delete(name);
        this.#wakeWhenDue();
      }
    })();
  }

  #wakeWhenDue(): void {
    clearTimeout(this.#due);
    if (this.#closed) return;
    const dueMs = this.#db.pipelinesDueMs();
    this.#due = dueMs === undefined ? undefined : setTimeout(() => this.wake(), Math.min(dueMs + 1, 2 ** 31 - 1));
  }

  /** Whatever is written, by whomever, may be for a pipeline. */
  #followAll(): void {
    for (const name of this.#db.collections()) {
      if (this.#followed.has(name)) continue;
      this.#followed.add(name);
      void this.#follow(name, this.#db.collection(name));
    }
  }

  async #follow(name: string, collection: WasmCollection): Promise<void> {
    try {
      for (let lsn = 0; !this.#closed; ) {
        lsn = await collection.changedAfter(lsn);
        this.wake();
      }
    } catch {
      // The collection was dropped, or the store is closed.
    } finally {
      this.#followed.delete(name);
    }
  }

  /** Does what a client asks. */
  async perform(op: Op, target: string | undefined, body: Bytes | undefined, client: PipesClient): Promise<Bytes | undefined> {
    const db = this.#db;
    const name = target!;
    switch (op) {
      case 'sql':
        return db.sql(body!);
      case 'createPipeline':
        await db.createPipeline(name, decode(body!) as string);
        this.wake();
        return undefined;
      case 'pipelines':
        return encode(db.pipelines());
      case 'explainSpec':
        return encode(db.explainSpec(decode(body!) as string));
      case 'pipelineStatus':
        return encode(await db.pipelineStatus(name));
      case 'pipelineExplain':
        return encode(await db.explainPipeline(name));
      case 'dropPipeline':
        await db.dropPipeline(name);
        return undefined;
      case 'pausePipeline':
        await db.pausePipeline(name);
        return undefined;
      case 'recoverPipeline': {
        const { savepoint, anew = false } = decode(body!) as { savepoint?: string; anew?: boolean };
        await db.recoverPipeline(name, savepoint, anew);
        this.wake();
        return undefined;
      }
      case 'savepoint':
        await db.savepoint(name, decode(body!) as string);
        return undefined;
      case 'savepoints':
        return encode(await db.savepoints(name));
      case 'removeSavepoint':
        return encode(await db.removeSavepoint(name, decode(body!) as string));
      case 'unreadRows': {
        const { sink, from, count, bigint } = decode(body!) as { sink: string; from: number; count: number; bigint: boolean };
        return db.unreadRows(name, sink, from, count, bigint);
      }
      case 'acknowledgeRows': {
        const { sink, position } = decode(body!) as { sink: string; position: number };
        await db.acknowledgeRows(name, sink, position);
        // It may have waited for that.
        this.wake();
        return undefined;
      }
      case 'rowsStart': {
        const { pipeline, sink } = decode(body!) as { pipeline: string; sink: string };
        this.#listen(name, pipeline, sink, client);
        return undefined;
      }
      case 'rowsStop':
        this.#listeners.delete(name);
        return undefined;
      case 'setFunction': {
        const { timeoutMs, bigint } = decode(body!) as { timeoutMs: number; bigint: boolean };
        this.#functions.set(name, client);
        db.setFunction(name, (rows) => this.#call(name, rows, timeoutMs + ANSWER_MS), bigint);
        this.wake();
        return undefined;
      }
      case 'removeFunction':
        if (this.#functions.delete(name)) db.removeFunction(name);
        return undefined;
      case 'functionAnswer': {
        const asked = this.#asked.get(Number(name));
        if (decode(body!) === null) asked?.reject(new EddyError('unavailable', 'the function is not there any more'));
        else asked?.resolve(body!);
        return undefined;
      }
      default:
        throw new EddyError('internal', `no operation ${op}`);
    }
  }

  /** Tells a client that there are rows, whenever there are newer ones. */
  #listen(key: string, pipeline: string, sink: string, client: PipesClient): void {
    const listener = { client };
    this.#listeners.set(key, listener);
    void (async () => {
      try {
        for (let from = 0; !this.#closed && this.#listeners.get(key) === listener; ) {
          await this.#db.waitForRow(pipeline, sink, from);
          if (this.#closed || this.#listeners.get(key) !== listener) return;
          const status = JSON.parse(await this.#db.pipelineStatus(pipeline)) as { state: string; unread: { sink: string; acknowledged: number; rows: number }[] };
          const unread = status.unread.find((one) => one.sink === sink);
          const end = unread ? unread.acknowledged + unread.rows : from;
          client.send({ event: 'rows', key });
          // It failed or was dropped: who asks is told why.
          if (end <= from) return;
          from = end;
        }
      } catch {
        client.send({ event: 'rows', key });
      }
    })();
  }

  #call(name: string, rows: Bytes, withinMs: number): Promise<Uint8Array> {
    const client = this.#functions.get(name);
    if (!client || this.#closed) return Promise.reject(new EddyError('unavailable', `function ${JSON.stringify(name)} is not there`));
    return new Promise((resolve, reject) => {
      const id = this.#nextAsk++;
      const late = setTimeout(() => this.#asked.get(id)?.reject(new EddyError('unavailable', `function ${JSON.stringify(name)} gave no answer in ${withinMs} ms`)), withinMs);
      const ended = () => {
        clearTimeout(late);
        this.#asked.delete(id);
      };
      this.#asked.set(id, { client, resolve: (answer) => (ended(), resolve(answer)), reject: (error) => (ended(), reject(error)) });
      client.send({ event: 'call', ask: id, function: name, body: rows });
    });
  }

  /** A client is gone, and its functions with it. */
  forget(client: PipesClient): void {
    for (const [name, owner] of this.#functions) {
      if (owner !== client) continue;
      this.#functions.delete(name);
      if (!this.#closed) this.#db.removeFunction(name);
    }
    for (const [key, listener] of this.#listeners) if (listener.client === client) this.#listeners.delete(key);
    for (const asked of [...this.#asked.values()]) if (asked.client === client) asked.reject(new EddyError('unavailable', 'who gave the function is gone'));
  }

  /** Begins nothing more. */
  end(error: EddyError): void {
    this.#closed = true;
    clearTimeout(this.#due);
    for (const asked of [...this.#asked.values()]) asked.reject(error);
  }

  /** Lets each step come to its end; functions are waited for no longer. */
  async close(): Promise<void> {
    this.end(new EddyError('unavailable', 'the database is being closed'));
    await Promise.all([...this.#steps.values()].map((step) => step.ended));
  }
}
