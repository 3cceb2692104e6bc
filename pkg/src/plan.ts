import { EddyError } from './error.js';

// Plans of pipelines: as data, and a builder that makes them. Spans of time are milliseconds here and microseconds in the data.

/** The type of a field on its way through a plan. */
export type StreamType = 'bool' | 'int64' | 'double' | 'timestamp' | 'varchar' | 'json';

/** A field of a source, or of what a function gives: its type, with `?` when it may be null; a vector by its dimension. */
export type StreamField = StreamType | `${StreamType}?` | { vector: number; nullable?: boolean };

/** The fields of a source. */
export interface StreamFields {
  readonly [name: string]: StreamField;
}

interface Values {
  bool: boolean;
  int64: number;
  double: number;
  /** Microseconds since 1970. */
  timestamp: number;
  varchar: string;
  json: unknown;
}

type ValueOf<F> = F extends { vector: number; nullable: true } ? Float32Array | null
  : F extends { vector: number } ? Float32Array
  : F extends `${infer T extends StreamType}?` ? Values[T] | null
  : F extends StreamType ? Values[F]
  : never;

/** What rows with these fields are in JavaScript. */
export type StreamRow<F extends StreamFields> = { -readonly [K in keyof F]: ValueOf<F[K]> };

/** Where the rows of a source come from. */
export interface PlanSource {
  /** The collection; the one that is called as the source, when left out. */
  collection?: string;
  /** Where it begins: `'full'` (default), all rows that are there, then what is written; `'now'`, `'earliest'` or a hybrid time. */
  since?: string;
  /** In SQL, the field with the event time of a collection whose rows are events. */
  time?: string;
  /** How much earlier than the latest row so far a row may come, in milliseconds, with `time`. */
  delayMs?: number;
  /** After how many milliseconds without a row it is waited for no longer, with `time`. */
  idleMs?: number;
  /** A `timestamp` field that no row has: it takes the time of the write. */
  commitTime?: string;
  /** How many times as fast as it was written the past comes, until its end is reached; not with `since: 'full'`. As fast as it can be read, when left out. */
  pace?: number;
}

/** An operator of a plan, as data: `{ name, inputs, operator: { filter: { condition: { text: 'price > 10' } } } }`. See `docs/streams.md`. */
export interface PlanNode {
  name: string;
  inputs?: string[];
  operator: { [operator: string]: { [option: string]: unknown } } | string;
}

/** Operators and what flows between them, each after its inputs; or what the builder has made. */
export interface Plan {
  nodes: PlanNode[];
}

/** A value of the filter language, and the type that it comes to. */
export interface Computed<T> {
  readonly expression: string;
  /** For types alone. */
  readonly type?: T;
}

const computed = <T>(expression: string): Computed<T> => ({ expression });

/** An expression that comes to an integer, such as `int64('price / 100')`; the plan is checked when the pipeline is made. */
export const int64 = (expression: string) => computed<number>(expression);
/** One that comes to a double. */
export const double = (expression: string) => computed<number>(expression);
/** One that comes to text. */
export const varchar = (expression: string) => computed<string>(expression);
/** One that comes to true or false. */
export const bool = (expression: string) => computed<boolean>(expression);
/** One that comes to a time, in microseconds since 1970. */
export const timestamp = (expression: string) => computed<number>(expression);

/** A window: which rows of a key belong together. */
export interface PlanWindow {
  readonly window: { [kind: string]: { [option: string]: number | string } } | 'global' | 'attached';
  readonly timed: boolean;
}

const micros = (what: string, ms: number): number => {
  if (typeof ms !== 'number' || !Number.isFinite(ms)) throw new EddyError('invalid_argument', `${what}: a number of milliseconds expected, got ${String(ms)}`);
  return Math.round(ms * 1_000);
};

/** Where windows of time begin. */
export interface WindowPlace {
  /** How far past the multiples of their size, or slide, they begin: past Thursday, of weeks. */
  offsetMs?: number;
  /**
   * The zone whose clocks tell where they begin and end, by its name in the IANA database (`Europe/Berlin`); UTC when left out. A day by the
   * clocks has 23, 24 or 25 hours.
   */
  zone?: string;
}

const placed = ({ offsetMs = 0, zone }: WindowPlace): { offset: number; zone?: string } =>
  ({ offset: micros('offsetMs', offsetMs), ...(zone === undefined ? {} : { zone }) });

