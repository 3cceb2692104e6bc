import { type AnySchema, type Collection, type CollectionStats, type Database, EddyError, type FilterParams, type Hit, type HybridRequest, type Schema, type SearchCounts } from 'eddydb/embedded';

/** What a write has done. */
export interface Written {
  /** Rows that were written, or deleted. */
  count: number;
  /** The position of the object's log. */
  lsn: number;
}

/** A row, whose vectors are arrays of numbers. */
// `any`, as what another worker gets of `unknown` is `never`.
export type PlainRow = Record<string, any>;

/** What a search has found. */
export interface Found extends SearchCounts {
  /** Best first. */
  hits: PlainHit[];
}

/** What several searches have found. */
export interface FoundEach extends SearchCounts {
  /** For each, in their order: its hits, best first. */
  results: PlainHit[][];
}

export interface PlainHit {
  key: string | number;
  score: number;
  row: PlainRow;
}

export interface Described {
  schema: Schema;
  stats: CollectionStats;
}

/** Which rows. */
export interface PlainFilter {
  filter?: string;
  filterParams?: FilterParams;
}

/** Which rows, and which of their fields: by default all but vectors. What else the npm package's request of that name has is taken too. */
export interface PlainQuery extends PlainFilter {
  outputFields?: readonly string[];
  limit?: number;
  offset?: number;
}

/** A search by one vector. */
export interface PlainSearch extends PlainQuery {
  vector: readonly number[] | Float32Array;
  field?: string;
  exact?: boolean;
}

/** Several searches in one: by these vectors, or by those of the rows with these keys. */
export type PlainBatch = Omit<PlainSearch, 'vector'> & ({ vectors: readonly PlainSearch['vector'][] } | { ids: readonly (string | number)[] });

/** Several searches, whose hits are ranked together. */
export interface PlainHybrid extends Omit<PlainQuery, 'filter' | 'filterParams'>, Pick<HybridRequest<AnySchema, undefined>, 'rerank' | 'rankers'> {
  searches: readonly (Omit<PlainSearch, 'vector'> & ({ vector: PlainSearch['vector'] } | { text: string }))[];
}

/** Rows by key or filter. */
export type PlainTarget = { keys: readonly (string | number)[] } | { filter: string; filterParams?: FilterParams };

/**
 * What can be asked of a database, over HTTP and by other workers. What callers give is looked at as far as
 * TypeScript's types are no more than a promise here; the rest the database checks.
 */
export const operations = {
  collections: (db: Database): Promise<string[]> => db.collections(),

  async describe(db: Database, collection: string): Promise<Described> {
    const asked = db.collection(collection);
    return { schema: await asked.schema(), stats: await asked.stats() };
  },

  async createCollection(db: Database, collection: string, schema: Schema): Promise<void> {
    await db.createCollection(collection, object('the schema', schema), { ifNotExists: true });
  },

  dropCollection: (db: Database, collection: string): Promise<void> => db.dropCollection(collection),

  insert: async (db: Database, collection: string, rows: readonly PlainRow[]): Promise<Written> => written(await db.collection(collection).insert(listed('rows', rows) as Rows)),

  upsert: async (db: Database, collection: string, rows: readonly PlainRow[]): Promise<Written> => written(await db.collection(collection).upsert(listed('rows', rows) as Rows)),

  delete: async (db: Database, collection: string, target: PlainTarget): Promise<Written> => written(await db.collection(collection).delete(object('the target', target) as { filter: string })),

  get: async (db: Database, collection: string, keys: readonly (string | number)[], options: { outputFields?: readonly string[] } = {}): Promise<PlainRow[]> =>
    (await db.collection(collection).get(listed('keys', keys) as string[], options)).map(plain),

  query: async (db: Database, collection: string, request: PlainQuery): Promise<PlainRow[]> => (await db.collection(collection).query(object('the request', request))).map(plain),

  count: (db: Database, collection: string, request: PlainFilter = {}): Promise<number> => db.collection(collection).count(object('the request', request)),

  async search(db: Database, collection: string, request: PlainSearch): Promise<Found> {
    if (isBatch(object('the request', request))) throw new EddyError('invalid_argument', 'several vectors or ids are looked for by searchBatch');
    const { hits, ...response } = await db.collection(collection).search(request as PlainSearch & { vector: number[] });
    return { ...response, hits: hits.map(plainHit) };
  },

  async searchBatch(db: Database, collection: string, request: PlainBatch): Promise<FoundEach> {
    if (!isBatch(object('the request', request))) throw new EddyError('invalid_argument', 'one vector or text is looked for by search, here vectors or ids are');
    const { results, ...response } = await db.collection(collection).search(request as { vectors: number[][] });
    return { ...response, results: results.map((hits) => hits.map(plainHit)) };
  },

  async hybridSearch(db: Database, collection: string, request: PlainHybrid): Promise<Found> {
    listed('searches', object('the request', request).searches).forEach((search) => object('a search', search));
    const { hits, ...response } = await db.collection(collection).hybridSearch(request as unknown as HybridRequest<AnySchema, undefined>);
    return { ...response, hits: hits.map(plainHit) };
  },
};

export type Operations = typeof operations;

/** The arguments of an operation, after the database. */
export type ArgumentsOf<O extends keyof Operations> = Operations[O] extends (db: Database, ...given: infer A) => unknown ? A : never;

type Rows = Parameters<Collection['insert']>[0];

function listed<T>(what: string, given: readonly T[]): readonly T[] {
  if (Array.isArray(given)) return given;
  throw new EddyError('invalid_argument', `${what}: an array expected, got ${given === null ? 'null' : typeof given}`);
}

function object<T extends object>(what: string, given: T): T {
  if (typeof given === 'object' && given !== null && !Array.isArray(given)) return given;
  throw new EddyError('invalid_argument', `${what}: an object expected, got ${Array.isArray(given) ? 'an array' : String(given)}`);
}

/** Whether several are looked for. */
export const isBatch = (request: object): boolean => 'vectors' in request || 'ids' in request;

const plainHit = (hit: Hit<string | number, Record<string, unknown>>): PlainHit => ({ ...hit, row: plain(hit.row) });

const written = ({ count, lsn }: Written): Written => ({ count, lsn });

function plain(row: Record<string, unknown>): PlainRow {
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, value instanceof Float32Array ? [...value] : value]));
}
