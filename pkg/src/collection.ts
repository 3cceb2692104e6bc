import type { Client } from './client.js';
import { decode, decodeRows, decodeSearch, encode, encodeRows, fromSchemaMessage, toQuery } from './codec.js';
import { type CollectionStats, required } from './database.js';
import type { AnySchema, Field, InputRow, Key, KeyInput, OutputField, OutputRow, QueryInput, Schema, VectorField, WithField } from './schema.js';

/** What was written. */
export interface WriteResponse<K = unknown> {
  /** With `autoId`: the primary keys of the rows, in their order. */
  keys?: K[];
  /** Rows inserted, replaced or deleted. */
  count: number;
  /** The hybrid time of the write: milliseconds since 1970 above 18 bits of counter. */
  timestamp: bigint;
  /** Its position in the local log. */
  lsn: number;
}

/** Which fields to return. */
export interface OutputOptions<S extends Schema, F extends readonly string[] | undefined> {
  /** Every field but the vectors when left out; `['*']` for all; a vector when named. */
  outputFields?: F & (readonly OutputField<S>[] | undefined);
}

/** A scan of rows. */
export interface QueryRequest<S extends Schema, F extends readonly string[] | undefined> extends OutputOptions<S, F> {
  /** Rows for which this expression is true, such as `done == false and year > 1999`. All when left out. */
  filter?: string;
  /** At most this many. */
  limit?: number;
  /** After leaving out this many. */
  offset?: number;
}

/** A search for the nearest rows. */
export interface SearchRequest<S extends Schema, F extends readonly string[] | undefined> extends OutputOptions<S, F> {
  /** The query, as the field has its vectors: as many finite numbers, bytes of bits, or a sparse vector. */
  vector: QueryInput<S>;
  /** The vector field; needed when there are several. */
  field?: VectorField<S>;
  /** How many hits, 1 to 16,384. Default 10. */
  limit?: number;
  /** After leaving out this many. */
  offset?: number;
  /** Among rows for which this expression is true. */
  filter?: string;
  /** HNSW's candidate list; larger finds more and takes longer. Default `max(limit + offset, 64)`. */
  ef?: number;
  /** Scan every row instead of using the index. */
  exact?: boolean;
}

/** One hit of a search. */
export interface Hit<K, R> {
  /** The row's primary key. */
  key: K;
  /** By the metric: for L2 the squared distance (smaller is closer), for IP and COSINE the product (larger is closer). */
  score: number;
  /** The output fields. */
  row: R;
}

/** The hits of a search, best first, and how they were found. */
export interface SearchResponse<K, R> {
  /** Best first. */
  hits: Hit<K, R>[];
  /** Rows scored one by one. */
  rowsScanned: number;
  /** Segments answered by their index. */
  segmentsByIndex: number;
  /** Segments answered by a scan. */
  segmentsByScan: number;
  /** Milliseconds in the engine, without the way there and back. */
  ms: number;
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

  /** @internal */
  constructor(client: Client, name: string, bigint: boolean) {
    this.#client = client;
    this.name = name;
    this.#bigint = bigint;
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

  /** Adds rows, all or none; `already_exists` when a primary key is there. */
  async insert(rows: readonly InputRow<S>[]): Promise<WriteResponse<Key<S, B>>> {
    return this.#write('insert', encodeRows(rows));
  }

  /** Adds or replaces rows, all or none. */
  async upsert(rows: readonly InputRow<S>[]): Promise<WriteResponse<Key<S, B>>> {
    return this.#write('upsert', encodeRows(rows));
  }

  /** Deletes rows by key or by filter; keys that are not there count for nothing. */
  async delete(target: { keys: readonly KeyInput<S>[] } | { filter: string }): Promise<WriteResponse> {
    return this.#write('delete', encode(target));
  }

  /** The rows with these keys, in this order; keys that are not there are left out. */
  async get<const F extends readonly string[] | undefined = undefined>(
    keys: readonly KeyInput<S>[],
    options: OutputOptions<S, F> = {},
  ): Promise<OutputRow<S, B, F>[]> {
    const body = encode({ ...options, keys, bigint: this.#bigint });
    return decodeRows(required(await this.#client.request('get', this.name, body)), this.#bigint) as OutputRow<S, B, F>[];
  }

  /** The rows that a filter selects, by ascending primary key. */
  async query<const F extends readonly string[] | undefined = undefined>(request: QueryRequest<S, F> = {}): Promise<OutputRow<S, B, F>[]> {
    const body = encode({ ...request, bigint: this.#bigint });
    return decodeRows(required(await this.#client.request('query', this.name, body)), this.#bigint) as OutputRow<S, B, F>[];
  }

  /** How many rows a filter selects; all of them without one. */
  async count(options: { filter?: string } = {}): Promise<number> {
    return decode(required(await this.#client.request('count', this.name, encode(options)))) as number;
  }

  /** The nearest rows, best first. */
  async search<const F extends readonly string[] | undefined = undefined>(
    request: SearchRequest<S, F>,
  ): Promise<SearchResponse<Key<S, B>, OutputRow<S, B, F>>> {
    const body = encode({ ...request, vector: toQuery(request.vector), bigint: this.#bigint });
    const response = required(await this.#client.request('search', this.name, body));
    return decodeSearch(response, this.#bigint) as unknown as SearchResponse<Key<S, B>, OutputRow<S, B, F>>;
  }

  /** Writes the growing segment and its index to storage, so that the next open reads instead of replaying. */
  async flush(): Promise<void> {
    await this.#client.request('flush', this.name);
  }

  /** What it holds. */
  async stats(): Promise<CollectionStats> {
    return decode(required(await this.#client.request('stats', this.name))) as CollectionStats;
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

  async #write(op: 'insert' | 'upsert' | 'delete', body: ReturnType<typeof encode>): Promise<WriteResponse<Key<S, B>>> {
    const response = decode(required(await this.#client.request(op, this.name, body)), true) as {
      count: number;
      timestamp: bigint | number;
      lsn: number;
      keys?: (string | number | bigint)[];
    };
    const written: WriteResponse<Key<S, B>> = { count: response.count, timestamp: BigInt(response.timestamp), lsn: response.lsn };
    const bigint = (key: string | number | bigint) => (this.#bigint && typeof key === 'number' ? BigInt(key) : key);
    if (response.keys) written.keys = response.keys.map(bigint) as Key<S, B>[];
    return written;
  }
}
