import type { Client } from './client.js';
import { decode, encode } from './codec.js';
import { EddyError } from './error.js';
import { type Functions, jsonText, statusOf } from './pipeline.js';

/** Something that happened. */
export interface BusEvent<R = Record<string, unknown>> {
  /** The source that it comes from; of what an aggregate comes to, the handler. */
  source: string;
  /** `insert`, `update`, `delete` or `read` of a collection, `aggregate`, or what the application said (`event` when it did not). */
  kind: string;
  key?: number | bigint | string;
  /** When it happened. */
  at: Date;
  /** The row after; of a delete that before. */
  row: R;
  /** The row before an update, when the source is to tell it. */
  before?: Record<string, unknown>;
  /** The handler that it came to, and which try it is, from 1 on. */
  handler: string;
  attempt: number;
  /** Whether it comes again, by a replay. */
  replayed: boolean;
}

/** A function for an event, or the name of one that `db.setFunction` has. What it throws is tried again. */
export type EventFunction = ((event: BusEvent) => unknown) | string;
/** A function for many events, of a handler with a batch or an aggregate: what it throws is said of each of them. In TypeScript its parameter is to be annotated. */
export type EventsFunction = ((events: BusEvent[]) => unknown) | string;

/** Where events come from: a collection, or without one the application, by {@link Bus.publish}. */
export interface BusSource {
  /** Its changes are events: none is lost, some may come again after a crash. */
  collection?: string;
  /** Where a new source begins in a collection: `'now'` (default), `'full'`, `'earliest'`, a token, or a hybrid time. */
  since?: string;
  /** Whether events have the row before. */
  before?: boolean;
  outputFields?: string[];
  /** How many events are read at once. Default 256. */
  batchSize?: number;
}

/** A value that an aggregate tells of a group. */
export interface BusValue {
  function: 'count' | 'sum' | 'avg' | 'min' | 'max' | 'first' | 'last';
  /** Of which field; of `count`, events where it is not null. */
  of?: string;
}

type BusTarget =
  | { function: EventFunction; batch?: undefined; aggregate?: undefined }
  | { function: EventsFunction; batch: BusBatch; aggregate?: undefined }
  | { function: EventsFunction; batch?: undefined; aggregate: BusAggregate }
  | { cases: { filter: string; function: EventFunction }[]; otherwise?: EventFunction; batch?: undefined; aggregate?: undefined }
  | { collection: string; batch?: BusBatch; aggregate?: BusAggregate };

/** How many events a call has at most, and how long the first of them waits for more. */
export interface BusBatch {
  events?: number;
  bytes?: number;
  delayMs?: number;
}

/** What many events come to, by the clock. */
export interface BusAggregate {
  /** The fields by which they are told apart. */
  by?: string[];
  values: { [name: string]: BusValue };
  /** A window ends with so many events (default 100,000), with so many groups (default 1,000), or after so long (default 1,000 ms). */
  events?: number;
  groups?: number;
  delayMs?: number;
}

/** Who handles events. */
export type BusHandler = BusTarget & {
  /** Default 5 attempts; waits of at most 200 ms before the second, twice as long each time, at most 30 s. */
  retry?: { attempts?: number; delayMs?: number; delayMsMax?: number };
  /** How many events wait for it. Default 10,000. */
  queue?: number;
  /** What happens to an event of the application that finds no room. Default `'refuse'`. */
  overflow?: 'refuse' | 'dropOldest' | 'dropNewest';
  /** How many calls run at once. Default 1. */
  concurrency?: number;
  /** Whether an event that waits for its next try holds up those behind it. Default false. */
  ordered?: boolean;
  /** A call that takes longer has failed. Default 30,000. */
  timeoutMs?: number;
};

/** Which events go to which handlers. */
export interface BusRoute {
  from?: string[];
  kinds?: string[];
  keyPattern?: string;
  filter?: string;
  /** Events of a greater one are handled first. Default 0. */
  priority?: number;
  to: string[];
}

/** What a bus does. */
export interface BusSpec {
  sources?: { [name: string]: BusSource };
  handlers?: { [name: string]: BusHandler };
  routes?: BusRoute[];
  /** The collection that takes what no handler has managed. Default `dead_letters`. */
  deadLetters?: string;
}

/** How the bus is doing. Counts are since the database was opened. */
export interface BusStatus {
  sources: { name: string; events: number; behind: number; token: string | null; reason: [kind: string, message: string] | null }[];
  handlers: {
    name: string; isEnding: boolean; events: number; handled: number; failures: number; retries: number; dead: number; dropped: number; calls: number;
    queued: number; retrying: number; gathered: number; inFlight: number; busyMs: number; latencyMsMean: number; latencyMsMax: number; reason: string | null;
  }[];
  replays: { id: number; source: string; state: 'running' | 'done' | 'cancelled' | 'failed'; events: number; reason: [kind: string, message: string] | null }[];
  lettersReason: string | null;
  /** What it does: functions by their names. */
  spec: { sources: { [name: string]: BusSource }; handlers: { [name: string]: Record<string, unknown> }; routes: BusRoute[]; deadLetters?: string };
}

/** What is to come again: all of a collection's changes from `since` on that are kept, up to now. */
export interface ReplayRequest {
  source: string;
  /** `'earliest'` (default), `'full'`, a token, or a hybrid time. */
  since?: string;
  /** So many times as fast as it happened; as fast as handlers take it without. */
  speed?: number;
  /** The handlers that get it; all to which the routes lead without. */
  handlers?: string[];
}

type Row = Record<string, unknown>;

/** A function that was given with a configuration. */
interface Given {
  handler: string;
  call: (events: BusEvent[]) => unknown;
  /** Whether it takes many events at once. */
  whole: boolean;
  timeoutMs: number | undefined;
}

