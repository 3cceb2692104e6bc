import type { Client } from './client.js';
import { decode, encode, type FieldNames, reviveRow } from './codec.js';
import type { ConsistencyOptions, FilterOptions, HybridRequest, SearchRequest } from './collection.js';
import { EddyError, fromErrorMessage } from './error.js';
import type { AnySchema, Key, OutputField, OutputRow, Schema } from './schema.js';

/** What is asked of the engine. @internal */
export type LiveKind = 'search' | 'query' | 'hybrid';

/** What is kept an answer to: the nearest rows, or without `vector` those that a filter selects; or what several searches come to together. */
export type LiveRequest<S extends Schema = AnySchema, F extends readonly string[] | undefined = undefined> =
  | Omit<SearchRequest<S, F>, 'at' | 'offset' | 'groupBy' | 'groupSize' | 'strictGroupSize' | 'rankers' | 'exact' | 'ef' | 'nprobe' | 'reorderK' | 'searchList'>
  | (FilterOptions & {
      /** How many rows, by ascending key; all when left out. */
      limit?: number;
      /** As of a query. */
      outputFields?: F & (readonly OutputField<S>[] | undefined);
    })
  | {
      /** As of `hybridSearch`: the best rows of several searches, of vectors and of text, ranked together. Needs `streams: true`. */
      hybrid: Omit<HybridRequest<S, F>, 'at' | 'offset' | 'rankers' | keyof ConsistencyOptions>;
    };

/** A row of an answer. */
export interface LiveHit<K, R> {
  key: K;
  /** Of the nearest rows; 0 otherwise. */
  score: number;
  row: R;
  /** As `$version` tells it. */
  version: string;
}

/**
 * What happened to a row of an answer. Rows that were not written keep their order, and are not told when others come between them; with
 * `hybrid` a row that was not written has `moved` or `changed` too when its score has.
 */
export type Difference<K, R> =
  | { /** It is in the answer now. */ op: 'entered'; /** Its place in the new answer. */ index: number; hit: LiveHit<K, R> }
  | { /** It is no more. */ op: 'left'; /** Its place in the old answer. */ index: number; key: K }
  | { /** It was written, and has another place. */ op: 'moved'; /** In the new answer. */ index: number; /** In the old one. */ from: number; hit: LiveHit<K, R> }
  | { /** It was written, and has its place. */ op: 'changed'; /** In the new answer. */ index: number; hit: LiveHit<K, R> };

/** What happened to an answer since the update before. */
export interface LiveUpdate<K, R> {
  differences: Difference<K, R>[];
  /** The answer now. */
  answer: readonly LiveHit<K, R>[];
  /** The position in the local log that it is at. */
  lsn: number;
}

type Told = LiveHit<unknown, Record<string, unknown>> & { op?: 'entered' | 'left' | 'moved' | 'changed'; index: number };

/**
 * A query whose answer is kept current. Listen to it, or iterate over it: whoever asks late gets all that happened meanwhile as one update. In
 * a browser it goes on when another tab takes over the database, with one update.
 */
export class LiveQuery<K, R> implements AsyncIterable<LiveUpdate<K, R>> {
  readonly #client: Client;
  readonly #key = `live:${crypto.randomUUID()}`;
  readonly #bigint: boolean;
  readonly #listeners = new Set<(update: LiveUpdate<K, R>) => void>();
  readonly #wakes = new Set<() => void>();
  readonly #forget: (() => void)[];
  #answer: readonly LiveHit<K, R>[] = [];
  #lsn = 0;
  #failed: EddyError | undefined;
  #stopped = false;

