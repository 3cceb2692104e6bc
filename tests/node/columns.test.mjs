// Vectors that go beside their rows: a field that is a Float32Array of one length in every row of a batch. What comes back, and what is
// refused, is the same as of rows that hold their vectors.

import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

import { direction, random } from '../support/vectors.mjs';

const dim = 8;
const fields = {
  id: { type: 'int64', primaryKey: true },
  first: { type: 'float_vector', dim, metric: 'L2' },
  second: { type: 'float_vector', dim: 3, metric: 'L2' },
  maybe: { type: 'float_vector', dim, metric: 'L2', nullable: true },
  half: { type: 'float16_vector', dim, metric: 'L2', nullable: true },
};

async function empty(t) {
  const db = await open({ name: 'columns', storage: 'memory' });
  t.after(() => db.close());
  return db.createCollection('rows', { fields, dynamic: true });
}

/** Rows all of whose vectors are typed arrays, as parts of larger ones. */
function rowsOf(count, from = 0) {
  const next = random(from + 1);
  return Array.from({ length: count }, (_, at) => {
    const whole = Float32Array.from([...direction(next, dim), ...direction(next, 3)]);
    const half = Float32Array.from({ length: dim }, (_, i) => (i + (at % 100)) / 4);
    return { id: from + at, first: whole.subarray(0, dim), second: whole.subarray(dim), half, loose: Float32Array.of(at, 0.5) };
  });
}

async function check(rows, expected) {
  const got = await rows.get(expected.map(({ id }) => id), { outputFields: ['*'] });
  const plain = (row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, ArrayBuffer.isView(value) ? [...value] : value]));
  const filled = (row) => ({ maybe: null, half: null, ...plain(row) });
  assert.deepEqual(got.map(plain), expected.map(filled));
}

test('columns come back as the vectors of their rows', async (t) => {
  const rows = await empty(t);
  const typed = rowsOf(50);
  await rows.insert(typed);
  await check(rows, typed);
  // The caller's arrays are still the caller's.
  assert.ok(typed.every(({ first, second }) => first.length === dim && second.length === 3));
  const one = rowsOf(1, 100);
  const nullable = rowsOf(5, 200).map((row) => ({ ...row, maybe: row.first }));
  await rows.batch([{ insert: one }, { upsert: nullable }, { delete: { keys: [0, 1] } }]);
  await check(rows, [...one, ...nullable]);
  assert.equal(await rows.count(), 54);
  const { hits } = await rows.search({ field: 'first', vector: nullable[3].first, limit: 1, exact: true });
  assert.equal(hits[0].key, 203);
});

test('rows that are not alike hold their vectors', async (t) => {
  const rows = await empty(t);
  const mixed = rowsOf(6).map((row, at) => (at === 3 ? { ...row, first: [...row.first], second: Float64Array.from(row.second) } : row));
  mixed[4] = { id: 4, first: mixed[4].first, second: mixed[4].second };
  await rows.insert(mixed);
  await check(rows, mixed);
});

test('what is wrong in a column is told of its row', async (t) => {
  const rows = await empty(t);
  const wrong = (change, words) => {
    const batch = rowsOf(4);
    change(batch);
    return assert.rejects(rows.insert(batch), (error) => error.kind === 'invalid_argument' && words.test(error.message));
  };
  await wrong((batch) => (batch[2].first[5] = NaN), /row 2, field "first": number 5 is NaN/);
  await wrong((batch) => batch.forEach((row) => (row.first = row.first.subarray(1))), /row 0, field "first": a vector of 7 numbers, expected 8/);
  await wrong((batch) => (batch[1].second = Float32Array.of(1, 2)), /row 1, field "second": a vector of 2 numbers, expected 3/);
  await wrong((batch) => delete batch[3].first, /row 3, field "first"/);
  await wrong((batch) => (batch[1] = null), /row 1: an object expected/);
  await wrong((batch) => (batch[3].id = 1), /key 1 occurs twice/);
  assert.equal(await rows.count(), 0);
});

test('batches whose memory is used again leave nothing of each other', async (t) => {
  const rows = await empty(t);
  // Long enough that their memory comes back, each shorter than the one before, and a longer one in the end.
  const sizes = [3000, 2500, 2000, 1600, 3500];
  const batches = sizes.map((count, at) => rowsOf(count, at * 10_000));
  for (const batch of batches) await rows.insert(batch);
  const wrong = rowsOf(2000, 60_000);
  wrong[1999].first[0] = Infinity;
  const [, refused, ...more] = await Promise.allSettled([
    rows.insert(rowsOf(2500, 70_000)), rows.insert(wrong), rows.insert(rowsOf(2200, 80_000)), rows.upsert(batches[4]),
  ]);
  assert.match(refused.reason.message, /row 1999, field "first"/);
  assert.deepEqual(more.map(({ status }) => status), ['fulfilled', 'fulfilled']);
  for (const batch of [...batches, rowsOf(2500, 70_000), rowsOf(2200, 80_000)]) await check(rows, batch);
});
