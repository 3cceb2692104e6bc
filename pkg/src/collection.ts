import type { Client } from './client.js';
import { appendColumns, type Bytes, decode, decodeRows, decodeSearch, describe, encode, encodeRows, fromSchemaMessage, toQuery, toText } from './codec.js';
import { type CollectionOptions, type CollectionStats, required } from './database.js';
import { EddyError } from './error.js';
import type { AnySchema, Field, FieldIndex, IndexTarget, InputRow, Key, KeyInput, OrderBy, OutputField, OutputRow, QueryInput, Row, ScalarName, Schema, TextField, VectorField, WithField } from './schema.js';
import { type LiveOf, LiveQuery, type LiveRequest } from './stream-live.js';
import { ChangeStream, type ChangesOf, type ChangesOptions } from './stream-changes.js';

/** A change that lost against one of another replica, where the writer of neither had seen the other's. */
export interface Conflict<K = unknown, R = unknown> {
  key: K;
  /** The row as it was written, vectors included; null when it was deleted. */
  row: R | null;
  /** When that was and by whom, as `$version` tells it. */
  version: string;
  /** The version of what is there instead. */
  winner: string;
  /** When the two met here, in milliseconds since 1970. */
  at: number;
}

/** What was written. */
export interface WriteResponse<K = unknown> {
  /** With `autoId`: the primary keys of the rows, in their order. */
  keys?: K[];
  /** Rows inserted, replaced or deleted. */
  count: number;
  /** The hybrid time of the write: milliseconds since 1970 above 18 bits of counter. */
  timestamp: bigint;
  /** The version of all rows that it wrote, for `ifVersion`. */
  version: string;
  /** For reads, here or at another replica, that must see this write and what its replica wrote before: see `sessionToken`. */
  sessionToken: string;
  /** Its position in the local log. */
  lsn: number;
}

/** How a write is done. */
export interface WriteOptions {
  /** When this write is acknowledged; as the database was opened when left out. */
  durability?: 'synced' | 'buffered';
  /**
   * The partition that rows are written into, and the only one in which rows are deleted. When left out, rows are written into the one that
   * they name as `$partition`, else into `_default`, and deleted in all. A row is in one partition: written into another one it moves.
   */
  partition?: string;
}

/** What must be so at the moment of a write, or it fails with `conflict` and nothing is written. Other replicas are not asked. */
export interface Conditions {
  /** None of its keys is there. */
  ifAbsent?: boolean;
  /**
   * The version of each row that is there: of a write's response, or read as the output field `$version`. One for all rows, or one for
   * each in their order, `null` for a row that must not be there.
   */
  ifVersion?: string | readonly (string | null)[];
}

/** The values of template parameters: of `{name}` in a filter. They are values and never read as an expression, so they need no escaping. */
export type FilterParams = { readonly [name: string]: FilterParam | readonly FilterParam[] };

/** A value of a template parameter. */
export type FilterParam = boolean | number | bigint | string;

/** Which rows. */
export interface FilterOptions {
  /** Rows for which this expression is true, such as `done == false and year > {year}`. All when left out. */
  filter?: string;
  /** What `{name}` stands for in it. */
  filterParams?: FilterParams;
}

/** Rows to delete. */
export type DeleteTarget<S extends Schema> = { keys: readonly KeyInput<S>[] } | { filter: string; filterParams?: FilterParams };

/** One of the operations of a batch. */
export type Operation<S extends Schema> = Conditions &
  ({ insert: readonly InputRow<S>[] } | { upsert: readonly InputRow<S>[] } | { delete: DeleteTarget<S> });

/** How much of what was written at other replicas a read must see; what this database has acknowledged every read sees. */
export interface ConsistencyOptions {
  /**
   * `'strong'`: all that the hubs had when the read began, with which the collection is synced; they are asked. `'bounded'`, or `{ bounded: ms }`:
   * all that they had so long before, 5,000 ms when nothing is said. `'session'`: the writes of `sessionToken`, or the last one of this
   * `Collection`. `'eventually'`, the default: what is here.
   */
  consistency?: 'strong' | 'bounded' | 'session' | 'eventually' | { bounded: number };
  /** What writes have told, here or elsewhere: the read waits until they are here. */
  sessionToken?: string | readonly string[];
  /** How long it waits before it fails with `unavailable`. Default 10,000. */
  timeoutMs?: number;
}

/** What is read: what is there now, or was at a time inside the retention window. */
export interface TimeOptions extends ConsistencyOptions {
  /** The `timestamp` of a write, or a time: what was there then. `gone` when that is no longer kept; see `retention`. */
  at?: bigint | Date;
}

/** Where rows are looked for. */
export interface PartitionOptions {
  /** Only in these partitions; in all when none is named. */
  partitions?: readonly string[];
}

/** Which fields to return. */
export interface OutputOptions<S extends Schema, F extends readonly string[] | undefined> extends TimeOptions, PartitionOptions {
  /**
   * Every field but the vectors when left out; `['*']` for all; a vector when named; `'$version'` for the version of each row,
   * `'$partition'` for the name of its partition.
   */
  outputFields?: F & (readonly OutputField<S>[] | undefined);
}