/** Windows one after the other, each as long. */
export const tumbling = (sizeMs: number, place: WindowPlace = {}): PlanWindow & { timed: true } =>
  ({ window: { tumbling: { size: micros('size', sizeMs), ...placed(place) } }, timed: true });
/** Windows of one length, one beginning after every slide. */
export const sliding = (sizeMs: number, slideMs: number, place: WindowPlace = {}): PlanWindow & { timed: true } =>
  ({ window: { sliding: { size: micros('size', sizeMs), slide: micros('slide', slideMs), ...placed(place) } }, timed: true });
/** Windows of rows of a key without a gap. */
export const session = (gapMs: number): PlanWindow & { timed: true } => ({ window: { session: { gap: micros('gap', gapMs) } }, timed: true });
/** Windows that begin as tumbling ones and end after every step. */
export const cumulate = (sizeMs: number, stepMs: number, place: WindowPlace = {}): PlanWindow & { timed: true } =>
  ({ window: { cumulate: { size: micros('size', sizeMs), step: micros('step', stepMs), ...placed(place) } }, timed: true });
/** The last `size` rows of a key, after every `slide` of them. */
export const countWindow = (size: number, slide: number = size): PlanWindow & { timed: false } => ({ window: { count: { size, slide } }, timed: false });
/** One window of all time. */
export const global = (): PlanWindow & { timed: false } => ({ window: 'global', timed: false });

/** A column of a window, and the type that it comes to. */
export interface PlanAggregate<T> {
  readonly aggregate: { function: unknown; input?: string; filter?: string; by?: string };
  /** For types alone. */
  readonly type?: T;
  /** Only of rows for which this is true. */
  where(condition: string): PlanAggregate<T>;
}

function aggregateOf<T>(aggregate: PlanAggregate<T>['aggregate']): PlanAggregate<T> {
  return { aggregate, where: (filter) => aggregateOf<T>({ ...aggregate, filter }) };
}

/** How many rows; of an expression, how many that are not null. */
export const count = (input?: string) => aggregateOf<number>({ function: 'count', ...(input !== undefined && { input }) });
/** The sum of numbers. */
export const sum = (input: string) => aggregateOf<number | null>({ function: 'sum', input });
/** The least. */
export const min = <T = number>(input: string) => aggregateOf<NoInfer<T> | null>({ function: 'min', input });
/** The greatest. */
export const max = <T = number>(input: string) => aggregateOf<NoInfer<T> | null>({ function: 'max', input });
/** The mean. */
export const avg = (input: string) => aggregateOf<number | null>({ function: 'avg', input });
/** The variance. */
export const variance = (input: string, { sample = false } = {}) => aggregateOf<number | null>({ function: { variance: { sample } }, input });
/** The standard deviation. */
export const stdDev = (input: string, { sample = false } = {}) => aggregateOf<number | null>({ function: { stdDev: { sample } }, input });
/** A quantile, about. */
export const quantile = (input: string, share: number) => aggregateOf<number | null>({ function: { quantile: share }, input });
/** How many different values, exactly. */
export const countDistinct = (input: string) => aggregateOf<number>({ function: 'countDistinct', input });
/** How many different values, about. */
export const approxCountDistinct = (input: string) => aggregateOf<number>({ function: 'approxCountDistinct', input });
/** The value of the first row, by time or by `by`. */
export const first = <T = number>(input: string, by?: string) => aggregateOf<NoInfer<T> | null>({ function: 'first', input, ...(by !== undefined && { by }) });
/** The value of the last row, by time or by `by`. */
export const last = <T = number>(input: string, by?: string) => aggregateOf<NoInfer<T> | null>({ function: 'last', input, ...(by !== undefined && { by }) });
/** The values as an array. */
export const collect = <T = unknown>(input: string, limit: number) => aggregateOf<NoInfer<T>[]>({ function: { collect: { limit } }, input });
/** The values of the rows of greatest `by`, the greatest first. */
export const top = <T = unknown>(input: string, limit: number, { by, ascending = false }: { by?: string; ascending?: boolean } = {}) =>
  aggregateOf<NoInfer<T>[]>({ function: { top: { limit, ascending } }, input, ...(by !== undefined && { by }) });
