// A client of the worker's HTTP interface, for hosts that keep no database of their own.

import { EddyError, type ErrorKind, type InputRow, type Key, type OutputRow, type Schema, type SearchResponse } from 'eddydb/embedded';

/** Where a database is, and who asks. */
export interface EdgeOptions {
  /** The worker: `https://eddydb.example.workers.dev`. */
  url: string;
  /** The database's name. */
  database: string;
  /** The worker's `EDDY_TOKEN`. */
  token: string;
  /** Asks instead of the global `fetch`: a service binding's, for one. */
  fetch?: typeof fetch;
}

/** A database at the edge, over HTTP. What fails is thrown as an `EddyError`, by the kinds of the npm package. */
export class EdgeDatabase {
  readonly #options: EdgeOptions;

  constructor(options: EdgeOptions) {
    this.#options = options;
  }

  /** The names of all collections, ascending. */
  async collections(): Promise<string[]> {
    return (await this.ask<{ collections: string[] }>('GET', '')).collections;
  }

  /** Creates a collection; one of that name and schema that is there already is taken. */
  async createCollection<const S extends Schema>(name: string, schema: S): Promise<EdgeCollection<S>> {
    await this.ask('PUT', `/${encodeURIComponent(name)}`, schema);
    return this.collection<S>(name);
  }

  /** A handle on a collection; nothing is asked yet. `_schema` gives its rows their type. */
  collection<const S extends Schema>(name: string, _schema?: S): EdgeCollection<S> {
    return new EdgeCollection<S>(this, name);
  }

  /** Removes a collection with its rows. */
  async dropCollection(name: string): Promise<void> {
    await this.ask('DELETE', `/${encodeURIComponent(name)}`);
  }

  /** @internal */
  async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const { url, database, token, fetch: ask = fetch } = this.#options;
    const place = `${url.replace(/\/$/, '')}/databases/${encodeURIComponent(database)}/collections${path}`;
    const text = body === undefined ? undefined : JSON.stringify(body, (_, value: unknown) => (ArrayBuffer.isView(value) ? Array.from(value as Float32Array) : value));
    let response: Response;
    try {
      response = await ask(place, { method, headers: { authorization: `Bearer ${token}` }, ...(text !== undefined && { body: text }) });
    } catch (error) {
      throw new EddyError('unavailable', `${place}: ${(error as Error).message}`, { cause: error });
    }
    const answer = (await response.json().catch(() => undefined)) as { error?: { kind: ErrorKind; message: string; position?: number } } | undefined;
    if (response.ok && answer) return answer as T;
    const { kind, message, position } = answer?.error ?? { kind: 'unavailable' as const, message: `${method} ${place}: ${response.status}, which is no answer of this worker` };
    throw new EddyError(kind, message, { position });
  }
}

/** What a write has done. */
export interface EdgeWritten {
  /** Rows that were written, or deleted. */
  count: number;
  /** The position of the object's log. */
  lsn: number;
}

/** A row as JSON has it: vectors are arrays of numbers. */
export type EdgeRow<S extends Schema, F> = { [K in keyof OutputRow<S, false, F>]: OutputRow<S, false, F>[K] extends Float32Array ? number[] : OutputRow<S, false, F>[K] };

/** Which rows, and which of their fields: by default all but vectors. */
export interface EdgeQuery<F extends readonly string[] | undefined> {
  filter?: string;
  filterParams?: Record<string, unknown>;
  outputFields?: F;
  limit?: number;
  offset?: number;
}

/** A search of one vector. */
export interface EdgeSearch<F extends readonly string[] | undefined> extends EdgeQuery<F> {
  vector: readonly number[] | Float32Array;
  field?: string;
  exact?: boolean;
}

/** A collection at the edge, over HTTP. */
export class EdgeCollection<S extends Schema> {
  readonly #database: EdgeDatabase;
  readonly #path: string;

  /** @internal */
  constructor(database: EdgeDatabase, name: string) {
    this.#database = database;
    this.#path = `/${encodeURIComponent(name)}`;
  }

  /** Adds rows; a key that is there is `already_exists`. */
  async insert(rows: readonly InputRow<S>[]): Promise<EdgeWritten> {
    return this.#post('insert', { rows });
  }

  /** Adds or replaces rows. */
  async upsert(rows: readonly InputRow<S>[]): Promise<EdgeWritten> {
    return this.#post('upsert', { rows });
  }

  /** Deletes rows by key or filter. */
  async delete(target: { keys: readonly Key<S>[] } | { filter: string }): Promise<EdgeWritten> {
    return this.#post('delete', target);
  }

  /** The rows with these keys that are there. */
  async get<const F extends readonly string[] | undefined = undefined>(keys: readonly Key<S>[], options: { outputFields?: F } = {}): Promise<EdgeRow<S, F>[]> {
    return (await this.#post<{ rows: EdgeRow<S, F>[] }>('get', { keys, ...options })).rows;
  }

  /** The rows that a filter admits. */
  async query<const F extends readonly string[] | undefined = undefined>(query: EdgeQuery<F>): Promise<EdgeRow<S, F>[]> {
    return (await this.#post<{ rows: EdgeRow<S, F>[] }>('query', query)).rows;
  }

  /** How many rows a filter admits. */
  async count(query: Pick<EdgeQuery<undefined>, 'filter' | 'filterParams'> = {}): Promise<number> {
    return (await this.#post<{ count: number }>('count', query)).count;
  }

  /** The rows nearest to a vector. */
  async search<const F extends readonly string[] | undefined = undefined>(search: EdgeSearch<F>): Promise<SearchResponse<Key<S>, EdgeRow<S, F>>> {
    return this.#post('search', search);
  }

  #post<T>(action: string, body: unknown): Promise<T> {
    return this.#database.ask<T>('POST', `${this.#path}/${action}`, body);
  }
}
