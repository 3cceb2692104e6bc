// What the compiler makes of a schema literal. Nothing here runs: it is right when it compiles, and each `@ts-expect-error` is an
// error that a user must get.

import { EddyError, open, type ErrorKind, type Json } from 'eddydb';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function expectType<Expected>() {
  return <Actual>(_value: Actual, ..._equal: Equal<Actual, Expected> extends true ? [] : [{ got: Actual; expected: Expected }]): void => {};
}

const db = await open({ name: 'notes' });

const notes = await db.createCollection('notes', {
  fields: {
    id: { type: 'int64', primaryKey: true },
    title: { type: 'varchar', maxLength: 200 },
    done: { type: 'bool', nullable: true, default: false },
    year: { type: 'int64', default: 1999 },
    weight: { type: 'double', nullable: true },
    meta: { type: 'json', nullable: true },
    embedding: { type: 'float_vector', dim: 4, metric: 'IP', index: { type: 'HNSW', m: 16, efConstruction: 200 } },
  },
});

// Reading: every field but the vectors; nullable ones may be null.
interface Scalars {
  id: number;
  title: string;
  done: boolean | null;
  year: number;
  weight: number | null;
  meta: Json;
}
const [row] = await notes.query({ filter: 'year > 1999' });
expectType<number>()(row!.id);
expectType<string>()(row!.title);
expectType<boolean | null>()(row!.done);
expectType<number>()(row!.year);
expectType<number | null>()(row!.weight);
expectType<Json>()(row!.meta);
row! satisfies Scalars;
// @ts-expect-error a vector is read only when it is named
row!.embedding;
// @ts-expect-error no such field
row!.nothing;

// outputFields narrows, and '*' is everything.
const [narrow] = await notes.get([1], { outputFields: ['title', 'embedding'] });
expectType<{ title: string; embedding: Float32Array }>()(narrow!);
const [whole] = await notes.get([1], { outputFields: ['*'] });
expectType<Float32Array>()(whole!.embedding);
expectType<number>()(whole!.id);
// @ts-expect-error no such field to output
await notes.query({ outputFields: ['titel'] });

// Search.
const { hits, ms } = await notes.search({ vector: [1, 2, 3, 4], field: 'embedding', outputFields: ['title'], limit: 5, exact: true, ef: 100, offset: 1 });
expectType<number>()(hits[0]!.key);
expectType<number>()(hits[0]!.score);
expectType<{ title: string }>()(hits[0]!.row);
expectType<number>()(ms);
// @ts-expect-error title is no vector field
await notes.search({ vector: [1], field: 'title' });
// @ts-expect-error a search needs a vector
await notes.search({ limit: 3 });

// Writing: nullable fields and those with a default may be left out; null is for nullable ones.
await notes.insert([{ id: 1, title: 'a', embedding: new Float32Array(4) }]);
await notes.upsert([{ id: 1n, title: 'a', embedding: [1, 2, 3, 4], done: null, meta: { a: [1, 'b', null] }, weight: 0.5 }]);
// @ts-expect-error title is missing
await notes.insert([{ id: 1, embedding: [1] }]);
// @ts-expect-error embedding is missing
await notes.insert([{ id: 1, title: 'a' }]);
// @ts-expect-error year has a default, but is not nullable
await notes.insert([{ id: 1, title: 'a', embedding: [1], year: null }]);
// @ts-expect-error a title is text
await notes.insert([{ id: 1, title: 2, embedding: [1] }]);
// @ts-expect-error no such field
await notes.insert([{ id: 1, title: 'a', embedding: [1], colour: 'red' }]);

// Keys are the primary key's type.
await notes.delete({ keys: [1, 2n] });
await notes.delete({ filter: 'done' });
// @ts-expect-error the primary key is an integer
await notes.delete({ keys: ['a'] });
// @ts-expect-error the primary key is an integer
await notes.get(['a']);

// A text primary key and a dynamic field.
const words = db.collection('words', {
  fields: { word: { type: 'varchar', primaryKey: true }, rank: { type: 'int64' }, v: { type: 'float_vector', dim: 2 } },
  dynamic: true,
});
await words.insert([{ word: 'rain', rank: 3, v: [1, 2], language: 'en', forms: ['rains', 'rained'] }]);
const [word] = await words.get(['rain']);
expectType<string>()(word!.word);
expectType<Json | undefined>()(word!.language);
const [dynamic] = await words.query({ outputFields: ['word', 'language'] });
expectType<string>()(dynamic!.word);
expectType<Json | undefined>()(dynamic!.language);
const found = await words.search({ vector: new Float64Array(2) });
expectType<string>()(found.hits[0]!.key);
// @ts-expect-error the primary key is text
await words.get([1]);