  private constructor(client: Client, bigint: boolean) {
    this.#client = client;
    this.#bigint = bigint;
    this.#forget = [
      client.onEvent((event) => {
        if (event.event !== 'live' || event.key !== this.#key) return;
        if (event.body) this.#receive(event.body);
        else if (event.error) this.#fail(fromErrorMessage(event.error));
      }),
      client.onEnd((error) => this.#fail(error)),
    ];
    client.hold(true);
  }

  /** @internal */
  static async open<K, R>(client: Client, collection: string, bigint: boolean, request: object, kind: LiveKind): Promise<LiveQuery<K, R>> {
    const live = new LiveQuery<K, R>(client, bigint);
    try {
      await client.request('liveStart', live.#key, encode({ collection, request: encode({ ...request, bigint }), kind, bigint }));
    } catch (error) {
      await live.stop();
      throw error;
    }
    return live;
  }

  /** The answer now, best first. */
  get answer(): readonly LiveHit<K, R>[] {
    return this.#answer;
  }

  /** The position in the local log that it is at. */
  get lsn(): number {
    return this.#lsn;
  }

  /** Why it ended, when it was not stopped. */
  get error(): EddyError | undefined {
    return this.#failed;
  }

  /**
   * Calls `listener` after each change of the answer.
   *
   * @returns A function that ends it.
   */
  onUpdate(listener: (update: LiveUpdate<K, R>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Updates from now on. Leaving the loop does not stop the query. */
  async *[Symbol.asyncIterator](): AsyncGenerator<LiveUpdate<K, R>, void, void> {
    for (let before = this.#answer; ; ) {
      while (before === this.#answer) {
        if (this.#stopped) return;
        if (this.#failed) throw this.#failed;
        await new Promise<void>((resolve) => this.#wakes.add(resolve));
      }
      const answer = this.#answer;
      const differences = compare(before, answer);
      before = answer;
      if (differences.length > 0) yield { differences, answer, lsn: this.#lsn };
    }
  }

  #receive(body: Uint8Array): void {
    const { lsn, answer: whole, differences, ...names } = decode(body, this.#bigint) as { lsn: number; answer: Told[]; differences: Told[] } & FieldNames;
    const revive = ({ key, score, row, version }: Told): LiveHit<K, R> => ({ key: this.#toKey(key), score, row: reviveRow(row, names) as R, version });
    const before = this.#answer;
    let answer = whole.map(revive);
    if (differences.length > 0) {
      const gone = new Set(differences.filter(({ op }) => op === 'left' || op === 'moved').map(({ key }) => this.#toKey(key)));
      answer = before.filter(({ key }) => !gone.has(key));
      for (const told of differences) {
        if (told.op !== 'left') answer.splice(Number(told.index), told.op === 'changed' ? 1 : 0, revive(told));
      }
    }
    this.#lsn = Number(lsn);
    this.#answer = answer;
    for (const wake of this.#wakes) wake();
    this.#wakes.clear();
    if (this.#listeners.size === 0) return;
    const changes = compare(before, answer);
    if (changes.length > 0) for (const listener of [...this.#listeners]) listener({ differences: changes, answer, lsn: this.#lsn });
  }

  #toKey(key: unknown): K {
    return (this.#bigint && typeof key === 'number' ? BigInt(key) : key) as K;
  }

  #fail(error: EddyError): void {
    this.#failed ??= error;
    void this.#end();
  }

  /** Stops keeping the answer current. Safe to call again. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#end();
  }

  /** The same as {@link LiveQuery.stop}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #end(): Promise<void> {
    for (const wake of this.#wakes) wake();
    this.#wakes.clear();
    const forget = this.#forget.splice(0);
    if (forget.length === 0) return;
    for (const end of forget) end();
    this.#client.hold(false);
    // With the database it has ended too.
    await this.#client.request('liveStop', this.#key).catch(() => {});
  }
}

/** The live query of a collection. */
export type LiveOf<S extends Schema, B extends boolean, F extends readonly string[] | undefined> = LiveQuery<Key<S, B>, OutputRow<S, B, F>>;

function compare<K, R>(before: readonly LiveHit<K, R>[], after: readonly LiveHit<K, R>[]): Difference<K, R>[] {
  const old = new Map(before.map((hit, index) => [hit.key, { hit, index }]));
  const now = new Map(after.map((hit) => [hit.key, hit]));
  const rests = (hits: readonly LiveHit<K, R>[]) => hits.filter(({ key }) => old.get(key)?.hit.version === now.get(key)?.version);
  // Those that stay and were not written are in their old order: what is written moves among them.
  const places = (hits: readonly LiveHit<K, R>[]) => {
    const rest = new Set(rests(hits));
    let count = 0;
    return hits.map((hit) => (count += rest.has(hit) ? 1 : 0));
  };
  const [placesBefore, placesAfter] = [places(before), places(after)];
  const written = after.filter(({ key, version }) => old.has(key) && old.get(key)!.hit.version !== version).length;
  const differences: Difference<K, R>[] = [];
  before.forEach(({ key }, index) => {
    if (!now.has(key)) differences.push({ op: 'left', index, key });
  });
  after.forEach((hit, index) => {
    const was = old.get(hit.key);
    if (!was) differences.push({ op: 'entered', index, hit });
    else if (was.hit.version === hit.version) return;
    else if (placesBefore[was.index] !== placesAfter[index] || (written > 1 && was.index !== index)) {
      differences.push({ op: 'moved', index, from: was.index, hit });
    } else differences.push({ op: 'changed', index, hit });
  });
  return differences;
}