/** The mean of vectors. */
export const centroid = (input: string) => aggregateOf<Float32Array | null>({ function: 'centroid', input });
/** The mean squared distance of vectors from their centroid. */
export const spread = (input: string) => aggregateOf<number | null>({ function: 'spread', input });
/** How far vectors are from those of a window before. */
export const drift = (input: string, reference: 'previous' | 'first' = 'previous') => aggregateOf<number | null>({ function: { drift: { reference, measure: 'cosine' } }, input });
/** The value of the row whose vector (`by`) is nearest to the centroid. */
export const nearestToCentroid = <T = number>(input: string, by: string) => aggregateOf<NoInfer<T> | null>({ function: 'nearest', input, by });

type Row = object;
type Name<R> = keyof R & string;
type Bounds<W> = W extends { timed: true } ? { window_start: number; window_end: number } : unknown;
type Plain<T> = { [K in keyof T]: T[K] };
type Joined<L, R> = Plain<L & { [K in keyof R as K extends keyof L ? `right_${K & string}` : K]: R[K] }>;
type Columns<R> = { [name: string]: Name<R> | Computed<unknown> };
type Mapped<R, C> = { -readonly [K in keyof C]: C[K] extends keyof R ? R[C[K]] : C[K] extends Computed<infer T> ? T : never };
type Aggregates = { [name: string]: PlanAggregate<unknown> };
type Aggregated<A> = { -readonly [K in keyof A]: A[K] extends PlanAggregate<infer T> ? T : never };

/** When a window tells its rows, and what. */
export interface AggregateOptions {
  /** Whether windows are of the time when a row is processed. */
  processingTime?: boolean;
  /** Before a window's end: after so many rows of a key, so many milliseconds, or every batch. */
  early?: { count: number } | { everyMs: number } | 'batch';
  /** After it, for rows within the lateness; each at once when left out. */
  late?: { count: number } | { everyMs: number } | 'batch';
  /** Whether a window forgets what it has told. */
  purge?: boolean;
  /** For how many milliseconds after its end a window still takes rows. */
  latenessMs?: number;
  /** What is told of a window that is told more than once. Default `'close'`: each once, at its end. */
  output?: 'close' | 'accumulating' | 'discarding' | 'retracting';
  /** The name of the sink that takes rows which come later than that. */
  lateSink?: string;
  /**
   * Which rows a window keeps each time that it is told; it lets go of the others, before it is told or `after`. The last `count` that came; those
   * less than `ms` before the latest of them; or those for which an expression is below a threshold, where `last_price` is the `price` of the row
   * that came last. All its rows are in memory then, and its aggregates are made from them anew.
   */
  keep?: ({ count: number } | { ms: number } | { delta: string; threshold: number }) & { after?: boolean };
}

function evictorOf(keep: NonNullable<AggregateOptions['keep']>): { [option: string]: unknown } {
  const { after = false } = keep;
  if ('count' in keep) return { keep: { count: keep.count }, after };
  if ('ms' in keep) return { keep: { time: micros('keep.ms', keep.ms) }, after };
  return { keep: { delta: { by: textOf(keep.delta), threshold: keep.threshold } }, after };
}

interface Made {
  nodes: PlanNode[];
  sources: { [name: string]: PlanSource };
}

function field(name: string, type: StreamField): { [option: string]: unknown } {
  if (typeof type === 'object') return { name, type: 'float_vector', dim: type.vector, nullable: type.nullable === true };
  const nullable = type.endsWith('?');
  return { name, type: nullable ? type.slice(0, -1) : type, nullable };
}

type Expression = { column: string } | { text: string };
const textOf = (text: string): Expression => ({ text });
const expressionOf = (value: string | Computed<unknown>): Expression => (typeof value === 'string' ? { column: value } : { text: value.expression });
const paceOf = (pace: AggregateOptions['early']): unknown =>
  pace === undefined ? null : pace === 'batch' ? 'batch' : 'count' in pace ? { count: pace.count } : { interval: micros('everyMs', pace.everyMs) };

let counter = 0;
const fresh = (what: string) => `${what}${++counter}`;

/** Both plans in one: nodes that they share once, each after its inputs. */
function merged(...all: Made[]): Made {
  const nodes = new Map<string, PlanNode>();
  for (const node of all.flatMap((one) => one.nodes)) {
    const there = nodes.get(node.name);
    if (there && there !== node) throw new EddyError('invalid_argument', `two nodes of the plan are called ${JSON.stringify(node.name)}`);
    nodes.set(node.name, node);
  }
  return { nodes: [...nodes.values()], sources: Object.assign({}, ...all.map((one) => one.sources)) };
}