/** A scan of rows. */
export interface QueryRequest<S extends Schema, F extends readonly string[] | undefined> extends OutputOptions<S, F>, FilterOptions {
  /** At most this many. */
  limit?: number;
  /** After leaving out this many. */
  offset?: number;
  /**
   * The fields by whose values rows are ordered, `'price'` or `'price desc'`; nulls come last. Rows that are alike come by ascending primary
   * key, as all do without.
   */
  orderBy?: readonly OrderBy<S>[];
  /**
   * A row for all rows with the same values of these fields, with them and the functions that `outputFields` names, such as `'count(*)'` and
   * `'avg(price)'`. With such functions and no field here, one row for all. They come by the values of these fields, unless `orderBy` says
   * otherwise, which may name functions too.
   */
  groupBy?: readonly ScalarName<S>[];
}

/** What searches of all forms have in common. */
export interface SearchOptions<S extends Schema, F extends readonly string[] | undefined> extends OutputOptions<S, F>, FilterOptions {
  /** The vector field; needed when there are several. */
  field?: VectorField<S>;
  /** How many hits, 1 to 16,384; with `groupBy`, how many groups. Default 10. */
  limit?: number;
  /** After leaving out this many. */
  offset?: number;
  /** Only hits with a better score than this one, the far bound: larger by IP and COSINE, smaller otherwise. */
  radius?: number;
  /** Only hits with no better score than this one, the near bound. */
  rangeFilter?: number;
  /**
   * Hits come in groups of rows with the same value of this field. Groups come in the order of their best hits, and the hits of a group one
   * after the other.
   */
  groupBy?: ScalarName<S>;
  /** The most hits of a group. Default 1. */
  groupSize?: number;
  /** Look on until every group is full, or nothing is left. Otherwise groups have what was found when there were enough of them. */
  strictGroupSize?: boolean;
  /** HNSW's candidate list; larger finds more and takes longer. Default `max(limit + offset, 64)`. */
  ef?: number;
  /** Of inverted lists: how many are looked into. Default an eighth of them, and at least 8. */
  nprobe?: number;
  /** Of inverted lists of codes: how many rows are compared by their vectors. Default twice the hits for `IVF_SQ8`, ten times for the others. */
  reorderK?: number;
  /** Of `DISKANN`: how many candidates are kept, when `ef` does not say. */
  searchList?: number;
  /** Scan every row instead of using the index. */
  exact?: boolean;
  /** With an index of sparse vectors: the share of the query's numbers, the smallest, that is left out. Default 0. */
  dropRatioSearch?: number;
  /**
   * What changes scores before the best are taken, of ten times as many rows as are wanted and of 100 at least. Scores are numbers from 0 to
   * 1 then, the larger the closer. Not with several queries, nor groups.
   */
  rankers?: readonly Ranker<S>[];
}

/** What changes the scores of hits. */
export type Ranker<S extends Schema = AnySchema> = DecayRanker<S> | BoostRanker;

/** Scores are multiplied by a number from 0 to 1 that falls with the distance of a value from an origin. */
export interface DecayRanker<S extends Schema = AnySchema> {
  /** By which curve: a bell, steep at first, or straight down to 0. */
  function: 'gauss' | 'exp' | 'linear';
  /** A numeric or timestamp field, or a key of the dynamic field; rows without a number there get 0. */
  field: ScalarName<S>;
  /** Where the number is 1. A `Date` for timestamps, which are microseconds since 1970. */
  origin: number | Date;
  /** So far behind `offset` the number is `decay`. */
  scale: number;
  /** Up to this distance the number stays 1. Default 0. */
  offset?: number;
  /** Between 0 and 1. Default 0.5. */
  decay?: number;
}

/** Scores of rows for which a filter is true are multiplied by `boost`, at least 0. */
export interface BoostRanker {
  boost: number;
  filter: string;
  filterParams?: FilterParams;
}

/** How the hits of several searches become one ranking. */
export type Rerank =
  | {
      /** Reciprocal rank fusion: the row at place `r` of a search, from 1, gets `1 / (k + r)` from it. Default `k` 60. */
      type: 'rrf';
      k?: number;
    }
  | {
      /** A row gets its score times the weight of the search from it. */
      type: 'weighted';
      /** Of each search, in their order. */
      weights: readonly number[];
      /** Whether scores are made numbers from 0 to 1 first, the larger the closer, so that metrics can be added up. Default true. */
      normalize?: boolean;
    };

/** Several searches, whose hits are ranked together. */
export interface HybridRequest<S extends Schema, F extends readonly string[] | undefined> extends TimeOptions {
  /** Each with its own field, filter and limit: as many hits as it gives are ranked. */
  searches: readonly Omit<SearchRequest<S, undefined>, 'outputFields' | 'at' | 'rankers' | keyof ConsistencyOptions>[];
  /** Default `{ type: 'rrf', k: 60 }`. */
  rerank?: Rerank;
  /** What changes the scores then. */
  rankers?: readonly Ranker<S>[];
  /** How many hits. Default 10. */
  limit?: number;
  /** After leaving out this many. */
  offset?: number;
  /** As of a search. */
  outputFields?: F & (readonly OutputField<S>[] | undefined);
}

/** A step of a read, and the steps that it stands on. */
export interface Plan {
  /** What is done. */
  step: string;
  /** With what. */
  detail: string;
  /** How many rows it gives, estimated. */
  rows: number;
  /** What it costs, estimated, with the steps below: comparisons of a vector, or of the values of a row. */
  cost: number;
  /** What it came to, in a profile. */
  actual?: { rows: number; ms: number };
  /** What it stands on. */
  steps: Plan[];
}

