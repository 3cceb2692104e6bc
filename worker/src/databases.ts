import { WorkerEntrypoint } from 'cloudflare:workers';
import { EddyError, type Schema } from 'eddydb/embedded';

import { type Env, isName } from './env.js';
import type { ArgumentsOf, Described, Found, FoundEach, Operations, PlainBatch, PlainFilter, PlainHybrid, PlainQuery, PlainRow, PlainSearch, PlainTarget, Written } from './operations.js';

/**
 * All databases, for other workers with a service binding to this entrypoint. Whoever has the binding may do everything: no token is asked for.
 *
 * Requests, answers and errors are those of HTTP. An error that arrives has the name `EddyError` with `kind`, `message` and `position`; where the
 * compatibility date of the caller is before May 2026, only with the flag `enhanced_error_serialization`.
 */
export class Databases extends WorkerEntrypoint<Env> {
  /** The names of all collections, ascending. */
  collections(database: string): Promise<string[]> {
    return this.#ask(database, 'collections', []);
  }

  /** The schema and the figures of a collection. */
  describe(database: string, collection: string): Promise<Described> {
    return this.#ask(database, 'describe', [collection]);
  }

  /** Creates a collection; one of that name and schema that is there already is taken. */
  createCollection(database: string, collection: string, schema: Schema): Promise<void> {
    return this.#ask(database, 'createCollection', [collection, schema]);
  }

  /** Removes a collection with its rows. */
  dropCollection(database: string, collection: string): Promise<void> {
    return this.#ask(database, 'dropCollection', [collection]);
  }

  /** Adds rows; a key that is there is `already_exists`. */
  insert(database: string, collection: string, rows: readonly PlainRow[]): Promise<Written> {
    return this.#ask(database, 'insert', [collection, rows]);
  }

  /** Adds or replaces rows. */
  upsert(database: string, collection: string, rows: readonly PlainRow[]): Promise<Written> {
    return this.#ask(database, 'upsert', [collection, rows]);
  }

  /** Deletes rows by key or filter. */
  delete(database: string, collection: string, target: PlainTarget): Promise<Written> {
    return this.#ask(database, 'delete', [collection, target]);
  }

  /** The rows with these keys that are there. */
  get(database: string, collection: string, keys: readonly (string | number)[], options: { outputFields?: readonly string[] } = {}): Promise<PlainRow[]> {
    return this.#ask(database, 'get', [collection, keys, options]);
  }

  /** The rows that a filter admits. */
  query(database: string, collection: string, request: PlainQuery): Promise<PlainRow[]> {
    return this.#ask(database, 'query', [collection, request]);
  }

  /** How many rows a filter admits. */
  count(database: string, collection: string, request: PlainFilter = {}): Promise<number> {
    return this.#ask(database, 'count', [collection, request]);
  }

  /** The rows nearest to a vector. */
  search(database: string, collection: string, request: PlainSearch): Promise<Found> {
    return this.#ask(database, 'search', [collection, request]);
  }

  /** The rows nearest to each of several vectors, or to those of some rows. */
  searchBatch(database: string, collection: string, request: PlainBatch): Promise<FoundEach> {
    return this.#ask(database, 'searchBatch', [collection, request]);
  }

  /** The hits of several searches, ranked together. */
  hybridSearch(database: string, collection: string, request: PlainHybrid): Promise<Found> {
    return this.#ask(database, 'hybridSearch', [collection, request]);
  }

  async #ask<O extends keyof Operations>(database: string, operation: O, given: ArgumentsOf<O>): Promise<Awaited<ReturnType<Operations[O]>>> {
    if (!isName(database)) throw new EddyError('invalid_argument', `${JSON.stringify(database)} is no name of a database: 1 to 128 letters, digits, '.', '_' or '-' expected`);
    const object = this.env.DATABASES.get(this.env.DATABASES.idFromName(database)) as unknown as {
      call(name: string, operation: O, given: ArgumentsOf<O>): Promise<Awaited<ReturnType<Operations[O]>>>;
    };
    return object.call(database, operation, given);
  }
}
