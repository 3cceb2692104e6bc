import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

import { dim, direction, makeRows, random, schema } from '../support/vectors.mjs';

async function memory(t, options = {}) {
  const db = await open({ name: 'crud', storage: 'memory', ...options });
  t.after(() => db.close());
  return db;
}

test('rows of every type come back as they went in', async (t) => {
  const db = await memory(t);
  const notes = await db.createCollection('notes', schema);
  const embedding = direction(random(1), dim);
  const meta = { list: [1, -2.5, 'three', null, true], nested: { big: 2 ** 40, text: 'ü' } };
  const written = await notes.insert([
    { id: 1, title: 'first', done: true, year: -5, weight: 0.1, meta, embedding, extra: 'dynamic', count: 3, tags: ['a', { b: 1 }] },
    { id: Number.MAX_SAFE_INTEGER, title: 'läst', embedding: [...embedding] },
  ]);
  assert.equal(written.count, 2);
  assert.equal(typeof written.timestamp, 'bigint');
  assert.ok(Math.abs(Number(written.timestamp >> 18n) - Date.now()) < 60_000);
  assert.equal(typeof written.lsn, 'number');

  const [first, second] = await notes.get([1, Number.MAX_SAFE_INTEGER], { outputFields: ['*'] });
  assert.deepEqual({ ...first, embedding: [...first.embedding] }, {
    id: 1, title: 'first', done: true, year: -5, weight: 0.1, meta, embedding: [...embedding], extra: 'dynamic', count: 3, tags: ['a', { b: 1 }],
  });
  assert.ok(first.embedding instanceof Float32Array);
  assert.deepEqual(second, {
    id: Number.MAX_SAFE_INTEGER, title: 'läst', done: false, year: null, weight: null, meta: null, embedding: second.embedding,
  });
  const [plain] = await notes.get([1]);
  assert.equal('embedding' in plain, false);
  assert.equal(plain.extra, 'dynamic');
  assert.deepEqual(await notes.get([1], { outputFields: ['title', 'count'] }), [{ title: 'first', count: 3 }]);
  assert.deepEqual(await notes.get([404]), []);
});

test('every kind of typed array is a vector', async (t) => {
  const db = await memory(t);
  const points = await db.createCollection('points', {
    fields: { id: { type: 'int64', primaryKey: true }, v: { type: 'float_vector', dim: 3, metric: 'L2', index: { type: 'FLAT' } } },
  });
  const kinds = [Float32Array, Float64Array, Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Array];
  await points.insert(kinds.map((kind, id) => ({ id, v: kind.from([1, 2, 3]) })));
  for (const row of await points.query({ outputFields: ['*'] })) assert.deepEqual([...row.v], [1, 2, 3]);
  // A view into a larger buffer is only what it shows.
  await points.upsert([{ id: 0, v: new Float32Array([9, 4, 5, 6, 9]).subarray(1, 4) }]);
  const { hits } = await points.search({ vector: new Int8Array([4, 5, 6]), limit: 1 });
  assert.deepEqual(hits.map(({ key, score, row }) => ({ key, score, row })), [{ key: 0, score: 0, row: { id: 0 } }]);
});

test('insert refuses what is there, upsert replaces it, delete removes it', async (t) => {
  const db = await memory(t);
  const notes = await db.createCollection('notes', schema);
  const rows = makeRows(50);
  await notes.insert(rows);
  await assert.rejects(notes.insert([{ ...rows[0], id: 1000 }, rows[7]]), { name: 'EddyError', kind: 'already_exists', message: /7/ });
  assert.equal(await notes.count(), 50);

  await notes.upsert([{ ...rows[7], title: 'changed' }, { ...rows[0], id: 1000 }]);
  assert.equal(await notes.count(), 51);
  assert.deepEqual((await notes.get([7, 1000])).map((row) => row.title), ['changed', 'row 0']);

  assert.equal((await notes.delete({ keys: [7, 8, 404] })).count, 2);
  assert.equal((await notes.delete({ filter: 'id >= 40 and id < 50' })).count, 10);
  assert.equal(await notes.count(), 39);
  assert.deepEqual(await notes.get([7, 8, 45]), []);
  await notes.insert([rows[7]]);
  assert.deepEqual((await notes.get([7])).map((row) => row.title), ['row 7']);
});

test('query: filter, order by key, limit and offset, count', async (t) => {
  const db = await memory(t);
  const notes = await db.createCollection('notes', schema);
  const rows = makeRows(300);
  // In three batches and out of order, so that order comes from the key.
  await notes.insert(rows.slice(200));
  await notes.insert(rows.slice(0, 100));
  await notes.upsert(rows.slice(100, 200).map((row) => ({ ...row, done: true, meta: { kind: row.id % 2 ? 'odd' : 'even' } })));
  const keys = async (request) => (await notes.query(request)).map((row) => row.id);
  assert.deepEqual(await keys({}), rows.map((row) => row.id));
  assert.deepEqual(await keys({ limit: 3, offset: 98 }), [98, 99, 100]);
  assert.deepEqual(await keys({ filter: 'done == true', limit: 2 }), [100, 101]);
  assert.deepEqual(await keys({ filter: "title like 'row 29%' and year is not null", limit: 4 }), [29, 290, 291, 292]);
  assert.deepEqual(await keys({ filter: "meta['kind'] == 'odd' and id > 190" }), [191, 193, 195, 197, 199]);
  assert.equal(await notes.count({ filter: 'year >= 1950' }), rows.filter((row) => row.year >= 1950).length);
  assert.equal(await notes.count({ filter: 'weight * 2 + 1 > 2.5' }), rows.filter((row) => row.weight * 2 + 1 > 2.5).length);
  assert.deepEqual(await notes.query({ filter: 'id == 5', outputFields: ['year'] }), [{ year: rows[5].year }]);
});

