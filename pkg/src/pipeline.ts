import type { Client } from './client.js';
import { decode, encode, reviveRow, type FieldNames } from './codec.js';
import { EddyError, toEddyError } from './error.js';
import type { Plan, PlanSource } from './plan.js';

/** How many rows for the application are kept until it acknowledges them, when a pipeline does not say. */
const KEEP_ROWS = 100_000;
/** A function has so long for a row, when it does not say. */
const FUNCTION_MS = 30_000;

/** How a pipeline runs. */
export interface PipelineOptions {
  /**
   * What a crash may do to rows for sinks: `'exactlyOnce'` (default), each has its effect once; `'atLeastOnce'`, some may come twice;
   * `'atMostOnce'`, some may be lost.
   */
  guarantee?: 'exactlyOnce' | 'atLeastOnce' | 'atMostOnce';
  /** How long rows for sinks may wait for a checkpoint, which they come with. Default 1,000. */
  checkpointIntervalMs?: number;
  /** How many checkpoints are kept, 1 to 100. Default 3. */
  checkpoints?: number;
  /** How many rows a source gives at once. Default 1,000. */
  batchRows?: number;
  /** How many rows wait for a checkpoint, at most. Default 10,000. */
  stagedRows?: number;
  /** How many transactions of a source it may be behind before the past that it needs is let go of. Default 1,000,000. */
  behindMax?: number;
  /** What happens then: it fails (default), or begins anew. */
  gone?: 'fail' | 'reseed';
  /** The collection that takes rows that were not taken, and why. Without one the first such row ends the pipeline. */
  deadLetters?: string;
  /** As of when joins see a collection: at the event's time as far as that is kept (default), strictly so, or now. */
  lookup?: 'eventOrNow' | 'event' | 'now';
  /**
   * How many rows of each sink without a collection are kept until they are acknowledged; with more the pipeline waits. Default 100,000; 0
   * keeps none.
   */
  keepRows?: number;
  /** How many keys or rows an operator may keep. Default 4,194,304. */
  entriesMax?: number;
  /** Whether rows beyond that are refused, and become dead letters, instead of ending the pipeline. Default false. */
  refuseOverflow?: boolean;
}

/** What a pipeline is made of: SQL, or a plan. */
export type PipelineSpec = (
  | {
      /** A `CREATE MATERIALIZED VIEW … AS`, `INSERT INTO …` or `SELECT …`, and before it the streams and views that it reads. */
      sql: string;
      /** What `{name}` stands for in it. */
      params?: { [name: string]: unknown };
    }
  | {
      /** Operators as data, or built: see {@link source}. */
      plan: Plan;
    }
) & {
  /** By source: the name of the plan's node, or of the table in SQL. */
  sources?: { [name: string]: PlanSource };
  /** How it runs. */
  options?: PipelineOptions;
};

/** How a pipeline is doing. Counts are since the database was opened. */
export interface PipelineStatus {
  name: string;
  state: 'active' | 'paused' | 'failed' | 'closed';
  /** Why it failed, or what it is trying again: the kind of the error, and its message. */
  reason: [kind: string, message: string] | null;
  /** What was damaged, and how it went on. */
  reports: string[];
  sources: { node: string; collection: string; rows: number; lsn: number; behind: number; seeding: boolean }[];
  nodes: {
    name: string;
    rowsIn: number;
    rowsOut: number;
    batches: number;
    late: number;
    entries: number;
    stateBytes: number;
    /** How far time has come, in microseconds since 1970. */
    watermark: number | null;
    watermarkLagMs: number | null;
  }[];
  /** Its sinks that keep rows for the application. */
  unread: { sink: string; acknowledged: number; rows: number; isFull: boolean }[];
  rowsOut: number;
  dead: number;
  lookupsBeyond: number;
  checkpoints: number;
  checkpointNumber: number;
  checkpointBytes: number;
  checkpointTookMs: number;
  checkpointMs: number;
  /** What it is made of. */
  spec: { sql?: string; plan: Plan; sources?: { [name: string]: PlanSource }; options: Required<Omit<PipelineOptions, 'deadLetters' | 'keepRows'>> & { deadLetters: string | null; keepRows?: number } };
}

/** A row of a sink without a collection. */
export interface PipelineRow<R = Record<string, unknown>> {
  /** Counts the rows of the sink, from 0: what is acknowledged. */
  position: number;
  row: R;
  /** Whether it is taken back: it was told before, and holds no longer. */
  takenBack: boolean;
}

