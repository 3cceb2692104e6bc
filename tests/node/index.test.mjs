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
    stored: { type: 'float_vector', dim, metric: 'L2', index: { type: 'DISKANN', maxDegree: 32, searchListSize: 60 } },
    any: { type: 'float_vector', dim, metric: 'IP', index: { type: 'AUTOINDEX' } },
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
        const all = await notes.search({ ...request, nprobe: 16, reorderK: 900, searchList: 900 });
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
  await refused({ type: 'float_vector', dim, index: { type: 'BTREE' } }, /"BTREE".*IVF_SQ8/);
  await refused({ type: 'binary_vector', dim, index: { type: 'IVF_FLAT' } }, /IVF_FLAT.*binary_vector can have.*BIN_IVF_FLAT/);
  const notes = await db.createCollection('y', { fields: { id: { type: 'int64', primaryKey: true }, v: plain } });
  await assert.rejects(notes.search({ vector: Array(dim).fill(0), nprobe: 0 }), { kind: 'invalid_argument', message: /nprobe 0/ });
});
