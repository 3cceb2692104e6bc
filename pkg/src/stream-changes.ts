import type { Client } from './client.js';
import { decode, encode, reviveRow, type FieldNames } from './codec.js';
import { EddyError } from './error.js';
import type { AnySchema, Key, OutputField, OutputRow, Schema } from './schema.js';

/** What happened: a row came, was replaced, went, or, with `since: 'full'`, was there when the stream began. */
export type ChangeOperation = 'insert' | 'update' | 'delete' | 'read';

/** Which changes are followed, and what of them is told. */
export interface ChangesOptions<S extends Schema = AnySchema, F extends readonly string[] | undefined = undefined> {
  /**
   * Where it begins: with what is written from now on (default); `'earliest'`, with the first change from which on none is missing; `'full'`,
   * with all rows that are there, then what is written from then on; after a `token`; at a time, as a `Date` or the `timestamp` of a write.
   */
  since?: 'now' | 'earliest' | 'full' | (string & {}) | bigint | Date;
  /** Of which kinds; of all when left out. */
  operations?: readonly ChangeOperation[];
  /** Only changes where this is true of the row before or of the row after. */
  filter?: string;
  /** What `{name}` stands for in it. */
  filterParams?: { [name: string]: unknown };
  /** Only keys that match, as by `like`: `%` stands for any text. For text keys. */
  keyPattern?: string;
  /** Whether the row before is told. Default false. */
  before?: boolean;
  /** Whether the row after is told. Default true. */
  after?: boolean;
  /** Which fields of them, as of a query. */
  outputFields?: F & (readonly OutputField<S>[] | undefined);
  /** How many changes come at once; a transaction that has more comes whole. Default 1,000. */
  batchSize?: number;
  /** After so many milliseconds without a change a batch without one comes, with a newer token. Never, when left out. */
  batchTimeoutMs?: number;
  /** How many transactions it may fall behind before it ends with `gone`; nobody who writes ever waits for it. Default 65,536. */
  bufferSize?: number;
  /** The name by which the database keeps how far it has got, and the history after that. See {@link ChangeStream.acknowledge}. */
  subscription?: string;
  /**
   * How many times as fast as they happened changes are told: the first at once, each one after it when its time has come. More than 0, at
   * most 1,000,000; as fast as they can be read, when left out. Rows of `since: 'full'` come at once. A stream that is slower than what is
   * written falls behind, and ends with `gone` when it is `bufferSize` transactions behind.
   */
  speed?: number;
}

/** What happened to a row, once. */
export interface Change<K, R> {
  op: ChangeOperation;
  key: K;
  /** The row before, when it was asked for; of updates and deletes. */
  before?: R;
  /** The row after, when it was asked for; of all but deletes. */
  after?: R;
  /** The hybrid time of its write. */
  timestamp: bigint;
  /** The replica that wrote it. */
  origin: number;
  /** As `$version` tells it. */
  version: string;
  /** Its position in the local log; all changes of a transaction have the same. */
  lsn: number;
  /** Whether it is the last of its transaction, of those that are told. */
  last: boolean;
}

/** Changes in the order of the log, whole transactions only. */
export interface ChangeBatch<K, R> {
  changes: Change<K, R>[];
  /** Where to go on after them; `null` while the rows of `since: 'full'` are being read: whoever is interrupted then begins anew. */
  token: string | null;
  /** A field was added since the batch before: the rows have it. */
  grown: boolean;
}

const SPEED_MAX = 1_000_000;

/** What was read before it is due. */
interface Held<K, R> {
  changes: Change<K, R>[];
  /** After all of them. */
  token: string | null;
  grown: boolean;
}

interface Decoded extends FieldNames {
  changes: { op: ChangeOperation; key: unknown; before?: Record<string, unknown>; after?: Record<string, unknown>; version: string; lsn: number }[];
  token: string | null;
  grown: boolean;
  caughtUp: boolean;
}

/**
 * What happens to a collection: every change once, in the order of the log. Iterate over it, once; leaving the loop ends it. In a browser it
 * goes on when another tab takes over the database.
 */