/** What a query in SQL came to. */
export interface SqlResult<R = Record<string, unknown>> {
  columns: { name: string; type: string }[];
  rows: R[];
  /** Of `EXPLAIN`: the plan. */
  plan: string | null;
}

/** A function for `call` in plans: the rows that come of a row, one row, or none. What it throws becomes a dead letter. */
export type RowFunction = (row: Record<string, unknown>) => unknown;

/** The same for all rows of a call at once. @internal */
export type RowsFunction = (rows: Record<string, unknown>[]) => unknown;

/** What is sent of a specification. @internal */
export function specText(spec: PipelineSpec): string {
  if (typeof spec !== 'object' || spec === null) throw new EddyError('invalid_argument', 'a pipeline is made of { sql } or { plan }');
  const { options, sources, ...rest } = spec;
  const plan = 'plan' in rest ? rest.plan : undefined;
  // What the builder made knows its sources.
  const built = (plan as { sources?: { [name: string]: PlanSource } } | undefined)?.sources;
  const whole = { ...rest, ...(plan && { plan: { nodes: plan.nodes } }), sources: { ...built, ...sources }, options: { keepRows: KEEP_ROWS, ...options } };
  return jsonText('the pipeline', whole);
}

/** How something is doing, and what it is made of. @internal */
export function statusOf<S extends { spec: unknown }>(text: string): S {
  const { status, spec } = JSON.parse(text) as { status: Omit<S, 'spec'>; spec: S['spec'] };
  return { ...status, spec } as S;
}

/** What JSON can say of it. @internal */
export function jsonText(what: string, whole: unknown): string {
  const toJson = (_: string, value: unknown): unknown => {
    if (typeof value === 'bigint') {
      if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)) {
        throw new EddyError('invalid_argument', `${what}: ${value} is no number that JSON can say; write it into the text`);
      }
      return Number(value);
    }
    return value instanceof Float32Array ? [...value] : value;
  };
  return JSON.stringify(whole, toJson);
}

/** A pipeline: a plan that is part of the database, and goes on by itself wherever the engine runs. */
export class Pipeline {
  /** Its name. */
  readonly name: string;
  readonly #client: Client;
  readonly #bigint: boolean;

  /** @internal */
  constructor(client: Client, name: string, bigint: boolean) {
    this.#client = client;
    this.name = name;
    this.#bigint = bigint;
  }