/** Whether a read is only planned, or done and measured. */
export interface ExplainOptions {
  /** Do it, and tell counts and times. */
  profile?: boolean;
}

/** A search for the nearest rows. */
export interface SearchRequest<S extends Schema, F extends readonly string[] | undefined> extends SearchOptions<S, F> {
  /** The query, as the field has its vectors: as many finite numbers, bytes of bits, or a sparse vector. */
  vector: QueryInput<S>;
}

/** A search for rows that have the words of a text, scored by BM25. */
export interface TextSearchRequest<S extends Schema, F extends readonly string[] | undefined>
  extends Omit<SearchOptions<S, F>, 'field' | 'ef' | 'exact' | 'dropRatioSearch'> {
  /** The words. Those that few rows have count more, and those that a row has often, the more so the shorter its text is. */
  text: string;
  /** The field that has them, with an analyzer; needed when there are several. */
  field?: TextField<S>;
  /** How soon more occurrences of a word add no more (`k1`, 0 to 1,000, default 1.2), and how much the length of a text counts (`b`, 0 to 1, default 0.75). */
  bm25?: { k1?: number; b?: number };
  /** What of the texts is shown beside the hits. */
  highlight?: Highlight<S>;
}

/** What of the texts that were found is shown. */
export interface Highlight<S extends Schema> {
  /** Of these fields, which have an analyzer; by default of the one that is searched. */
  fields?: readonly TextField<S>[];
  /** What stands before a word that matches. Default `'<em>'`. Nothing in the text is escaped. */
  preTag?: string;
  /** And behind it. Default `'</em>'`. */
  postTag?: string;
  /** About how many bytes a fragment has. Default 100. */
  fragmentSize?: number;
  /** The most fragments of a field: those with most different words of the query, in their order. Default 3; with 0 the whole text. */
  numFragments?: number;
}

/** Several searches in one: of these vectors, or of the vectors of the rows with these keys. */
export type SearchBatchRequest<S extends Schema, F extends readonly string[] | undefined> = SearchOptions<S, F> &
  (
    | { /** The queries. */ vectors: readonly QueryInput<S>[] }
    | { /** Rows like which others are looked for. A row is not in the answer to its own vector. */ ids: readonly KeyInput<S>[] }
  );

/** How an iterator goes on. */
export interface IteratorOptions {
  /** How many rows or hits come at once, at most. Default 1000. */
  batchSize?: number;
}

/** A search from the nearest row on. */
export type SearchIteratorRequest<S extends Schema, F extends readonly string[] | undefined> = IteratorOptions &
  Omit<SearchRequest<S, F>, 'offset' | 'groupBy' | 'groupSize' | 'strictGroupSize'>;

/** A scan of rows, a few at a time. */
export type QueryIteratorRequest<S extends Schema, F extends readonly string[] | undefined> = IteratorOptions &
  Omit<QueryRequest<S, F>, 'orderBy' | 'groupBy'>;

/** One hit of a search. */
export interface Hit<K, R> {
  /** The row's primary key. */
  key: K;
  /** By the metric: for L2 the squared distance (smaller is closer), for IP and COSINE the product (larger is closer). */
  score: number;
  /** The output fields. */
  row: R;
  /** With `highlight`: the parts of each field that match. */
  highlights?: { [field: string]: string[] };
}

/** How hits were found. */
export interface SearchCounts {
  /** Rows scored one by one. */
  rowsScanned: number;
  /** Segments answered by their index. */
  segmentsByIndex: number;
  /** Segments answered by a scan. */
  segmentsByScan: number;
  /**
   * Where only a part of the server's rows is kept here (see {@link SyncShape}): whether it is proved that the server, asked the same, would find
   * no nearer row among those that fit the part's partitions and filter, and that you may read. It can be `true` with `exact: true`, for
   * one vector, by L2 or COSINE.
   */
  covered?: boolean;
  /** Milliseconds in the engine, without the way there and back. */
  ms: number;
}

/** The hits of a search, best first, and how they were found. */
export interface SearchResponse<K, R> extends SearchCounts {
  /** Best first. */
  hits: Hit<K, R>[];
}

/** The hits of several searches, and how they were found. */
export interface SearchBatchResponse<K, R> extends SearchCounts {
  /** For each query, in their order: its hits, best first. */
  results: Hit<K, R>[][];
}

/** On what searches are evaluated. */
export interface EvaluateRequest<S extends Schema = AnySchema> {
  /** The vector field; needed when there are several. */
  field?: VectorField<S>;
  /** Neighbours looked for, 1 to 1,000. Default 10. */
  k?: number;
  /** How many of the collection's own vectors are looked for, 1 to 10,000. Default 100; of fewer rows, all. */
  sample?: number;
  /** Which ones: the same seed takes the same of the same rows. Default 0. */
  seed?: number;
  /** The `ef` to try. By default some from 10 to 512, until nothing is missed. */
  ef?: readonly number[];
}

/** How much searches found, and how long they took. */
export interface EvaluationPoint {
  /** Candidates that the graph kept; 0 for exact search. */
  ef: number;
  /** The share of the true neighbours that was found. */
  recall: number;
  /** Milliseconds, on average. */
  meanMs: number;
  /** Half of the searches took less. */
  p50Ms: number;
  /** All but one in a hundred. */
  p99Ms: number;
}