/** What is sent of a configuration, and the functions in it, by the names that stand for them there. */
function split(spec: BusSpec): { text: string; given: Map<string, Given> } {
  if (typeof spec !== 'object' || spec === null) throw new EddyError('invalid_argument', 'the bus: an object expected');
  const given = new Map<string, Given>();
  const handlers: { [name: string]: unknown } = {};
  for (const [name, handler] of Object.entries(spec.handlers ?? {})) {
    const plain: Row = { ...handler };
    const whole = plain['batch'] !== undefined || plain['aggregate'] !== undefined;
    const named = (call: unknown, id: string) => {
      if (typeof call !== 'function') return call;
      const many = call as (events: BusEvent[]) => unknown;
      const one = call as (event: BusEvent) => unknown;
      given.set(id, { handler: name, call: whole ? many : ([event]) => one(event!), whole, timeoutMs: handler?.timeoutMs });
      return id;
    };
    if ('function' in plain) plain['function'] = named(plain['function'], `bus.${name}`);
    if ('otherwise' in plain) plain['otherwise'] = named(plain['otherwise'], `bus.${name}.otherwise`);
    if (Array.isArray(plain['cases'])) plain['cases'] = plain['cases'].map((one: Row, at) => ({ ...one, function: named(one?.['function'], `bus.${name}.${at}`) }));
    // What is no object is said to be none where the rest is checked.
    handlers[name] = typeof handler === 'object' ? plain : handler;
  }
  return { text: jsonText('the bus', spec.handlers === undefined ? spec : { ...spec, handlers }), given };
}

function eventOf(told: Row): BusEvent {
  const { $source, $kind, $key, $at, $handler, $attempt, $replayed, $before, ...row } = told;
  return {
    source: $source as string,
    kind: $kind as string,
    ...($key !== undefined && { key: $key as number | bigint | string }),
    at: new Date(Number($at) / 1000),
    row,
    ...($before !== undefined && { before: $before as Row }),
    handler: $handler as string,
    attempt: Number($attempt),
    replayed: $replayed as boolean,
  };
}

/** The event bus of a database: events of collections, and of the application, handed to handlers with retries and dead letters. */
export class Bus {
  readonly #client: Client;
  readonly #functions: Functions;
  /** The functions that were given with the configuration, and those before that something may wait for. */
  #given = new Map<string, Given>();
  /** One configuration after the other. */
  #configured: Promise<unknown> = Promise.resolve();

  /** @internal */
  constructor(client: Client, functions: Functions) {
    this.#client = client;
    this.#functions = functions;
  }

  /**
   * Does something else from now on, durably: nothing that was read before is lost or comes twice. Functions are there until the database is
   * closed; who opens it anew configures the same again, and events wait for them until then.
   *
   * @throws {@link EddyError} `invalid_argument` and `not_found` that name the member that is wrong; `unsupported` when the database was opened
   * without streams.
   */
  configure(spec: BusSpec): Promise<void> {
    const configured = this.#configured.then(() => this.#configure(spec));
    this.#configured = configured.catch(() => {});
    return configured;
  }

  async #configure(spec: BusSpec): Promise<void> {
    const { text, given } = split(spec);
    const before = new Map([...given.keys()].map((id) => [id, this.#given.get(id)]));
    try {
      // Before there are events for them.
      for (const [id, one] of given) await this.#set(id, one);
      await this.#client.request('busConfigure', undefined, encode(text));
    } catch (error) {
      // It does what it did. What the engine does not answer any more is of no account beside the error itself.
      for (const [id, one] of before) await (one ? this.#set(id, one) : this.#functions.remove(id)).catch(() => {});
      throw error;
    }
    const gone = [...this.#given].filter(([id]) => !given.has(id));
    this.#given = given;
    if (gone.length === 0) return;
    const { handlers } = await this.status();
    for (const [id, one] of gone) {
      const waits = handlers.some(({ name, queued, retrying, gathered, inFlight }) => name === one.handler && queued + retrying + gathered + inFlight > 0);
      // It goes with a later configuration.
      if (waits) this.#given.set(id, one);
      else await this.#functions.remove(id);
    }
  }

  async #set(id: string, { call, whole, timeoutMs }: Given): Promise<void> {
    const limit = timeoutMs === undefined ? {} : { timeoutMs };
    if (whole) await this.#functions.set(id, async (rows: Row[]) => void (await call(rows.map(eventOf))), { ...limit, whole });
    else await this.#functions.set(id, async (row: Row) => void (await call([eventOf(row)])), limit);
  }

  /**
   * Gives events of the application to their handlers, all or none: they are in memory alone. What must not be lost is written to a collection
   * that is a source. Tells to how many handlers each went.
   *
   * @throws {@link EddyError} `unavailable` when a handler has no room for them.
   */
  async publish(source: string, events: { kind?: string; key?: number | string; row: Record<string, unknown> }[]): Promise<number[]> {
    const answer = await this.#client.request('busPublish', source, encode(jsonText('the events', events)));
    return decode(answer!) as number[];
  }

  /** Has what happened to a collection come again, marked as such; gives what ends it. */
  async replay(request: ReplayRequest): Promise<{ id: number; cancel(): Promise<boolean> }> {
    const id = Number(decode((await this.#client.request('busReplay', undefined, encode(jsonText('the replay', request))))!));
    return { id, cancel: async () => decode((await this.#client.request('busCancel', String(id)))!) as boolean };
  }

  /** How it is doing, and what it does. */
  async status(): Promise<BusStatus> {
    return statusOf<BusStatus>(decode((await this.#client.request('busStatus'))!) as string);
  }
}
