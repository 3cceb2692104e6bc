// A client of the worker, over HTTP or a service binding, for hosts that keep no database of their own.

import { EddyError, type ErrorKind, type InputRow, type Key, type OutputRow, type Schema, type SearchBatchResponse, type SearchResponse } from 'eddydb/embedded';

import type { ArgumentsOf, Described, Operations, PlainBatch, PlainFilter, PlainHybrid, PlainQuery, PlainSearch, Written } from './operations.js';

export type { Described as EdgeDescribed, Written as EdgeWritten } from './operations.js';

/** Where a database is, over HTTP, and who asks. */
export interface EdgeHttp {
  /** The worker: `https://eddydb.example.workers.dev`. */
  url: string;
  /** The database's name. */
  database: string;
  /** The worker's `EDDY_TOKEN`. */
  token: string;
  /** Asks instead of the global `fetch`. */
  fetch?: typeof fetch;
}

/** A service binding to the worker's entrypoint `Databases`, known by some of its methods: TypeScript cannot follow what is sent by all. */
export interface DatabasesBinding {
  collections(database: string): Promise<string[]>;
  count(database: string, collection: string): Promise<number>;
}

/** Where a database is, for another worker. */
export interface EdgeService {
  /** What the worker is bound to: `env.EDDY`. */
  binding: DatabasesBinding;
  /** The database's name. */
  database: string;
}

/** Where a database is. */
export type EdgeOptions = EdgeHttp | EdgeService;

/** A database at the edge. What fails is thrown as an `EddyError`, by the kinds of the npm package. */
export class EdgeDatabase {
  readonly #options: EdgeOptions;

  constructor(options: EdgeOptions) {
    this.#options = options;
  }

  /** The names of all collections, ascending. */
  collections(): Promise<string[]> {
    return this.call('collections');
  }

  /** Creates a collection; one of that name and schema that is there already is taken. */
  async createCollection<const S extends Schema>(name: string, schema: S): Promise<EdgeCollection<S>> {
    await this.call('createCollection', name, schema);
    return this.collection<S>(name);
  }

  /** A handle on a collection; nothing is asked yet. `_schema` gives its rows their type. */
  collection<const S extends Schema>(name: string, _schema?: S): EdgeCollection<S> {
    return new EdgeCollection<S>(this, name);
  }

  /** Removes a collection with its rows. */
  dropCollection(name: string): Promise<void> {
    return this.call('dropCollection', name);
  }

  /** @internal */
  async call<O extends keyof Operations>(operation: O, ...given: ArgumentsOf<O>): Promise<Awaited<ReturnType<Operations[O]>>> {
    return 'binding' in this.#options ? overBinding(this.#options, operation, given) : overHttp(this.#options, operation, given);
  }
}

/** What is asked over HTTP, and what of the answer counts. */
interface Route {
  method: string;
  path: string;
  body?: unknown;
  of?: string;
}

const place = (collection: string, action?: string): string => `/${encodeURIComponent(collection)}${action === undefined ? '' : `/${action}`}`;

const routes: { [O in keyof Operations]: (...given: ArgumentsOf<O>) => Route } = {
  collections: () => ({ method: 'GET', path: '', of: 'collections' }),
  describe: (collection) => ({ method: 'GET', path: place(collection) }),
  createCollection: (collection, schema) => ({ method: 'PUT', path: place(collection), body: schema }),
  dropCollection: (collection) => ({ method: 'DELETE', path: place(collection) }),
  insert: (collection, rows) => ({ method: 'POST', path: place(collection, 'insert'), body: { rows } }),
  upsert: (collection, rows) => ({ method: 'POST', path: place(collection, 'upsert'), body: { rows } }),
  delete: (collection, target) => ({ method: 'POST', path: place(collection, 'delete'), body: target }),
  get: (collection, keys, options) => ({ method: 'POST', path: place(collection, 'get'), body: { keys, ...options }, of: 'rows' }),
  query: (collection, request) => ({ method: 'POST', path: place(collection, 'query'), body: request, of: 'rows' }),
  count: (collection, request = {}) => ({ method: 'POST', path: place(collection, 'count'), body: request, of: 'count' }),
  search: (collection, request) => ({ method: 'POST', path: place(collection, 'search'), body: request }),
  searchBatch: (collection, request) => ({ method: 'POST', path: place(collection, 'search'), body: request }),
  hybridSearch: (collection, request) => ({ method: 'POST', path: place(collection, 'hybrid-search'), body: request }),
};

async function overHttp<O extends keyof Operations>({ url, database, token, fetch: ask = fetch }: EdgeHttp, operation: O, given: ArgumentsOf<O>): Promise<any> {
  const { method, path, body, of } = (routes[operation] as (...given: unknown[]) => Route)(...given);
  const place = `${url.replace(/\/$/, '')}/databases/${encodeURIComponent(database)}/collections${path}`;
  const text = body === undefined ? undefined : JSON.stringify(body, (_, value: unknown) => (ArrayBuffer.isView(value) ? Array.from(value as Float32Array) : value));
  let response: Response;
  try {
    response = await ask(place, { method, headers: { authorization: `Bearer ${token}` }, ...(text !== undefined && { body: text }) });
  } catch (error) {
    throw new EddyError('unavailable', `${place}: ${(error as Error).message}`, { cause: error });
  }
  const answer = (await response.json().catch(() => undefined)) as ({ error?: { kind: ErrorKind; message: string; position?: number } } & Record<string, unknown>) | undefined;
  if (response.ok && answer) return of === undefined ? answer : answer[of];
  const { kind, message, position } = answer?.error ?? { kind: 'unavailable' as const, message: `${method} ${place}: ${response.status}, which is no answer of this worker` };
  throw new EddyError(kind, message, { position });
}