/** Recall and latency by `ef`. */
export interface Evaluation {
  /** The vector field. */
  field: string;
  /** Neighbours looked for. */
  k: number;
  /** How many vectors were looked for. */
  sample: number;
  /** Exact search, with which the others are compared. */
  exact: EvaluationPoint;
  /** By ascending `ef`. */
  curve: EvaluationPoint[];
}

/** Which recall is to be reached, and on what it is tried. */
export interface TuneRequest<S extends Schema = AnySchema> extends Omit<EvaluateRequest<S>, 'ef'> {
  /** Above 0, at most 1. Default 0.95. */
  recall?: number;
  /** Whether it becomes what searches keep that do not say `ef`. */
  store?: boolean;
}

/** What reaches a recall fastest. */
export interface Tuning {
  /** The least `ef` that was enough; `null` where none was, or exact search takes no longer. */
  ef: number | null;
  /** What was chosen, and what it reaches. */
  chosen: EvaluationPoint;
  /** Whether it is kept as the collection's default. */
  stored: boolean;
  /** All that was tried. */
  tried: Evaluation;
}

/** Something was written to a collection: here, in another tab, or by sync. */
export interface ChangeEvent {
  /** The collection's name. */
  collection: string;
  /** The newest position in its local log. */
  lsn: number;
}

/** A collection of an open database. */
export class Collection<S extends Schema = AnySchema, B extends boolean = false> {
  /** Its name. */
  readonly name: string;
  readonly #client: Client;
  readonly #bigint: boolean;
  /** What reads ask: the collection, or a snapshot of it. */
  readonly #target: string;
  #lastWrite: string | undefined;

  /** @internal */
  constructor(client: Client, name: string, bigint: boolean, target = name) {
    this.#client = client;
    this.name = name;
    this.#bigint = bigint;
    this.#target = target;
  }