test('collections: made, listed, described, dropped', async (t) => {
  const db = await memory(t);
  await db.createCollection('b', schema);
  const a = await db.createCollection('a', { fields: { word: { type: 'varchar', primaryKey: true }, v: { type: 'float_vector', dim: 2 } } });
  assert.deepEqual(await db.collections(), ['a', 'b']);
  assert.deepEqual(await a.schema(), {
    fields: {
      word: { type: 'varchar', primaryKey: true, maxLength: 65535 },
      v: { type: 'float_vector', dim: 2, metric: 'COSINE', index: { type: 'HNSW', m: 16, efConstruction: 200 } },
    },
    dynamic: false,
  });
  const described = await db.collection('b').schema();
  assert.deepEqual(Object.keys(described.fields), Object.keys(schema.fields));
  assert.equal(described.fields.done.default, false);
  assert.equal(described.dynamic, true);

  await assert.rejects(db.createCollection('a', schema), { kind: 'already_exists' });
  await assert.rejects(db.createCollection('a', schema, { ifNotExists: true }), { kind: 'already_exists', message: /schema/ });
  await db.createCollection('b', schema, { ifNotExists: true });
  await db.collection('b').insert(makeRows(3));
  await db.dropCollection('b');
  assert.deepEqual(await db.collections(), ['a']);
  await assert.rejects(db.collection('b').count(), { kind: 'not_found' });
  await assert.rejects(db.dropCollection('b'), { kind: 'not_found' });
  const again = await db.createCollection('b', schema);
  assert.equal(await again.count(), 0);
});

test('text keys', async (t) => {
  const db = await memory(t);
  const words = await db.createCollection('words', { fields: { word: { type: 'varchar', primaryKey: true }, v: { type: 'float_vector', dim: 2 } } });
  await words.insert([{ word: 'rain', v: [1, 0] }, { word: "it's", v: [0, 1] }]);
  const { hits } = await words.search({ vector: [0, 2], limit: 1 });
  assert.equal(hits[0].key, "it's");
  assert.deepEqual(await words.get(["it's", 'sun', 'rain']), [{ word: "it's" }, { word: 'rain' }]);
  assert.equal((await words.delete({ keys: ['rain', 'sun'] })).count, 1);
});

test('int64 past what a number holds: an error by default, a bigint on request', async (t) => {
  const big = 2n ** 63n - 1n;
  const fields = { id: { type: 'int64', primaryKey: true }, n: { type: 'int64', nullable: true }, v: { type: 'float_vector', dim: 1 } };
  const plain = await memory(t);
  const numbers = await plain.createCollection('numbers', { fields });
  await numbers.insert([{ id: 1, n: big, v: [1] }, { id: 2, n: 7n, v: [1] }]);
  await assert.rejects(numbers.get([1]), { kind: 'invalid_argument', message: /"n".*9223372036854775807.*bigint/ });
  assert.deepEqual(await numbers.get([2]), [{ id: 2, n: 7 }]);
  await assert.rejects(numbers.insert([{ id: 3, n: 2n ** 63n, v: [1] }]), { kind: 'invalid_argument', message: /row 0.*"n".*64 bits/ });

  const exact = await memory(t, { bigint: true });
  const bigints = await exact.createCollection('numbers', { fields });
  await bigints.insert([{ id: -(2n ** 63n), n: big, v: [1] }, { id: 2, n: 2 ** 33, v: [1] }, { id: 3n, v: [1] }]);
  assert.deepEqual(await bigints.query(), [{ id: -(2n ** 63n), n: big }, { id: 2n, n: 2n ** 33n }, { id: 3n, n: null }]);
  assert.deepEqual((await bigints.get([2n, 3])).map((row) => row.id), [2n, 3n]);
  const { hits } = await bigints.search({ vector: [1], limit: 3 });
  assert.deepEqual(hits.map((hit) => hit.key).sort(), [-(2n ** 63n), 2n, 3n].sort());
});

test('changes are told, until they are no longer asked for', async (t) => {
  const db = await memory(t);
  const notes = await db.createCollection('notes', schema);
  const rows = makeRows(3);
  const events = [];
  let heard;
  const stop = notes.onChange((event) => (events.push(event), heard?.()));
  const { lsn } = await notes.insert(rows.slice(0, 1));
  while (events.at(-1)?.lsn !== lsn) await new Promise((resolve) => (heard = resolve));
  assert.ok(events.every((event) => event.collection === 'notes'));
  stop();
  stop();
  const told = events.length;
  await notes.insert(rows.slice(1, 2));
  await notes.stats();
  assert.equal(events.length, told);
});

test('statistics', async (t) => {
  const db = await memory(t);
  const notes = await db.createCollection('notes', schema);
  await notes.insert(makeRows(100));
  await notes.delete({ keys: [1] });
  const stats = await notes.stats();
  assert.equal(stats.name, 'notes');
  assert.equal(stats.rows, 99);
  assert.ok(stats.memoryBytes > 100 * dim * 4);
  const all = await db.stats();
  assert.ok(Number.isSafeInteger(all.replicaId) && all.replicaId > 0);
  assert.deepEqual(all.collections.map(({ name, rows }) => ({ name, rows })), [{ name: 'notes', rows: 99 }]);
  assert.equal(all.maintenanceError, undefined);
});
