import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

import { random } from '../support/vectors.mjs';

const dim = 16;
const rows = 1_500;

async function memory(t) {
  const db = await open({ name: 'index', storage: 'memory' });
  t.after(() => db.close());
  return db;
}

async function indexed(collection) {
  for (let tries = 0; (await collection.stats()).rowsUnindexed > 0; tries += 1) {
    assert.ok(tries < 2_000, 'the index is never done');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const plain = { type: 'float_vector', dim, metric: 'L2', index: { type: 'IVF_FLAT', nlist: 16 } };
const collections = [
  {
    plain,
    bytes: { type: 'float16_vector', dim, index: { type: 'IVF_SQ8', nlist: 16 } },
    bits: { type: 'int8_vector', dim, metric: 'IP', index: { type: 'IVF_RABITQ', nlist: 16 } },
    binary: { type: 'binary_vector', dim: dim * 8, index: { type: 'BIN_IVF_FLAT', nlist: 16 } },
  },
  {
    words: { type: 'float_vector', dim, index: { type: 'IVF_PQ', nlist: 16, m: 8, nbits: 8 } },
    scann: { type: 'bfloat16_vector', dim, index: { type: 'SCANN', nlist: 16 } },
    stored: { type: 'float_vector', dim, metric: 'L2', index: { type: 'DISKANN', maxDegree: 32, searchListSize: 60, codes: 'sq8' } },
    any: { type: 'float_vector', dim, metric: 'IP', index: { type: 'AUTOINDEX' } },
  },
  {
    graph: { type: 'float_vector', dim, index: { type: 'HNSW', m: 8, efConstruction: 60, codes: 'pq', numSubVectors: 8, nbits: 8 } },
    half: { type: 'float16_vector', dim, metric: 'L2', index: { type: 'HNSW', m: 8, efConstruction: 60, codes: 'pq', numSubVectors: 16, nbits: 4 } },
  },
];

test('indexes of every kind are built, described and searched', async (t) => {
  const db = await memory(t);
  const next = random(5);
  const integers = () => Array.from({ length: dim }, () => Math.floor(next() * 200) - 100);
  for (const [number, fields] of collections.entries()) {
    const notes = await db.createCollection(`notes${number}`, { fields: { id: { type: 'int64', primaryKey: true }, ...fields } });
    const vector = (field) => (field === 'binary' ? Uint8Array.from(integers(), (x) => x & 255) : integers());
    const made = Array.from({ length: rows }, (_, id) => ({
      id, ...Object.fromEntries(Object.keys(fields).map((field) => [field, vector(field)])),
    }));
    await notes.insert(made);
    await indexed(notes);
    const described = (await notes.schema()).fields;
    for (const field of Object.keys(fields)) {
      assert.deepEqual(described[field].index, fields[field].index);
      for (const id of [0, 700, rows - 1]) {
        const request = { vector: made[id][field], field, limit: 5 };
        const exact = await notes.search({ ...request, exact: true });
        const all = await notes.search({ ...request, nprobe: 16, reorderK: 900, ef: 900 });
        assert.deepEqual(all.hits, exact.hits, field);
        const usual = await notes.search(request);
        assert.equal(usual.hits[0].key, exact.hits[0].key, field);
      }
    }
  }
});

test('what a field cannot have is refused with what it can', async (t) => {
  const db = await memory(t);
  const refused = (field, message) =>
    assert.rejects(db.createCollection('x', { fields: { id: { type: 'int64', primaryKey: true }, v: field } }), { kind: 'invalid_argument', message });
  await refused({ type: 'float_vector', dim, index: { type: 'IVF_FLAT', m: 4 } }, /IVF_FLAT takes nlist, not m/);
  await refused({ type: 'float_vector', dim, index: { type: 'IVF_FLAT', nlist: 0 } }, /nlist 0.*1 to 65536/);
  await refused({ type: 'float_vector', dim, index: { type: 'IVF_PQ' } }, /IVF_PQ needs m/);
  await refused({ type: 'float_vector', dim, index: { type: 'IVF_PQ', m: 5 } }, /m 5.*divides the dimension 16/);
  await refused({ type: 'float_vector', dim, index: { type: 'HNSW', codes: 'pq' } }, /codes pq need numSubVectors/);
  await refused({ type: 'float_vector', dim, index: { type: 'HNSW', codes: 'pq', numSubVectors: 5 } }, /numSubVectors 5.*divides the dimension 16/);
  await refused({ type: 'float_vector', dim, index: { type: 'HNSW', numSubVectors: 4 } }, /HNSW takes m.*not numSubVectors/);
  await refused({ type: 'float_vector', dim, index: { type: 'HNSW', codes: 'zip' } }, /codes "zip"; there are sq8, rabitq and pq/);
  await refused({ type: 'float_vector', dim, index: { type: 'BTREE' } }, /"BTREE".*IVF_SQ8/);
  await refused({ type: 'binary_vector', dim, index: { type: 'IVF_FLAT' } }, /IVF_FLAT.*binary_vector can have.*BIN_IVF_FLAT/);
  const notes = await db.createCollection('y', { fields: { id: { type: 'int64', primaryKey: true }, v: plain } });
  await assert.rejects(notes.search({ vector: Array(dim).fill(0), nprobe: 0 }), { kind: 'invalid_argument', message: /nprobe 0/ });
});

test('indexes that come and go on a living collection', async (t) => {
  const db = await open({ name: 'living', storage: 'memory' });
  t.after(() => db.close());
  const schema = {
    fields: {
      id: { type: 'int64', primaryKey: true },
      n: { type: 'int32', nullable: true },
      tags: { type: 'array', elementType: 'varchar', index: { type: 'INVERTED' } },
      meta: { type: 'json' },
      v: { type: 'float_vector', dim: 2, metric: 'L2', index: { type: 'FLAT' } },
    },
    dynamic: true,
  };
  const items = await db.createCollection('items', schema);
  const rows = Array.from({ length: 2500 }, (_, id) => ({
    id,
    n: id % 3 ? id % 50 : null,
    tags: [`t${id % 5}`, `t${id % 7}`],
    meta: { size: { cm: id % 2 ? id % 90 : 'L' } },
    v: [Math.sin(id), Math.cos(id * 1.7)],
    color: id % 4 ? 'red' : 'blue',
  }));
  await items.insert(rows);
  await items.flush();
  const filters = ['n == 7', 'n > 40 or n is null', "array_contains(tags, 't3')", 'meta["size"]["cm"] > 80', "color == 'blue' and n < 9", 'exists color'];
  const ask = async () => {
    const found = await Promise.all(filters.map((filter) => items.count({ filter })));
    const { hits } = await items.search({ vector: [0.5, 0.5], limit: 5, ef: 2500, nprobe: 2500, reorderK: 2500 });
    return { found, keys: hits.map(({ key }) => key) };
  };
  const expected = await ask();
  assert.equal(expected.found[2], rows.filter(({ tags }) => tags.includes('t3')).length);
  const built = async () => {
    while ((await items.stats()).rowsUnindexed > 0) await new Promise((resolve) => setImmediate(resolve));
  };
  await items.createIndex('n', { type: 'STL_SORT' });
  await items.createIndex('meta["size"]["cm"]', { type: 'INVERTED' });
  await items.createIndex('color', { type: 'BITMAP' });
  assert.deepEqual(await ask(), expected);
  const { indexes } = await items.schema();
  assert.deepEqual(indexes, { '$meta["color"]': { type: 'BITMAP' }, 'meta["size"]["cm"]': { type: 'INVERTED' } });
  const again = await db.createCollection('again', await items.schema());
  assert.deepEqual(await again.schema(), await items.schema());
  const wrong = (indexes) => db.createCollection('wrong', { ...schema, indexes });
  await assert.rejects(wrong({ 'n["x"]': { type: 'INVERTED' } }), (error) => error.kind === 'invalid_argument' && error.message.includes('a place in JSON'));
  await assert.rejects(wrong({ color: { type: 'HNSW' } }), (error) => error.kind === 'invalid_argument');
  await items.createIndex('v', { type: 'IVF_SQ8', nlist: 16 });
  assert.deepEqual((await items.schema()).fields.v.index, { type: 'IVF_SQ8', nlist: 16 });
  assert.deepEqual(await ask(), expected);
  await built();
  assert.deepEqual(await ask(), expected);
  assert.ok((await items.search({ vector: [1, 0] })).segmentsByIndex > 0);
  await items.dropIndex('v');
  await items.dropIndex('color');
  assert.deepEqual(await ask(), expected);
  assert.equal((await items.search({ vector: [1, 0] })).segmentsByIndex, 0);
  await items.createIndex('v', { type: 'HNSW', m: 8, metric: 'IP' });
  assert.equal((await items.search({ vector: [1, 0], limit: 1 })).hits[0].score.toFixed(3), '1.000');
  await assert.rejects(items.dropIndex('color'), (error) => error.kind === 'not_found');
  await assert.rejects(items.createIndex('meta["size"', { type: 'INVERTED' }), (error) => error.kind === 'invalid_argument');
  await assert.rejects(items.createIndex('v', { type: 'TRIE' }), (error) => error.kind === 'invalid_argument');
});