  async #ask(op: 'pipelineStatus' | 'pipelineExplain' | 'dropPipeline' | 'pausePipeline' | 'recoverPipeline' | 'savepoint' | 'savepoints' | 'removeSavepoint', body?: unknown): Promise<unknown> {
    const answer = await this.#client.request(op, this.name, body === undefined ? undefined : encode(body));
    return answer && decode(answer);
  }

  /** How it is doing, and what it is made of. */
  async status(): Promise<PipelineStatus> {
    return statusOf<PipelineStatus>((await this.#ask('pipelineStatus')) as string);
  }

  /** Its graph as text, and what each operator has done. */
  async explain(): Promise<string> {
    return (await this.#ask('pipelineExplain')) as string;
  }

  /** Makes a checkpoint, and stops until it is resumed, also after a restart. */
  async pause(): Promise<void> {
    await this.#ask('pausePipeline');
  }

  /** Goes on from its last checkpoint: one that was paused, or that failed for what has been mended. */
  async resume(): Promise<void> {
    await this.#ask('recoverPipeline', {});
  }

  /**
   * Goes on from elsewhere: from a savepoint, or with `'nothing'` from the beginning, after the collections that it has made are emptied.
   *
   * @throws {@link EddyError} `not_found` for a savepoint that is not there, `gone` when sources do not keep what came since.
   */
  async recover(from: { savepoint: string } | 'nothing'): Promise<void> {
    await this.#ask('recoverPipeline', from === 'nothing' ? { anew: true } : { savepoint: from.savepoint });
  }

  /** Stores where it is under a name, for going back there. */
  async savepoint(label: string): Promise<void> {
    await this.#ask('savepoint', label);
  }

  /** The names of its savepoints. */
  async savepoints(): Promise<string[]> {
    return (await this.#ask('savepoints')) as string[];
  }

  /** Removes a savepoint; false when it is not there. */
  async removeSavepoint(label: string): Promise<boolean> {
    return (await this.#ask('removeSavepoint', label)) as boolean;
  }

  /** Ends it for good, and removes its checkpoints and savepoints. The collections of its sinks stay. */
  async drop(): Promise<void> {
    await this.#ask('dropPipeline');
  }

  /**
   * The rows of a sink without a collection, from the first that was not acknowledged: iterate over them, and acknowledge what is done. What
   * was not comes again, to whoever asks, after a crash too. Several may read; an acknowledgement counts for all.
   *
   * @param sink Its name; may be left out when there is one such sink.
   */
  rows<R = Record<string, unknown>>(sink?: string, { batchSize = 1_000 }: { batchSize?: number } = {}): PipelineRows<R> {
    return new PipelineRows<R>(this.#client, this.name, sink, batchSize, this.#bigint);
  }
}

/** The rows of a sink, in order. Iterate over it, once; leaving the loop ends it. In a browser it goes on when another tab takes over. */
export class PipelineRows<R = Record<string, unknown>> implements AsyncIterableIterator<PipelineRow<R>, void, void> {
  readonly #client: Client;
  readonly #pipeline: string;
  readonly #key = `rows:${crypto.randomUUID()}`;
  readonly #batchSize: number;
  readonly #bigint: boolean;
  #sink: string | undefined;
  #next = 0;
  #ready: PipelineRow<R>[] = [];
  #begun = false;
  #ended = false;
  #moved = false;
  #failed: EddyError | undefined;
  #wake: () => void = () => {};
  #forget: (() => void)[] = [];
  #turn: Promise<unknown> = Promise.resolve();

  /** @internal */
  constructor(client: Client, pipeline: string, sink: string | undefined, batchSize: number, bigint: boolean) {
    if (!Number.isInteger(batchSize) || batchSize < 1) {
      throw new EddyError('invalid_argument', `batchSize: an integer of at least 1 expected, got ${String(batchSize)}`);
    }
    this.#client = client;
    this.#pipeline = pipeline;
    this.#sink = sink;
    this.#batchSize = batchSize;
    this.#bigint = bigint;
  }

  /** The next row, once there is one. */
  next(): Promise<IteratorResult<PipelineRow<R>, void>> {
    const turn = this.#turn.then(() => this.#take());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #take(): Promise<IteratorResult<PipelineRow<R>, void>> {
    try {
      for (;;) {
        if (this.#ended) return { done: true, value: undefined };
        if (this.#failed) throw this.#failed;
        const value = this.#ready.shift();
        if (value) {
          this.#next = value.position + 1;
          return { done: false, value };
        }
        const sink = await this.#begin();
        this.#moved = false;
        const bytes = await this.#client.request('unreadRows', this.#pipeline, encode({ sink, from: this.#next, count: this.#batchSize, bigint: this.#bigint }));
        const { rows, ...names } = decode(bytes!, this.#bigint) as { rows: PipelineRow<Record<string, unknown>>[] } & FieldNames;
        for (const { position, row, takenBack } of rows) this.#ready.push({ position: Number(position), row: reviveRow(row, names) as R, takenBack });
        if (rows.length === 0 && !this.#moved) {
          this.#client.hold(true);
          await new Promise<void>((resolve) => (this.#wake = resolve));
          this.#client.hold(false);
        }
      }
    } catch (error) {
      await this.return();
      throw error;
    }
  }

  async #begin(): Promise<string> {
    const sink = (this.#sink ??= await this.#only());
    if (this.#begun) return sink;
    this.#begun = true;
    const wake = () => {
      this.#moved = true;
      this.#wake();
    };
    this.#forget = [
      this.#client.onEvent((event) => {
        if (event.event === 'rows' && event.key === this.#key) wake();
      }),
      this.#client.onEnd((error) => {
        this.#failed = error;
        wake();
      }),
    ];
    await this.#client.request('rowsStart', this.#key, encode({ pipeline: this.#pipeline, sink }));
    return sink;
  }

  async #only(): Promise<string> {
    const status = await new Pipeline(this.#client, this.#pipeline, this.#bigint).status();
    const sinks = status.spec.plan.nodes.filter(({ operator }) => typeof operator === 'object' && operator['sink'] !== undefined && !operator['sink']['collection']).map(({ name }) => name);
    if (sinks.length === 1) return sinks[0]!;
    throw new EddyError('invalid_argument', `pipeline ${JSON.stringify(this.#pipeline)} has ${sinks.length} sinks without a collection: ${sinks.join(', ') || 'none'}; name one`);
  }

  /** Notes, durably, that all rows up to one are done, by default up to the last that was given: they do not come again. */
  async acknowledge(position: number = this.#next - 1): Promise<void> {
    if (position < 0) return;
    const sink = (this.#sink ??= await this.#only());
    await this.#client.request('acknowledgeRows', this.#pipeline, encode({ sink, position }));
  }

  /** Ends it. Safe to call again. */
  async return(): Promise<IteratorReturnResult<void>> {
    if (!this.#ended) {
      this.#ended = true;
      for (const forget of this.#forget) forget();
      this.#wake();
      // With the database it has ended too.
      if (this.#begun) await this.#client.request('rowsStop', this.#key).catch(() => {});
    }
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The same as {@link PipelineRows.return}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}

/** The functions that an application gives to pipelines, which call them over the line to the engine. @internal */
export class Functions {
  readonly #client: Client;
  readonly #bigint: boolean;
  readonly #functions = new Map<string, { call: RowFunction | RowsFunction; timeoutMs: number; whole: boolean }>();
  #listening = false;

  constructor(client: Client, bigint: boolean) {
    this.#client = client;
    this.#bigint = bigint;
  }

  /** With `whole`, it gets all rows of a call, and what it throws is said of each. */
  async set(name: string, call: RowFunction | RowsFunction, { timeoutMs = FUNCTION_MS, whole = false }: { timeoutMs?: number; whole?: boolean } = {}): Promise<void> {
    if (typeof call !== 'function') throw new EddyError('invalid_argument', `function ${JSON.stringify(name)}: a function expected, got ${typeof call}`);
    if (!(timeoutMs > 0 && timeoutMs < 2 ** 31)) throw new EddyError('invalid_argument', `timeoutMs: a number above 0 expected, got ${String(timeoutMs)}`);
    // Calls are expected for as long as there is a function.
    if (this.#functions.size === 0) this.#client.hold(true);
    this.#functions.set(name, { call, timeoutMs, whole });
    if (!this.#listening) {
      this.#listening = true;
      this.#client.onEvent((event) => {
        if (event.event === 'call') void this.#answer(event.ask, event.function, event.body);
      });
    }
    await this.#client.request('setFunction', name, encode({ timeoutMs, bigint: this.#bigint }));
  }

  async remove(name: string): Promise<void> {
    if (this.#functions.delete(name) && this.#functions.size === 0) this.#client.hold(false);
    await this.#client.request('removeFunction', name);
  }

  async #answer(id: number, name: string, body: Uint8Array): Promise<void> {
    const { rows, ...names } = decode(body, this.#bigint) as { rows: Record<string, unknown>[] } & FieldNames;
    const found = this.#functions.get(name);
    const revived = rows.map((row) => reviveRow(row, names));
    const one = (row: Record<string, unknown>) => callWithin(() => (found!.call as RowFunction)(row), found!.timeoutMs);
    const all = async () => {
      const answer = await callWithin(() => (found!.call as RowsFunction)(revived), found!.timeoutMs);
      return revived.map(() => answer);
    };
    const answers = found && (await (found.whole ? all() : Promise.all(revived.map(one))));
    // When the database was closed meanwhile, nobody waits for it.
    await this.#client.request('functionAnswer', String(id), encodeAnswers(answers)).catch(() => {});
  }
}

type RowAnswer = { rows: unknown[] } | { error: string };

/** What a function says of a row, or that it said nothing in time. */
async function callWithin(call: () => unknown, timeoutMs: number): Promise<RowAnswer> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
    });
    const given = await Promise.race([call(), late]);
    const rows = Array.isArray(given) ? given : given === undefined || given === null ? [] : [given];
    const wrong = rows.find((one) => typeof one !== 'object' || one === null || Array.isArray(one));
    if (wrong !== undefined) return { error: `rows are objects, got ${wrong === null ? 'null' : typeof wrong}` };
    return { rows };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  } finally {
    clearTimeout(timer);
  }
}

function encodeAnswers(answers: RowAnswer[] | undefined): ReturnType<typeof encode> {
  if (!answers) return encode(null);
  try {
    return encode(answers);
  } catch {
    // One of them cannot be said: each for itself.
    const one = (answer: RowAnswer): RowAnswer => {
      try {
        encode(answer);
        return answer;
      } catch (error) {
        return { error: toEddyError(error).message };
      }
    };
    return encode(answers.map(one));
  }
}