// bigint: true reads integers as bigint.
const exact = await open({ name: 'exact', bigint: true, storage: 'memory', durability: 'buffered' });
const ids = exact.collection('ids', { fields: { id: { type: 'int64', primaryKey: true }, n: { type: 'int64', nullable: true } } });
const [id] = await ids.query();
expectType<bigint>()(id!.id);
expectType<bigint | null>()(id!.n);

// Workers beside the engine are asked for when it is opened, and told of by stats.
const pooled = await open({ name: 'pooled', workers: 'auto', mergePolicy: 'sequential' });
// @ts-expect-error no such policy
void open({ name: 'pooled', mergePolicy: 'tiered' });
expectType<number | undefined>()((await pooled.stats()).pool?.searches);
expectType<number>()((await pooled.memory()).pool);
// @ts-expect-error a number or auto
void open({ name: 'pooled', workers: 'all' });

// A schema that is not known: rows are objects of anything.
const loose = db.collection('whatever');
const [anything] = await loose.query({ outputFields: ['a', 'b'] });
expectType<any>()(anything!.whatever);
await loose.insert([{ anything: 1, goes: [1, 2] }]);

// Every type of field.
const kinds = db.collection('kinds', {
  fields: {
    id: { type: 'int64', primaryKey: true },
    small: { type: 'int8' },
    single: { type: 'float', nullable: true },
    at: { type: 'timestamp' },
    tags: { type: 'array', elementType: 'varchar', maxLength: 9, maxCapacity: 4 },
    flags: { type: 'array', elementType: 'bool', nullable: true },
    times: { type: 'array', elementType: 'timestamp', default: [] },
  },
});
const [kind] = await kinds.query();
expectType<number>()(kind!.small);
expectType<number | null>()(kind!.single);
expectType<number>()(kind!.at);
expectType<string[]>()(kind!.tags);
expectType<boolean[] | null>()(kind!.flags);
expectType<number[]>()(kind!.times);
await kinds.insert([{ id: 1, small: 1, at: new Date(), tags: ['a'], flags: [true], times: ['2024-05-01T12:30:00Z', 5n, new Date()] }]);
// @ts-expect-error an array of texts
await kinds.insert([{ id: 1, small: 1, at: 1, tags: [1] }]);
// @ts-expect-error an int8 is a number
await kinds.insert([{ id: 1, small: 1n, at: 1, tags: [] }]);

// Every type of vector.
const points = db.collection('points', {
  fields: {
    id: { type: 'int64', primaryKey: true },
    half: { type: 'float16_vector', dim: 2, nullable: true },
    byte: { type: 'int8_vector', dim: 2 },
    bits: { type: 'binary_vector', dim: 16, metric: 'JACCARD' },
    terms: { type: 'sparse_float_vector' },
  },
});
const [point] = await points.query({ outputFields: ['half', 'byte', 'bits', 'terms'] });
expectType<{ half: Float32Array | null; byte: Int8Array; bits: Uint8Array; terms: { [index: number]: number } }>()(point!);
await points.insert([{ id: 1, half: new Uint16Array(2), byte: new Int8Array(2), bits: new Uint8Array(2), terms: { 1: 0.5 } }]);
await points.insert([{ id: 1, byte: [1, 2], bits: [1, 2], terms: [[1, 0.5], [9, 2]] }]);
// @ts-expect-error bits are bytes
await points.insert([{ id: 1, byte: [1, 2], bits: new Float32Array(2), terms: {} }]);
await points.search({ field: 'terms', vector: { 4: 1 } });
await points.search({ field: 'bits', vector: new Uint8Array(2) });

// Keys that are made.
const made = db.collection('made', { fields: { id: { type: 'varchar', primaryKey: true, autoId: true }, n: { type: 'int8' } } });
const { keys } = await made.insert([{ n: 1 }, { id: 'own', n: 2 }]);
expectType<string[] | undefined>()(keys);
await db.createAlias('other', 'made');
expectType<{ [alias: string]: string }>()(await db.aliases());

// Fields that are added.
const grown = await made.addField('rank', { type: 'int32', default: 0 });
await grown.insert([{ n: 1, rank: 2 }, { n: 1 }]);
const [grownRow] = await grown.query();
expectType<number>()(grownRow!.rank);
expectType<string>()(grownRow!.id);

// Partitions.
await notes.createPartition('blue');
await notes.insert([], { partition: 'blue', durability: 'buffered' });
await made.insert([{ n: 1, $partition: 'blue' }]);
const [placed] = await notes.query({ partitions: ['blue', '_default'], outputFields: ['title', '$partition'] });
expectType<string>()(placed!.$partition);
await notes.search({ vector: [], partitions: ['blue'] });
await notes.delete({ keys: [1] }, { partition: 'blue' });
expectType<string[]>()(await notes.partitions());
const [lost] = await notes.conflicts();
expectType<string | undefined>()(lost?.winner);
// @ts-expect-error one partition is written into
await notes.upsert([], { partitions: ['blue'] });
await db.createCollection('tenants', { fields: { id: { type: 'int64', primaryKey: true }, tenant: { type: 'varchar', partitionKey: true } }, numPartitions: 64 });
await db.exportTo(new WritableStream<Uint8Array>());