export class ChangeStream<K, R> implements AsyncIterableIterator<ChangeBatch<K, R>, void, void> {
  readonly #client: Client;
  readonly #collection: string;
  readonly #key = `changes:${crypto.randomUUID()}`;
  readonly #request: Record<string, unknown>;
  readonly #timeoutMs: number | undefined;
  readonly #bigint: boolean;
  readonly #forget: (() => void)[];
  #wake: () => void = () => {};
  #moved = false;
  #failed: EddyError | undefined;
  /** After what was told, and after what was read. */
  #token: string | null = null;
  #read: string | null = null;
  readonly #speed: number | undefined;
  /** When the first change was written, and when it was told. */
  #from: { writtenMs: number; toldMs: number } | undefined;
  #held: Held<K, R> | undefined;
  #begun = false;
  #ended = false;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(client: Client, collection: string, bigint: boolean, options: ChangesOptions<Schema, readonly string[] | undefined>) {
    const { since = 'now', batchTimeoutMs, speed, ...rest } = options;
    if (batchTimeoutMs !== undefined && !(batchTimeoutMs >= 0)) {
      throw new EddyError('invalid_argument', `batchTimeoutMs: a number of at least 0 expected, got ${String(batchTimeoutMs)}`);
    }
    if (speed !== undefined && !(speed > 0 && speed <= SPEED_MAX)) {
      throw new EddyError('invalid_argument', `speed: more than 0 and at most ${SPEED_MAX} expected, got ${String(speed)}`);
    }
    this.#client = client;
    this.#collection = collection;
    this.#bigint = bigint;
    this.#timeoutMs = batchTimeoutMs;
    this.#speed = speed;
    this.#request = { operations: [], before: false, after: true, batchSize: 1000, bufferSize: 65_536, ...rest, since: toSince(since), bigint };
    const wake = () => {
      this.#moved = true;
      this.#wake();
    };
    this.#forget = [
      client.onEvent((event) => {
        if ((event.event === 'change' || event.event === 'ended') && event.collection === collection) wake();
      }),
      client.onEnd((error) => {
        this.#failed = error;
        wake();
      }),
    ];
  }

  /** @internal */
  static async open<K, R>(client: Client, collection: string, bigint: boolean, options: ChangesOptions<Schema, readonly string[] | undefined>): Promise<ChangeStream<K, R>> {
    const stream = new ChangeStream<K, R>(client, collection, bigint, options);
    try {
      await client.retain('watch', collection);
      await stream.#ask(true);
    } catch (error) {
      await stream.return();
      throw error;
    }
    return stream;
  }

  /** Where it goes on: it moves also when nothing comes. */
  get token(): string | null {
    return this.#token;
  }

  /** The next changes, once there are some. */
  next(): Promise<IteratorResult<ChangeBatch<K, R>, void>> {
    const turn = this.#turn.then(() => this.#next());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #next(): Promise<IteratorResult<ChangeBatch<K, R>, void>> {
    try {
      for (const until = this.#timeoutMs === undefined ? Infinity : performance.now() + this.#timeoutMs; ; ) {
        if (this.#ended) return { done: true, value: undefined };
        if (this.#failed) throw this.#failed;
        this.#moved = false;
        if (!this.#held) {
          const { caughtUp, ...batch } = await this.#ask(false);
          if (this.#speed === undefined || batch.changes.length === 0) {
            const left = until - performance.now();
            this.#token = batch.token;
            if (batch.changes.length > 0 || batch.grown || left <= 0) return { done: false, value: batch };
            if (caughtUp && !this.#moved) await this.#pause(left);
            continue;
          }
          this.#held = batch;
        }
        const now = performance.now();
        const { batch, dueMs } = this.#due(this.#held, now);
        if (batch.changes.length > 0 || batch.grown || now >= until) return { done: false, value: batch };
        await this.#pause(Math.min(dueMs, until) - now);
      }
    } catch (error) {
      await this.return();
      throw await this.#understood(error);
    }
  }

  /** What is due of what is held, and when the rest is. */
  #due(held: Held<K, R>, nowMs: number): { batch: ChangeBatch<K, R>; dueMs: number } {
    const { changes, grown } = held;
    let count = 0;
    let dueMs = Infinity;
    while (count < changes.length) {
      const { op, timestamp, lsn } = changes[count]!;
      if (op !== 'read') {
        const writtenMs = Number(timestamp >> 18n);
        this.#from ??= { writtenMs, toldMs: nowMs };
        dueMs = this.#from.toldMs + Math.max(0, writtenMs - this.#from.writtenMs) / this.#speed!;
        if (dueMs > nowMs) break;
      }
      // All changes of a transaction come together.
      do count += 1;
      while (changes[count]?.lsn === lsn);
    }
    const told = changes.splice(0, count);
    held.grown = false;
    const last = told.at(-1);
    if (changes.length === 0) {
      this.#held = undefined;
      this.#token = held.token;
    } else if (held.token !== null) this.#token = tokenAt(held.token, last?.lsn ?? changes[0]!.lsn - 1);
    return { batch: { changes: told, token: this.#token, grown }, dueMs };
  }

  /** The end of a collection is another one than that of the database: nothing will come after its token, whoever opens what. */
  async #understood(error: unknown): Promise<unknown> {
    if (!(error instanceof EddyError) || error.kind !== 'closed' || this.#failed) return error;
    const isOpen = await this.#client.request('collections').then(() => true, () => false);
    return isOpen ? new EddyError('gone', `collection "${this.#collection}" was dropped`) : error;
  }

  /** Waits for a change, so many milliseconds at most. */
  async #pause(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      // A timer of more than 31 bits would go off at once; whoever is woken early looks again.
    if (ms !== Infinity) timer = setTimeout(resolve, Math.min(ms, 2 ** 31 - 1));
    });
    clearTimeout(timer);
    this.#wake = () => {};
  }

  /** What there is, of the engine that has the stream, or goes on with it. */
  async #ask(open: boolean): Promise<ChangeBatch<K, R> & { caughtUp: boolean }> {
    const since = this.#read ?? this.#request['since'];
    const request = encode({ ...this.#request, since });
    const body = encode({ key: this.#key, request, open, again: this.#begun && this.#read === null });
    const bytes = await this.#client.request('changes', this.#collection, body);
    if (open || !bytes) return { changes: [], token: this.#read, grown: false, caughtUp: false };
    const { changes, token, grown, caughtUp, ...names } = decode(bytes, this.#bigint) as Decoded;
    this.#begun = true;
    this.#read = token;
    return { changes: changes.map((change, at) => this.#change(change, changes[at + 1]?.lsn, names)), token, grown, caughtUp };
  }

  #change({ op, key, before, after, version, lsn }: Decoded['changes'][number], next: number | undefined, names: FieldNames): Change<K, R> {
    const [time = '', origin = ''] = version.split('-');
    const change: Change<K, R> = {
      op,
      key: (this.#bigint && typeof key === 'number' ? BigInt(key) : key) as K,
      timestamp: BigInt(`0x${time}`),
      origin: Number.parseInt(origin, 16),
      version,
      lsn: Number(lsn),
      last: next === undefined || next !== lsn,
    };
    if (before) change.before = reviveRow(before, names) as R;
    if (after) change.after = reviveRow(after, names) as R;
    return change;
  }

  /**
   * Notes durably that everything up to a batch's token was done: the subscription goes on after it, whenever that is. A crash may take the
   * newest acknowledgement back, and then some changes come again.
   */
  async acknowledge(token: string): Promise<void> {
    const { subscription } = this.#request;
    if (subscription === undefined) throw new EddyError('invalid_argument', 'the stream has no subscription that could be acknowledged');
    await this.#client.request('acknowledge', this.#collection, encode({ key: this.#key, subscription, token }));
  }

  /** Ends it. Safe to call again. */
  async return(): Promise<IteratorReturnResult<void>> {
    if (!this.#ended) {
      this.#ended = true;
      for (const forget of this.#forget) forget();
      this.#wake();
      // With the database it has ended too.
      await this.#client.request('changesEnd', this.#key).catch(() => {});
      await this.#client.release('watch', this.#collection).catch(() => {});
    }
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The same as {@link ChangeStream.return}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  /** Its batches as a `ReadableStream`, instead of iterating: a batch is asked for when one is read. */
  readable(): ReadableStream<ChangeBatch<K, R>> {
    return new ReadableStream<ChangeBatch<K, R>>(
      {
        pull: async (controller) => {
          const { done, value } = await this.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: async () => {
          await this.return();
        },
      },
      { highWaterMark: 0 },
    );
  }
}

/** The change stream of a collection. */
export type ChangesOf<S extends Schema, B extends boolean, F extends readonly string[] | undefined> = ChangeStream<Key<S, B>, OutputRow<S, B, F>>;

/** The place after the transaction of that position: a token's fourth number is the position that it is after. */
function tokenAt(token: string, lsn: number): string {
  const parts = token.split('-');
  parts[3] = lsn.toString(16);
  return parts.join('-');
}

function toSince(since: unknown): string {
  if (typeof since === 'string') return since;
  if (typeof since === 'bigint' && since >= 0n) return since.toString();
  if (since instanceof Date && !Number.isNaN(since.getTime())) return (BigInt(since.getTime()) << 18n).toString();
  throw new EddyError('invalid_argument', `since: 'now', 'earliest', 'full', a token, a timestamp or a Date expected, got ${String(since)}`);
}