/**
 * Rows of a collection as they come, from which a plan is built: {@link Stream.sink} ends it.
 *
 * @param name The source's name, and that of its collection unless `collection` names another one.
 * @param fields The fields that the plan reads, which may be fewer than the collection has.
 */
export function source<const F extends StreamFields>(
  name: string,
  fields: F,
  { time, delayMs = 0, idleMs, changes = false, ...from }: Omit<PlanSource, 'time' | 'delayMs' | 'idleMs'> & {
    /** The field with the event time. */
    time?: keyof F & string;
    /** How much earlier than the latest row so far a row may come. Default 0. */
    delayMs?: number;
    /** After how many milliseconds without a row it is waited for no longer. */
    idleMs?: number;
    /** Whether a later version of a row replaces the earlier one. By default rows are events, which count when they are inserted. */
    changes?: boolean;
  } = {},
): Stream<StreamRow<F>> {
  const operator = {
    source: {
      fields: Object.entries(fields).map(([field_, type]) => field(field_, type)),
      time: time ?? null,
      watermark: { delay: micros('delayMs', delayMs), idle: idleMs === undefined ? null : micros('idleMs', idleMs) },
      changes,
    },
  };
  return new Stream<StreamRow<F>>({ nodes: [{ name, inputs: [], operator }], sources: { [name]: from } }, name);
}

/** Rows on their way through a plan that is being built. Each method gives a new one. */
export class Stream<R extends Row> {
  readonly #made: Made;
  readonly #name: string;
  /** For types alone. */
  declare readonly row: R;

  /** @internal */
  constructor(made: Made, name: string) {
    this.#made = made;
    this.#name = name;
  }