async function overBinding<O extends keyof Operations>({ binding, database }: EdgeService, operation: O, given: ArgumentsOf<O>): Promise<any> {
  try {
    return await (binding as unknown as Record<O, (database: string, ...given: unknown[]) => Promise<unknown>>)[operation](database, ...given);
  } catch (error) {
    const { name, message, kind, position } = error as Partial<EddyError>;
    if (name === 'EddyError' && kind !== undefined) throw new EddyError(kind, message!, { position, cause: error });
    // What says so, and has lost its kind on the way: the caller has an old compatibility date.
    if (message?.startsWith('EddyError: ')) throw new EddyError('internal', `${message} (its kind comes with the compatibility flag enhanced_error_serialization)`, { cause: error });
    throw new EddyError('unavailable', `${operation} of ${database}: ${message}`, { cause: error });
  }
}

/** A row as JSON has it: vectors are arrays of numbers. */
export type EdgeRow<S extends Schema, F> = { [K in keyof OutputRow<S, false, F>]: OutputRow<S, false, F>[K] extends Float32Array ? number[] : OutputRow<S, false, F>[K] };

/** Which rows, and which of their fields: by default all but vectors. */
export interface EdgeQuery<F extends readonly string[] | undefined> extends Omit<PlainQuery, 'outputFields'> {
  outputFields?: F;
}

/** A search of one vector. */
export interface EdgeSearch<F extends readonly string[] | undefined> extends Omit<PlainSearch, 'outputFields'> {
  outputFields?: F;
}

/** Several searches in one, by vectors or keys. */
export type EdgeBatch<F extends readonly string[] | undefined> = Omit<PlainBatch, 'outputFields'> & ({ vectors: readonly PlainSearch['vector'][] } | { ids: readonly (string | number)[] }) & { outputFields?: F };

/** Several searches, whose hits are ranked together. */
export interface EdgeHybrid<F extends readonly string[] | undefined> extends Omit<PlainHybrid, 'outputFields'> {
  outputFields?: F;
}

/** A collection at the edge. */
export class EdgeCollection<S extends Schema> {
  readonly #database: EdgeDatabase;
  readonly #name: string;

  /** @internal */
  constructor(database: EdgeDatabase, name: string) {
    this.#database = database;
    this.#name = name;
  }

  /** Its schema and its figures. */
  describe(): Promise<Described> {
    return this.#database.call('describe', this.#name);
  }

  /** Adds rows; a key that is there is `already_exists`. */
  insert(rows: readonly InputRow<S>[]): Promise<Written> {
    return this.#database.call('insert', this.#name, rows);
  }

  /** Adds or replaces rows. */
  upsert(rows: readonly InputRow<S>[]): Promise<Written> {
    return this.#database.call('upsert', this.#name, rows);
  }

  /** Deletes rows by key or filter. */
  delete(target: { keys: readonly Key<S>[] } | { filter: string }): Promise<Written> {
    return this.#database.call('delete', this.#name, target as { filter: string });
  }

  /** The rows with these keys that are there. */
  async get<const F extends readonly string[] | undefined = undefined>(keys: readonly Key<S>[], options: { outputFields?: F } = {}): Promise<EdgeRow<S, F>[]> {
    return (await this.#database.call('get', this.#name, keys as readonly string[], options as PlainQuery)) as EdgeRow<S, F>[];
  }

  /** The rows that a filter admits. */
  async query<const F extends readonly string[] | undefined = undefined>(query: EdgeQuery<F>): Promise<EdgeRow<S, F>[]> {
    return (await this.#database.call('query', this.#name, query as PlainQuery)) as EdgeRow<S, F>[];
  }

  /** How many rows a filter admits. */
  count(query: PlainFilter = {}): Promise<number> {
    return this.#database.call('count', this.#name, query);
  }

  /** The rows nearest to a vector. */
  async search<const F extends readonly string[] | undefined = undefined>(search: EdgeSearch<F>): Promise<SearchResponse<Key<S>, EdgeRow<S, F>>> {
    return (await this.#database.call('search', this.#name, search as PlainSearch)) as unknown as SearchResponse<Key<S>, EdgeRow<S, F>>;
  }

  /** The rows nearest to each of several vectors, or to those of some rows. */
  async searchBatch<const F extends readonly string[] | undefined = undefined>(search: EdgeBatch<F>): Promise<SearchBatchResponse<Key<S>, EdgeRow<S, F>>> {
    return (await this.#database.call('searchBatch', this.#name, search as PlainBatch)) as unknown as SearchBatchResponse<Key<S>, EdgeRow<S, F>>;
  }

  /** The hits of several searches, ranked together. */
  async hybridSearch<const F extends readonly string[] | undefined = undefined>(search: EdgeHybrid<F>): Promise<SearchResponse<Key<S>, EdgeRow<S, F>>> {
    return (await this.#database.call('hybridSearch', this.#name, search as PlainHybrid)) as unknown as SearchResponse<Key<S>, EdgeRow<S, F>>;
  }
}
