/** The two collections of the sample data, as their files describe them. */
export const SYMBOLS = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    symbol: { type: 'varchar', maxLength: 64 },
    category: { type: 'varchar', maxLength: 16 },
    name: { type: 'varchar', maxLength: 200 },
    embedding: { type: 'float_vector', dim: 384, metric: 'IP', index: { type: 'HNSW', m: 16, efConstruction: 200 } },
  },
  dynamic: false,
} as const;

export const WORDS = {
  fields: {
    word: { type: 'varchar', primaryKey: true, maxLength: 64 },
    rank: { type: 'int64' },
    embedding: { type: 'float_vector', dim: 384, metric: 'IP', index: { type: 'FLAT' } },
  },
  dynamic: false,
} as const;

/**
 * What the page remembers about itself. In the database and not in `localStorage`, which a browser writes to disk when it likes: a
 * page that was told to stay offline stays so, whoever pulls the plug.
 */
export const SETTINGS = {
  fields: {
    key: { type: 'varchar', primaryKey: true, maxLength: 64 },
    value: { type: 'varchar', maxLength: 1024 },
  },
  dynamic: false,
} as const;

/** A symbol as the page shows it. */
export interface SymbolRow {
  id: number;
  symbol: string;
  category: string;
  name: string;
}

/** The fields of a [`SymbolRow`]: everything but the vector. */
export const SHOWN = ['id', 'symbol', 'category', 'name'] as const;
