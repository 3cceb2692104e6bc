import { type Bytes, decode, encode } from './codec.js';
import { EddyError, toEddyError } from './error.js';
import { type PipelineStatus, statusOf } from './pipeline.js';
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

/** The event bus of a store, in the builds that have pipelines. */
interface WasmBus {
  configureBus(spec: string): Promise<void>;
  busStatus(): string;
  publishToBus(source: string, events: string): Promise<Uint32Array>;
  replayOnBus(request: string): Promise<number>;
  cancelReplay(id: number): boolean;
  busIsConfigured(): boolean;
  runBus(): Promise<boolean>;
  busDueMs(): number | undefined;
  busMovedAfter(seen: number): Promise<number>;
}

/** The step of the bus: no pipeline has this name. */
const BUS = '';

type Db = WasmDatabase & WasmStreams & WasmBus;

/** A function that a client has. */
interface Given {
  client: PipesClient;
  timeoutMs: number;
  bigint: boolean;
}

/**
 * The pipelines of an open store, in the thread that holds it. Each goes on by itself, in steps between requests, so that one whose function
 * is slow keeps nobody waiting but itself.
 *
 * @internal
 */
export class Pipes {
  readonly #db: Db;
  readonly #pause: () => Promise<void>;
  readonly #onError: (error: unknown) => void;
  /** By name, those under way, and whether each is to look again. */
  readonly #steps = new Map<string, { again: boolean; ended: Promise<void> }>();
  readonly #followed = new Set<string>();
  /** By name, who has given one: the last of them is called, and when it goes, the one before. */
  readonly #functions = new Map<string, Given[]>();
  readonly #asked = new Map<number, Asked>();
  readonly #listeners = new Map<string, { client: PipesClient }>();
  #busFollowed = false;
  #nextAsk = 1;
  #due: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(db: Db, pause: () => Promise<void>, onError: (error: unknown) => void) {
    this.#db = db;
    this.#pause = pause;
    this.#onError = onError;
  }

  /** That of a store, when its engine's build has pipelines. */
  static of(db: WasmDatabase, pause: () => Promise<void>, onError: (error: unknown) => void): Pipes | undefined {
    return 'createPipeline' in db ? new Pipes(db as Db, pause, onError) : undefined;
  }

  /** Has all pipelines look whether there is something to do. */
  wake(): void {
    if (this.#closed) return;
    const names = this.#db.pipelines();
    const hasBus = this.#db.busIsConfigured();
    if (names.length === 0 && !hasBus) return;
    this.#followAll();
    if (hasBus) this.#wakeBus();
    for (const name of names) {
      // One that was dropped meanwhile is no failure.
      this.#step(name, () => this.#db.runPipeline(name).catch((error: unknown) => {
        if (toEddyError(error).kind !== 'not_found') throw error;
        return false;
      }));
    }
  }

  /** Has one look whether there is something to do, and goes on with it until there is nothing. */
  #step(name: string, work: () => Promise<boolean>): void {
    const underWay = this.#steps.get(name);
    if (underWay) {
      underWay.again = true;
      return;
    }
    const step = { again: true, ended: Promise.resolve() };
    this.#steps.set(name, step);
    step.ended = (async () => {
      try {
        while (step.again && !this.#closed) {
          await this.#pause();
          if (this.#closed) return;
          step.again = false;
          if (await work()) step.again = true;
        }
      } catch (error) {
        this.#onError(error);
      } finally {
        this.#steps.delete(name);
        this.#wakeWhenDue();
      }
    })();
  }

  /** Has the bus look whether there is something to do. */
  #wakeBus(): void {
    this.#step(BUS, () => this.#db.runBus());
    if (!this.#busFollowed) {
      this.#busFollowed = true;
      void this.#followBus();
    }
  }

  /** Calls that end, and what is published, give it something to do. */
  async #followBus(): Promise<void> {
    for (let moves = 0; !this.#closed; ) {
      moves = await this.#db.busMovedAfter(moves);
      if (!this.#closed && this.#db.busIsConfigured()) this.#wakeBus();
    }
  }

  #wakeWhenDue(): void {
    clearTimeout(this.#due);
    if (this.#closed) return;
    const dues = [this.#db.pipelinesDueMs(), this.#db.busDueMs()].filter((dueMs) => dueMs !== undefined);
    const dueMs = dues.length > 0 ? Math.min(...dues) : undefined;
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
        this.#give(name, [...(this.#functions.get(name) ?? []).filter((one) => one.client !== client), { client, timeoutMs, bigint }]);
        this.wake();
        return undefined;
      }
      case 'removeFunction':
        this.#give(name, (this.#functions.get(name) ?? []).filter((one) => one.client !== client));
        return undefined;
      case 'functionAnswer': {
        const asked = this.#asked.get(Number(name));
        if (decode(body!) === null) asked?.reject(new EddyError('unavailable', 'the function is not there any more'));
        else asked?.resolve(body!);
        return undefined;
      }
      case 'busConfigure':
        await db.configureBus(decode(body!) as string);
        this.wake();
        return undefined;
      case 'busStatus':
        return encode(db.busStatus());
      case 'busPublish':
        return encode([...(await db.publishToBus(name, decode(body!) as string))]);
      case 'busReplay':
        return encode(await db.replayOnBus(decode(body!) as string));
      case 'busCancel':
        return encode(db.cancelReplay(Number(name)));
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
          const { unread: all } = statusOf<PipelineStatus>(await this.#db.pipelineStatus(pipeline));
          const unread = all.find((one) => one.sink === sink);
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
    const client = this.#functions.get(name)?.at(-1)?.client;
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

  /** Has the last of them be the function of that name. */
  #give(name: string, given: Given[]): void {
    const before = this.#functions.get(name)?.at(-1);
    const last = given.at(-1);
    if (last) this.#functions.set(name, given);
    else this.#functions.delete(name);
    if (this.#closed || last === before) return;
    if (last) this.#db.setFunction(name, (rows) => this.#call(name, rows, last.timeoutMs + ANSWER_MS), last.bigint);
    else this.#db.removeFunction(name);
  }

  /** A client is gone, and its functions with it. */
  forget(client: PipesClient): void {
    for (const [name, given] of [...this.#functions]) this.#give(name, given.filter((one) => one.client !== client));
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