  #then<T extends Row>(what: string, operator: PlanNode['operator'], others: Stream<Row>[] = []): Stream<T> {
    const name = fresh(what);
    const node = { name, inputs: [this.#name, ...others.map((other) => other.#name)], operator };
    const made = merged(this.#made, ...others.map((other) => other.#made));
    return new Stream<T>({ ...made, nodes: [...made.nodes, node] }, name);
  }

  /** Only rows for which a condition of the filter language is true. */
  filter(condition: string): Stream<R> {
    return this.#then('filter', { filter: { condition: textOf(condition) } });
  }

  /** Other columns: a field's name, or an expression: `map({ auction: 'auction', euro: double('0.908 * price') })`. */
  map<const C extends Columns<R>>(columns: C): Stream<Mapped<R, C>> {
    return this.#then('map', { project: { columns: Object.entries(columns).map(([name, value]) => [name, expressionOf(value)]) } });
  }

  /** A row for each value of a JSON array. */
  flatMap<const N extends string, const T extends StreamType>(array: Name<R>, item: N, type: T): Stream<Plain<R & { [K in N]: Values[T] | null }>> {
    return this.#then('flatMap', { unnest: { field: array, item: field(item, `${type}?`) } });
  }

  /** The rows that a function of the application gives for each, with the fields that are said here: see {@link Database.setFunction}. */
  call<const F extends StreamFields>(name: string, fields: F, { time }: { time?: keyof F & string } = {}): Stream<StreamRow<F>> {
    return this.#then('call', { call: { function: name, fields: Object.entries(fields).map(([one, type]) => field(one, type)), time: time ?? null } });
  }

  /** Rows with the same values of these fields belong together. */
  keyBy<const K extends readonly Name<R>[]>(...keys: K): KeyedStream<R, K[number]> {
    return new KeyedStream(keys, (window, aggregates, options) => this.#aggregate(keys, window, aggregates, options), (limit, options) => this.#top(keys, limit, options));
  }

  /** Windows of all rows. */
  window<const W extends PlanWindow>(window: W): WindowedStream<R, never, W> {
    return this.keyBy().window(window) as WindowedStream<R, never, W>;
  }

  #aggregate(keys: readonly string[], { window }: PlanWindow, aggregates: Aggregates, options: AggregateOptions): Stream<Row> {
    const { processingTime = false, early, late, purge = false, latenessMs = 0, output = 'close', lateSink, keep } = options;
    const trigger = { processingTime, early: paceOf(early), late: paceOf(late), purge };
    const columns = Object.entries(aggregates).map(([name, { aggregate }]) => ({
      name,
      function: aggregate.function,
      ...(aggregate.input !== undefined && { input: textOf(aggregate.input) }),
      ...(aggregate.filter !== undefined && { filter: textOf(aggregate.filter) }),
      ...(aggregate.by !== undefined && { by: textOf(aggregate.by) }),
    }));
    const lateness = micros('latenessMs', latenessMs);
    return this.#then('aggregate', { aggregate: { window, keys: [...keys], aggregates: columns, trigger, lateness, output, late: lateSink ?? null, ...(keep && { evictor: evictorOf(keep) }) } });
  }

  /**
   * Pairs with the rows of another stream that have the same values; a field that both have is called `right_…` of the other. `within` says
   * how far apart they may be: a window, a span of milliseconds from `fromMs` to `toMs` of the other's time after this one's, or any.
   */
  join<O extends Row>(
    other: Stream<O>,
    { on, within, kind = 'inner', where }: {
      on: readonly (readonly [Name<R>, Name<O>])[];
      within: (PlanWindow & { timed: true }) | { fromMs: number; toMs: number } | 'unbounded';
      kind?: 'inner' | 'left' | 'right' | 'full' | 'semi' | 'anti';
      where?: string;
    },
  ): Stream<Joined<R, O>> {
    const scope = within === 'unbounded' ? within
      : 'window' in within ? { window: within.window }
      : { interval: { lower: micros('fromMs', within.fromMs), upper: micros('toMs', within.toMs) } };
    return this.#then('join', { join: { kind, keys: on.map(([left, right]) => [left, right]), scope, condition: where === undefined ? null : textOf(where) } }, [other as unknown as Stream<Row>]);
  }

  /** Rows beside the row of a collection that has their key, as it was at the row's event time. */
  lookup<const F extends StreamFields>(collection: string, { key, fields, inner = false }: { key: Name<R> | Computed<unknown>; fields: F; inner?: boolean }): Stream<Joined<R, Partial<StreamRow<F>>>> {
    return this.#then('lookup', { lookup: { collection, key: expressionOf(key), fields: Object.entries(fields).map(([name, type]) => field(name, type)), inner } });
  }

  /** Rows beside the nearest rows of a collection, one each. */
  nearest<const F extends StreamFields, const D extends string = never>(
    collection: string,
    { vector, limit, fields, vectorField, filter, distance, inner = false }: {
      vector: Name<R> | Computed<unknown>; limit: number; fields: F; vectorField?: string; filter?: string; distance?: D; inner?: boolean;
    },
  ): Stream<Joined<R, Partial<StreamRow<F>> & { [K in D]: number | null }>> {
    const wanted = Object.entries(fields).map(([name, type]) => field(name, type));
    return this.#then('nearest', {
      nearest: { collection, field: vectorField ?? null, vector: expressionOf(vector), limit, filter: filter ?? null, fields: wanted, distance: distance ?? null, inner },
    });
  }

  /** The first row of each key. */
  distinct(...keys: readonly Name<R>[]): Stream<R> {
    return this.#then('distinct', { distinct: { keys: [...keys] } });
  }

  /**
   * Rows whose vector is not near to that of a row shortly before, of the same key: of many that are near to each other the first. Rows are taken
   * by their event time once the watermark has come to it, so what is told does not depend on the order in which they come.
   */
  dedupe<const K extends Name<R> = never, const N extends string = never, const D extends string = never>(
    vector: Name<R>,
    { radius, withinMs, metric = 'cosine', keys = [], duplicates }: {
      /** Rows are near that are no farther than this: 1 - cosine of the angle between the vectors, or Euclid's distance. */
      radius: number;
      /** For how long in event time a row is compared with, and kept. */
      withinMs: number;
      metric?: 'cosine' | 'l2';
      /** Rows of different keys are not compared. */
      keys?: readonly Name<R>[];
      /** Tells duplicates too: `name` is the field `of` of the row that one is near to, and null of all others; `distance` how far it is. */
      duplicates?: { of: K; name: N; distance?: D };
    },
  ): Stream<Plain<R & { [Key in N]: R[K] | null } & { [Key in D]: number | null }>> {
    const told = duplicates && { of: duplicates.of, name: duplicates.name, distance: duplicates.distance ?? null };
    return this.#then('dedupe', { dedupe: { keys: [...keys], vector, metric, radius, within: micros('withinMs', withinMs), duplicates: told ?? null } });
  }