  /** Its schema, as it is stored. */
  async schema(): Promise<Schema> {
    return fromSchemaMessage(decode(required(await this.#client.request('describe', this.name))));
  }

  /**
   * Adds a field, durably: one that is nullable or has a default, which the rows that are there then have; a vector is nullable.
   *
   * @returns The same collection with rows of the new type.
   */
  async addField<const N extends string, const F extends Field>(name: N, field: F): Promise<Collection<WithField<S, N, F>, B>> {
    await this.#client.request('addField', this.name, encode({ name, ...field }));
    return this as unknown as Collection<WithField<S, N, F>, B>;
  }

  /**
   * Gives a field, or a place in JSON such as `meta["size"]`, an index, durably; a vector has it instead of the one that it had. It is built in the background: until it is there, rows
   * are looked at one by one, and the answers are the same. `metric` changes by what a vector is compared; it stays when left out.
   */
  async createIndex(field: IndexTarget<S>, index: FieldIndex): Promise<void> {
    const { metric, ...parts } = index;
    await this.#client.request('createIndex', this.name, encode({ field, index: encode({ metric, index: parts }) }));
  }

  /** Takes the index of a field away, durably: a vector is scanned from then on. `not_found` when it has none. */
  async dropIndex(field: IndexTarget<S>): Promise<void> {
    await this.#client.request('dropIndex', this.name, encode(field));
  }

  /**
   * Has rows expire so many seconds after they were written, those that are there too, or never with `null`; durably. Expired rows are
   * not seen from that moment on, and their space is reclaimed in the background.
   */
  async setTtl(seconds: number | null): Promise<void> {
    await this.#client.request('setTtl', this.name, encode(seconds));
  }

  /** How it keeps its rows: what was said when it was created, or since. */
  async options(): Promise<CollectionOptions> {
    return decode(required(await this.#client.request('options', this.name))) as CollectionOptions;
  }

  /**
   * Has it keep its rows so from now on, durably; what is left out is as usual again. Segments in storage stay as they are until they are
   * merged.
   */
  async setOptions(options: CollectionOptions): Promise<void> {
    await this.#client.request('setOptions', this.name, encode(options));
  }

  /** The names of its partitions, `_default` first: rows for which no other is named are there. How many rows each has is in {@link stats}. */
  async partitions(): Promise<string[]> {
    return decode(required(await this.#client.request('partitions', this.name))) as string[];
  }

  /**
   * Creates a partition, durably: letters, digits and underscores, at most 255, not starting with a digit. `already_exists` when it is
   * there. Other replicas get to know it with its first row.
   */
  async createPartition(partition: string): Promise<void> {
    await this.#client.request('createPartition', this.name, encode(partition));
  }

  /** Removes a partition with its rows, durably. `not_found` when it is not there. */
  async dropPartition(partition: string): Promise<void> {
    await this.#client.request('dropPartition', this.name, encode(partition));
  }

  /** Adds rows, all or none; `already_exists` when a primary key is there. */
  async insert(rows: readonly InputRow<S>[], options: WriteOptions = {}): Promise<WriteResponse<Key<S, B>>> {
    return this.batch([{ insert: rows }], options);
  }

  /** Adds or replaces rows, all or none. */
  async upsert(rows: readonly InputRow<S>[], options: WriteOptions & Conditions = {}): Promise<WriteResponse<Key<S, B>>> {
    const { durability, partition, ...conditions } = options;
    return this.batch([{ upsert: rows, ...conditions }], { durability, partition });
  }

  /** Deletes rows by key or by filter; keys that are not there count for nothing. */
  async delete(target: DeleteTarget<S>, options: WriteOptions & Pick<Conditions, 'ifVersion'> = {}): Promise<WriteResponse> {
    const { durability, partition, ...conditions } = options;
    return this.batch([{ delete: target, ...conditions }], { durability, partition });
  }

  /**
   * Does all operations, in order, or none of them, whatever fails or dies; readers see them together. A filter looks at the collection as
   * it was before the first of them. There is no batch over several collections.
   */
  async batch(operations: readonly Operation<S>[], options: { [K in keyof WriteOptions]: WriteOptions[K] | undefined } = {}): Promise<WriteResponse<Key<S, B>>> {
    if (!Array.isArray(operations)) {
      throw new EddyError('invalid_argument', `an array of operations expected, got ${describe(operations)}`);
    }
    const vectors: Float32Array[] = [];
    const message = encode({ ...options, operations: operations.map((operation) => toOperation(operation, vectors)) });
    const body = appendColumns(message, vectors, (bytes) => this.#client.allocate(bytes));
    const response = decode(required(await this.#client.request('write', this.name, body)), true) as {
      count: number;
      timestamp: bigint | number;
      version: string;
      sessionToken: string;
      lsn: number;
      keys?: (string | number | bigint)[];
    };
    const { count, timestamp, version, sessionToken, lsn } = response;
    const written: WriteResponse<Key<S, B>> = { count, timestamp: BigInt(timestamp), version, sessionToken, lsn };
    if (count > 0) this.#lastWrite = sessionToken;
    const bigint = (key: string | number | bigint) => (this.#bigint && typeof key === 'number' ? BigInt(key) : key);
    if (response.keys) written.keys = response.keys.map(bigint) as Key<S, B>[];
    return written;
  }

  /** The rows with these keys, in this order; keys that are not there are left out. */
  async get<const F extends readonly string[] | undefined = undefined>(
    keys: readonly KeyInput<S>[],
    options: OutputOptions<S, F> = {},
  ): Promise<OutputRow<S, B, F>[]> {
    const [when, rest] = split(options);
    const body = encode({ ...rest, keys, bigint: this.#bigint });
    return decodeRows(await this.#read('get', body, when), this.#bigint) as OutputRow<S, B, F>[];
  }

  /** The rows that a filter selects, by ascending primary key. */
  async query<const F extends readonly string[] | undefined = undefined>(request: QueryRequest<S, F> = {}): Promise<OutputRow<S, B, F>[]> {
    const [when, rest] = split(request);
    const body = encode({ ...rest, bigint: this.#bigint });
    return decodeRows(await this.#read('query', body, when), this.#bigint) as OutputRow<S, B, F>[];
  }

  /** How many rows a filter selects; all of them without one. */
  async count(options: FilterOptions & TimeOptions & PartitionOptions = {}): Promise<number> {
    const [when, rest] = split(options);
    return decode(await this.#read('count', encode(rest), when)) as number;
  }

  /** The nearest rows, or those that have the words of a text, best first; of several `vectors`, or of rows like those with these `ids`, a list for each. */
  search<const F extends readonly string[] | undefined = undefined>(
    request: SearchRequest<S, F> | TextSearchRequest<S, F>,
  ): Promise<SearchResponse<Key<S, B>, OutputRow<S, B, F>>>;
  search<const F extends readonly string[] | undefined = undefined>(
    request: SearchBatchRequest<S, F>,
  ): Promise<SearchBatchResponse<Key<S, B>, OutputRow<S, B, F>>>;
  async search(request: SearchRequest<S, undefined> | TextSearchRequest<S, undefined> | SearchBatchRequest<S, undefined>): Promise<unknown> {
    const [when, rest] = split(request);
    const body = encode({ ...toQueries(rest), bigint: this.#bigint });
    const { hits, results, ...counts } = decodeSearch(await this.#read('search', body, when), this.#bigint);
    return 'vectors' in request || 'ids' in request ? { results: results ?? [], ...counts } : { hits, ...counts };
  }

  /** The hits of several searches, of several vector fields or by several filters, ranked together. */
  async hybridSearch<const F extends readonly string[] | undefined = undefined>(
    request: HybridRequest<S, F>,
  ): Promise<SearchResponse<Key<S, B>, OutputRow<S, B, F>>> {
    const [when, rest] = split(request);
    const body = encode({ ...toHybrid(rest), bigint: this.#bigint });
    const response = decodeSearch(await this.#read('search', body, when), this.#bigint);
    return response as unknown as SearchResponse<Key<S, B>, OutputRow<S, B, F>>;
  }

  /** How a search is done: which segments are read by their index, scanned or left out, and what that costs. */
  explainSearch(request: SearchRequest<S, undefined> | TextSearchRequest<S, undefined> | SearchBatchRequest<S, undefined>, options: ExplainOptions = {}): Promise<Plan> {
    const [when, rest] = split(request);
    return this.#explain(toQueries(rest), false, when, options);
  }

  /** The same of several searches: of each, and of how their hits become one ranking. */
  explainHybrid(request: HybridRequest<S, undefined>, options: ExplainOptions = {}): Promise<Plan> {
    const [when, rest] = split(request);
    return this.#explain(toHybrid(rest), false, when, options);
  }

  /** The same of a query. */
  explainQuery(request: QueryRequest<S, undefined>, options: ExplainOptions = {}): Promise<Plan> {
    const [when, rest] = split(request);
    return this.#explain(rest, true, when, options);
  }

  async #explain(request: object, query: boolean, when: TimeOptions, { profile = false }: ExplainOptions): Promise<Plan> {
    const body = encode({ request: encode(request), query, profile });
    return decode(await this.#read('explain', body, when)) as Plan;
  }

  /**
   * All rows from the nearest on, in lists of at most `batchSize` hits, of the collection as it is when the first is asked for: none comes
   * twice, and none is missed. They come in order as far as the index finds them in order; with `exact` always. `limit` is how many there
   * are together; all, or all inside of `radius`, when left out.
   */
  async *searchIterator<const F extends readonly string[] | undefined = undefined>(
    request: SearchIteratorRequest<S, F>,
  ): AsyncGenerator<Hit<Key<S, B>, OutputRow<S, B, F>>[], void, void> {
    const [when, { batchSize = 1000, limit = 0, ...rest }] = split(request);
    const body = encode({ ...toQueries(rest), limit, bigint: this.#bigint });
    for await (const bytes of this.#iterate('searchIterator', body, when, batchSize)) {
      const { hits } = decodeSearch(bytes, this.#bigint);
      if (hits.length === 0) return;
      yield hits as unknown as Hit<Key<S, B>, OutputRow<S, B, F>>[];
    }
  }

  /**
   * The rows of a query by ascending primary key, in lists of at most `batchSize`, of the collection as it is when the first is asked for.
   * What would be too much at once can be gone through so.
   */
  async *queryIterator<const F extends readonly string[] | undefined = undefined>(
    request: QueryIteratorRequest<S, F> = {},
  ): AsyncGenerator<OutputRow<S, B, F>[], void, void> {
    const [when, { batchSize = 1000, ...rest }] = split(request);
    const body = encode({ ...rest, bigint: this.#bigint });
    for await (const bytes of this.#iterate('queryIterator', body, when, batchSize)) {
      const rows = decodeRows(bytes, this.#bigint);
      if (rows.length === 0) return;
      yield rows as OutputRow<S, B, F>[];
    }
  }

  async *#iterate(op: 'searchIterator' | 'queryIterator', body: Bytes, when: TimeOptions, batchSize: number): AsyncGenerator<Bytes, void, void> {
    if (!Number.isInteger(batchSize) || batchSize < 1) {
      throw new EddyError('invalid_argument', `batchSize: a whole number of at least 1 expected, got ${batchSize}`);
    }
    const iterator = decode(await this.#read(op, body, when)) as string;
    try {
      for (;;) yield required(await this.#client.request('iteratorNext', iterator, encode(batchSize)));
    } finally {
      // With the database it has ended too.
      await this.#client.request('iteratorEnd', iterator).catch(() => {});
    }
  }

  /**
   * The collection as it is now, or as it was at a time inside the retention window, whatever is written meanwhile. Release it: until then
   * rows that it sees are kept, also when they are replaced or deleted.
   */
  async snapshot(options: Pick<TimeOptions, 'at'> = {}): Promise<Snapshot<S, B>> {
    const target = await this.#hold(options.at);
    const release = async () => {
      await this.#client.request('releaseSnapshot', target);
    };
    return new Snapshot<S, B>(new Collection<S, B>(this.#client, this.name, this.#bigint, target), release);
  }

  async #hold(at: bigint | Date | undefined): Promise<string> {
    const body = encode(at === undefined ? {} : { at: toTimestamp(at) });
    return decode(required(await this.#client.request('snapshot', this.#target, body))) as string;
  }

  async #read(op: 'get' | 'query' | 'count' | 'search' | 'explain' | 'searchIterator' | 'queryIterator', body: Bytes, when: TimeOptions): Promise<Bytes> {
    const { at } = when;
    const wanted = toConsistency(when, this.#lastWrite);
    if (wanted) await this.#client.request('atLeast', this.#target, encode(wanted));
    if (at === undefined) return required(await this.#client.request(op, this.#target, body));
    const target = await this.#hold(at);
    try {
      return required(await this.#client.request(op, target, body));
    } finally {
      await this.#client.request('releaseSnapshot', target);
    }
  }

  /** Writes the growing segment and its index to storage, so that the next open reads instead of replaying. */
  async flush(): Promise<void> {
    await this.#client.request('flush', this.name);
  }

  /**
   * Writes it to storage and merges its segments until no row that was replaced or deleted takes space any more. Work in the background does
   * the same by itself where it is worth while; this does it where it is not. Other calls are answered meanwhile.
   */
  async compact(): Promise<void> {
    await this.#client.request('compact', this.name);
  }

  /**
   * Compares searches with exact ones, over a sample of the collection's own vectors: how much they find and how long they take, by `ef`.
   * It takes `sample` scans of all rows, and as many searches for each `ef`; other calls are answered meanwhile.
   */
  async evaluate(request: EvaluateRequest<S> = {}): Promise<Evaluation> {
    return decode(required(await this.#client.request('evaluate', this.name, encode(request)))) as Evaluation;
  }

  /**
   * Finds the least `ef` with which searches reach a recall, and tells all that it tried. With `store` it becomes what searches keep that
   * do not say `ef`.
   */
  async tune(request: TuneRequest<S> = {}): Promise<Tuning> {
    const { recall = 0.95, store = false, ...rest } = request;
    return decode(required(await this.#client.request('tune', this.name, encode({ ...rest, recall, store })))) as Tuning;
  }

  /**
   * Changes that lost against those of other replicas, where the writer of neither had seen the other's, the oldest first: of this replica's own, those
   * that were overtaken before the hub had them. They are kept for 30 days, and 16 MiB of them.
   */
  async conflicts(): Promise<Conflict<Key<S, B>, Row<S, B>>[]> {
    const bytes = required(await this.#client.request('conflicts', this.name, encode({ bigint: this.#bigint })));
    return decodeRows(bytes, this.#bigint).map(({ $key, $deleted, $version, $winner, $at, ...row }) => ({
      key: (this.#bigint && typeof $key === 'number' ? BigInt($key) : $key) as Key<S, B>,
      row: $deleted ? null : (row as Row<S, B>),
      version: $version as string,
      winner: $winner as string,
      at: Number($at),
    }));
  }

  /** What it holds. */
  async stats(): Promise<CollectionStats> {
    return decode(required(await this.#client.request('stats', this.name))) as CollectionStats;
  }

  /**
   * What happens to the collection: every insert, update and delete, once, in the order of the log. The stream has begun when it is here; it
   * comes as lists of changes, whole transactions only.
   *
   * @throws {@link EddyError} `gone` when changes after the place where it is to begin are not kept any more.
   */
  changes<const F extends readonly string[] | undefined = undefined>(options: ChangesOptions<S, F> = {}): Promise<ChangesOf<S, B, F>> {
    return ChangeStream.open(this.#client, this.name, this.#bigint, options as unknown as ChangesOptions<Schema, readonly string[] | undefined>);
  }

  /**
   * Keeps the answer to a query current: the nearest rows to a `vector`, or inside of a `radius`, or the rows that a `filter` selects by
   * ascending key. It has its answer when it is here. Each answer is what an exact search finds at that moment, at a cost far below searching
   * again; thousands of queries at once are fine.
   */
  async live<const F extends readonly string[] | undefined = undefined>(request: LiveRequest<S, F>): Promise<LiveOf<S, B, F>> {
    const { vector, hybrid, ...rest } = request as { vector?: unknown; hybrid?: HybridRequest<S, F> };
    if (hybrid !== undefined) {
      const beside = Object.keys(vector === undefined ? rest : request).filter((name) => name !== 'hybrid');
      if (beside.length > 0) throw new EddyError('invalid_argument', `beside hybrid there is nothing else, got ${beside.join(', ')}: its searches have what they need`);
      return LiveQuery.open(this.#client, this.name, this.#bigint, toHybrid(hybrid), 'hybrid');
    }
    const search = vector === undefined ? rest : toQueries({ ...rest, vector });
    return LiveQuery.open(this.#client, this.name, this.#bigint, search, vector === undefined ? 'query' : 'search');
  }

  /** The subscriptions of {@link Collection.changes}, and the position in the local log that each has acknowledged. */
  async subscriptions(): Promise<{ [name: string]: number }> {
    return decode(required(await this.#client.request('subscriptions', this.name))) as { [name: string]: number };
  }

  /** Ends a subscription: nothing is kept for it any more. False when there is none of that name. */
  async unsubscribe(subscription: string): Promise<boolean> {
    return decode(required(await this.#client.request('unsubscribe', this.name, encode(subscription)))) as boolean;
  }

  /**
   * Calls `listener` after something was written, here or elsewhere. Writes that follow each other closely may come as one event.
   *
   * @returns A function that ends it.
   */
  onChange(listener: (event: ChangeEvent) => void): () => void {
    const client = this.#client;
    const forget = client.onEvent((event) => {
      if (event.event === 'change' && event.collection === this.name) listener({ collection: event.collection, lsn: event.lsn });
    });
    let watching = true;
    // A watch that fails (the database was closed) ends the events, which is what there is to tell.
    client.retain('watch', this.name).catch(() => {});
    return () => {
      if (!watching) return;
      watching = false;
      forget();
      client.release('watch', this.name).catch(() => {});
    };
  }
}

/** A collection as it was at one moment. It ends with {@link Snapshot.release}, and with the database. */
export class Snapshot<S extends Schema = AnySchema, B extends boolean = false> {
  /** As of the collection, at that moment. */
  readonly get: Collection<S, B>['get'];
  /** As of the collection, at that moment. */
  readonly query: Collection<S, B>['query'];
  /** As of the collection, at that moment. */
  readonly count: Collection<S, B>['count'];
  /** As of the collection, at that moment. */
  readonly search: Collection<S, B>['search'];
  /** As of the collection, at that moment. */
  readonly hybridSearch: Collection<S, B>['hybridSearch'];
  /** As of the collection, at that moment. */
  readonly explainSearch: Collection<S, B>['explainSearch'];
  /** As of the collection, at that moment. */
  readonly explainHybrid: Collection<S, B>['explainHybrid'];
  /** As of the collection, at that moment. */
  readonly explainQuery: Collection<S, B>['explainQuery'];
  /** As of the collection, at that moment. */
  readonly searchIterator: Collection<S, B>['searchIterator'];
  /** As of the collection, at that moment. */
  readonly queryIterator: Collection<S, B>['queryIterator'];
  readonly #release: () => Promise<void>;
  #released: Promise<void> | undefined;

  /** @internal */
  constructor(then: Collection<S, B>, release: () => Promise<void>) {
    this.get = then.get.bind(then) as Collection<S, B>['get'];
    this.query = then.query.bind(then) as Collection<S, B>['query'];
    this.count = then.count.bind(then);
    this.search = then.search.bind(then) as Collection<S, B>['search'];
    this.hybridSearch = then.hybridSearch.bind(then) as Collection<S, B>['hybridSearch'];
    this.explainSearch = then.explainSearch.bind(then);
    this.explainHybrid = then.explainHybrid.bind(then);
    this.explainQuery = then.explainQuery.bind(then);
    this.searchIterator = then.searchIterator.bind(then) as Collection<S, B>['searchIterator'];
    this.queryIterator = then.queryIterator.bind(then) as Collection<S, B>['queryIterator'];
    this.#release = release;
  }

  /** Lets go of what it sees; later reads fail with `gone`. Safe to call again. */
  release(): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }

  /** The same as {@link Snapshot.release}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}

/** What a request must see, and the rest of it. */
function split<R extends TimeOptions>(request: R): [TimeOptions, Omit<R, keyof TimeOptions>] {
  const { at, consistency, sessionToken, timeoutMs, ...rest } = request;
  const when: { [K in keyof TimeOptions]?: TimeOptions[K] | undefined } = { at, consistency, sessionToken, timeoutMs };
  return [when as TimeOptions, rest];
}

/** What is waited for, where it may have to be. */
function toConsistency({ consistency, sessionToken, timeoutMs }: TimeOptions, lastWrite: string | undefined): object | undefined {
  if (consistency === undefined && sessionToken === undefined) return undefined;
  const named = typeof consistency === 'object' && consistency !== null ? 'bounded' : (consistency ?? 'session');
  const bounded = typeof consistency === 'object' && consistency !== null ? consistency.bounded : undefined;
  if (typeof named !== 'string') throw new EddyError('invalid_argument', `consistency: a level expected, got ${describe(consistency)}`);
  for (const [name, ms] of Object.entries({ 'consistency.bounded': bounded, timeoutMs })) {
    const isFine = ms === undefined ? name === 'timeoutMs' || consistency === named || consistency === undefined : Number.isSafeInteger(ms) && ms >= 0;
    if (!isFine) throw new EddyError('invalid_argument', `${name}: a whole number of milliseconds expected, got ${describe(ms)}`);
  }
  const given = sessionToken ?? (named === 'session' ? lastWrite : undefined) ?? [];
  const tokens = typeof given === 'string' ? [given] : given;
  if (!Array.isArray(tokens) || !tokens.every((token) => typeof token === 'string')) {
    throw new EddyError('invalid_argument', `sessionToken: what a write has told expected, or several, got ${describe(sessionToken)}`);
  }
  return { level: named, bounded, tokens, timeoutMs };
}

/** A time of the last change that counts: the end of its millisecond. */
function toTimestamp(at: unknown): bigint {
  const timestamp = at instanceof Date && !Number.isNaN(at.getTime()) ? ((BigInt(at.getTime()) + 1n) << 18n) - 1n : at;
  if (typeof timestamp === 'bigint' && timestamp >= 0n && timestamp < 2n ** 64n) return timestamp;
  throw new EddyError('invalid_argument', `at: a timestamp (bigint) or a Date expected, got ${describe(at)}`);
}

/** An operation as it is encoded; the vectors of its columns are added to `vectors`. */
function toOperation(operation: unknown, vectors: Float32Array[]): unknown {
  const { insert, upsert, ifVersion, ...rest } = operation as { insert?: unknown[]; upsert?: unknown[]; ifVersion?: string | string[] };
  const inserted = insert && encodeRows(insert, vectors);
  const upserted = upsert && encodeRows(upsert, vectors);
  return {
    ...rest,
    insert: inserted?.rows,
    upsert: upserted?.rows,
    columns: inserted?.columns ?? upserted?.columns,
    ifVersion: typeof ifVersion === 'string' ? [ifVersion] : ifVersion,
  };
}

/** A request whose rankers have numbers for dates. */
function toRankers<R extends object>(request: R): R {
  const { rankers } = request as { rankers?: unknown };
  if (!Array.isArray(rankers)) return request;
  const toRanker = (ranker: { origin?: unknown }) => (ranker?.origin instanceof Date ? { ...ranker, origin: ranker.origin.getTime() * 1000 } : ranker);
  return { ...request, rankers: rankers.map(toRanker) };
}

/** Several searches with their queries as they are encoded. */
function toHybrid(request: { searches: unknown }): object {
  const { searches, ...rest } = request;
  if (!Array.isArray(searches)) throw new EddyError('invalid_argument', `searches: a list expected, got ${describe(searches)}`);
  return { ...toRankers(rest), searches: searches.map(toQueries) };
}

/** A search with its queries as they are encoded. */
function toQueries(request: object): object {
  const { text, vector, vectors, ids, ...others } = request as { text?: unknown; vector?: unknown; vectors?: unknown; ids?: unknown };
  const rest = toRankers(others);
  if (text !== undefined && vector === undefined && vectors === undefined && ids === undefined) return { ...rest, vector: toText(text) };
  if (text !== undefined) throw new EddyError('invalid_argument', 'a search takes one of text, vector, vectors and ids');
  if (vectors === undefined && ids === undefined) return { ...rest, vector: toQuery(vector) };
  for (const [name, list] of Object.entries({ vectors, ids })) {
    if (list !== undefined && (!Array.isArray(list) || list.length === 0)) {
      throw new EddyError('invalid_argument', `${name}: a list of at least one expected, got ${describe(list)}`);
    }
  }
  return { ...rest, vector: vector === undefined ? undefined : toQuery(vector), vectors: (vectors as unknown[] | undefined)?.map(toQuery), ids };
}
