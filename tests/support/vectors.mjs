// Rows for tests: random, but the same for the same seed.

/** Numbers in [0, 1) that a seed decides (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A vector of length one. */
export function direction(next, dim) {
  const vector = Float32Array.from({ length: dim }, () => next() * 2 - 1);
  const norm = Math.hypot(...vector);
  return vector.map((number) => number / norm);
}

/** The inner product in double precision. */
export function product(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** The keys of the `limit` rows with the largest product, best first, by looking at each. */
export function nearest(rows, vector, limit, admitted = () => true) {
  return rows
    .filter(admitted)
    .map((row) => ({ key: row.id, score: product(row.embedding, vector) }))
    .sort((a, b) => b.score - a.score || (a.key < b.key ? -1 : 1))
    .slice(0, limit);
}

export const dim = 24;

/** A schema with a field of each type. */
export const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    title: { type: 'varchar', maxLength: 40 },
    done: { type: 'bool', nullable: true, default: false },
    year: { type: 'int64', nullable: true },
    weight: { type: 'double', nullable: true },
    meta: { type: 'json', nullable: true },
    embedding: { type: 'float_vector', dim, metric: 'IP', index: { type: 'HNSW', m: 8, efConstruction: 80 } },
  },
  dynamic: true,
};

/** The same without the dynamic field. */
export const strictSchema = { fields: schema.fields };

/** `count` rows of {@link schema} from `first` on. */
export function makeRows(count, { seed = 7, first = 0 } = {}) {
  const next = random(seed + first);
  return Array.from({ length: count }, (_, index) => ({
    id: first + index,
    title: `row ${first + index}`,
    year: 1900 + Math.floor(next() * 100),
    weight: next(),
    embedding: direction(next, dim),
  }));
}