// Results, events, errors.
const written = await notes.upsert([]);
expectType<{ count: number; timestamp: bigint; version: string; sessionToken: string; lsn: number; keys?: number[] }>()({ ...written });
await notes.count({ consistency: { bounded: 50 }, timeoutMs: 10 });
await notes.get([1], { sessionToken: [written.sessionToken], consistency: 'session' });
// @ts-expect-error no such level
await notes.count({ consistency: 'weak' });
await notes.createIndex('title', { type: 'TRIE' });
await notes.createIndex('meta["size"]', { type: 'INVERTED' });
// @ts-expect-error no such index
await notes.createIndex('title', { type: 'BTREE' });
const [versioned] = await notes.get([1], { outputFields: ['title', '$version'] });
expectType<string>()(versioned!.$version);
await notes.batch([{ upsert: [], ifVersion: written.version }, { delete: { keys: [1] } }, { delete: { filter: 'done' } }], { durability: 'synced' });
// @ts-expect-error a misspelt condition
await notes.upsert([], { ifVersoin: written.version });
await using snapshot = await notes.snapshot({ at: written.timestamp });
const [then] = await snapshot.query({ outputFields: ['title'] });
expectType<string>()(then!.title);
await notes.search({ vector: [], at: new Date() });
const stop: () => void = notes.onChange(({ lsn, collection }) => void (lsn satisfies number, collection satisfies string));
stop();
const sync = db.sync({ url: 'wss://example.com/sync', collections: ['notes'] });
db.sync({
  url: 'wss://example.com/sync',
  collections: {
    notes: { partitions: ['work'], filter: 'year > {year}', filterParams: { year: 2020 } },
    near: { near: { field: 'embedding', metric: 'COSINE', centers: [[1, 0], new Float32Array(2)], radius: 0.3 } },
    others: true,
  },
});
// @ts-expect-error: the inner product is no distance.
db.sync({ url: 'wss://example.com/sync', collections: { notes: { near: { field: 'embedding', metric: 'IP', centers: [[1]], radius: 1 } } } });
db.sync({ url: ['wss://near.example.com/sync', 'wss://far.example.com/sync'] as const, collections: ['notes'] });
// @ts-expect-error: addresses are text.
db.sync({ url: [new URL('wss://example.com/sync')], collections: ['notes'] });
sync.onStatus(({ state, url, pending, lastSyncedAt, error }) => {
  url satisfies string | undefined;
  state satisfies 'offline' | 'connecting' | 'live' | 'stopped';
  pending satisfies number;
  lastSyncedAt satisfies number | undefined;
  error satisfies { kind: ErrorKind; message: string } | undefined;
});
try {
  await db.close();
} catch (error) {
  if (error instanceof EddyError) {
    expectType<ErrorKind>()(error.kind);
    expectType<number | undefined>()(error.position);
  }
}

// A schema that cannot be.
await db.createCollection('bad', {
  fields: {
    // @ts-expect-error no such type
    id: { type: 'int63', primaryKey: true },
  },
});
await db.createCollection('bad', {
  fields: {
    id: { type: 'int64', primaryKey: true },
    // @ts-expect-error a vector needs dim
    v: { type: 'float_vector' },
  },
});

// Following: the rows before and after have the fields that were asked for.
for await (const { changes, token } of await notes.changes({ since: 'full', before: true, outputFields: ['title', 'embedding'] })) {
  expectType<string | null>()(token);
  expectType<{ title: string; embedding: Float32Array } | undefined>()(changes[0]!.before);
  expectType<number>()(changes[0]!.key);
}
// @ts-expect-error: no such field
await notes.changes({ outputFields: ['name'] });
const live = await notes.live({ vector: [1, 2, 3, 4], limit: 3, outputFields: ['title'] });
expectType<string>()(live.answer[0]!.row.title);
live.onUpdate(({ differences: [first] }) => {
  if (first?.op === 'left') expectType<number>()(first.key);
  else if (first) expectType<string>()(first.hit.row.title);
});
const selected = await notes.live({ filter: 'done == false' });
expectType<Scalars>()(selected.answer[0]!.row);
const ranked = await notes.live({ hybrid: { searches: [{ vector: [1, 2, 3, 4] }, { vector: [4, 3, 2, 1] }], rerank: { type: 'rrf', k: 60 }, outputFields: ['title'] } });
expectType<string>()(ranked.answer[0]!.row.title);
// @ts-expect-error: a live query has no groups
await notes.live({ vector: [1, 2, 3, 4], groupBy: 'title' });