  /** The first rows by an order, with those of a window when its bounds are among `keys`. */
  limit(limit: number, options: LimitOptions<R>): Stream<R> {
    return this.#top([], limit, options);
  }

  #top(keys: readonly string[], limit: number, { orderBy }: LimitOptions<R>): Stream<R> {
    const order = orderBy.map((one) => (typeof one === 'object' && 'by' in one ? [expressionOf(one.by), one.descending === true] : [expressionOf(one), false]));
    return this.#then('limit', { top: { keys: [...keys], order, limit, rank: null } });
  }

  /** The rows of this and of other streams with the same fields. */
  union(...others: Stream<R>[]): Stream<R> {
    return this.#then('union', 'union', others as unknown as Stream<Row>[]);
  }

  /**
   * Ends the plan: rows go into a collection, of which `keys` say which row replaces which, or without one to {@link Pipeline.rows}.
   */
  sink({ name, collection, keys = [] }: { name?: string; collection?: string; keys?: readonly Name<R>[] } = {}): StreamPlan {
    const node = { name: name ?? collection ?? fresh('sink'), inputs: [this.#name], operator: { sink: { collection: collection ?? null, keys: [...keys] } } };
    return new StreamPlan({ ...this.#made, nodes: [...this.#made.nodes, node] });
  }
}

/** What rows are ordered by. */
export interface LimitOptions<R> {
  orderBy: readonly (Name<R> | Computed<unknown> | { by: Name<R> | Computed<unknown>; descending?: boolean })[];
}

/** Rows of which those with the same key belong together. */
export class KeyedStream<R extends Row, K extends string> {
  readonly #aggregate: (window: PlanWindow, aggregates: Aggregates, options: AggregateOptions) => Stream<Row>;
  readonly #top: (limit: number, options: LimitOptions<R>) => Stream<R>;

  /** @internal */
  constructor(_keys: readonly string[], aggregate: (window: PlanWindow, aggregates: Aggregates, options: AggregateOptions) => Stream<Row>, top_: (limit: number, options: LimitOptions<R>) => Stream<R>) {
    this.#aggregate = aggregate;
    this.#top = top_;
  }

  /** The windows in which they do. */
  window<const W extends PlanWindow>(window: W): WindowedStream<R, K, W> {
    return new WindowedStream(window, this.#aggregate);
  }

  /** A row for each key, kept current: as {@link WindowedStream.aggregate} over all time, told after every batch. */
  reduce<const A extends Aggregates>(aggregates: A): Stream<Plain<Pick<R, K & keyof R> & Aggregated<A>>> {
    return this.window(global()).aggregate(aggregates, { early: 'batch', output: 'accumulating' }) as unknown as Stream<Plain<Pick<R, K & keyof R> & Aggregated<A>>>;
  }

  /** The first rows of each key by an order. */
  limit(limit: number, options: LimitOptions<R>): Stream<R> {
    return this.#top(limit, options);
  }
}

/** Rows by key and window. */
export class WindowedStream<R extends Row, K extends string, W extends PlanWindow> {
  readonly #window: W;
  readonly #aggregate: (window: PlanWindow, aggregates: Aggregates, options: AggregateOptions) => Stream<Row>;

  /** @internal */
  constructor(window: W, aggregate: (window: PlanWindow, aggregates: Aggregates, options: AggregateOptions) => Stream<Row>) {
    this.#window = window;
    this.#aggregate = aggregate;
  }

  /** One row for each key of a window: its keys, the bounds of a timed window, then the aggregates. */
  aggregate<const A extends Aggregates>(aggregates: A, options: AggregateOptions = {}): Stream<Plain<Pick<R, K & keyof R> & Bounds<W> & Aggregated<A>>> {
    return this.#aggregate(this.#window, aggregates, options) as unknown as Stream<Plain<Pick<R, K & keyof R> & Bounds<W> & Aggregated<A>>>;
  }
}

/** A plan that the builder made, for `createPipeline(name, { plan })`. */
export class StreamPlan implements Plan {
  readonly nodes: PlanNode[];
  /** Where its sources come from. */
  readonly sources: { [name: string]: PlanSource };

  /** @internal */
  constructor({ nodes, sources }: Made) {
    this.nodes = nodes;
    this.sources = sources;
  }

  /** Both plans in one, which reads a source that they share once. */
  and(other: StreamPlan): StreamPlan {
    return new StreamPlan(merged(this, other));
  }
}
