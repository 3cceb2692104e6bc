// Every type of field through the package: what goes in, what comes back, what filters see, what is refused.

import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

const scalars = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    tiny: { type: 'int8', nullable: true },
    short: { type: 'int16', default: -7 },
    int: { type: 'int32', nullable: true },
    single: { type: 'float', nullable: true },
    at: { type: 'timestamp', nullable: true },
    tags: { type: 'array', elementType: 'varchar', maxLength: 5, maxCapacity: 3, nullable: true },
    counts: { type: 'array', elementType: 'int64', default: [1, 2] },
    times: { type: 'array', elementType: 'timestamp', nullable: true },
  },
};

async function memory(t, options = {}) {
  const db = await open({ name: 'types', storage: 'memory', ...options });
  t.after(() => db.close());
  return db;
}

test('scalars and arrays come back as they went in', async (t) => {
  const db = await memory(t);
  const rows = await db.createCollection('rows', scalars);
  const day = new Date('2024-05-01T12:30:00.250Z');
  await rows.insert([
    { id: 1, tiny: -128, short: 32767, int: 2 ** 31 - 1, single: 0.1, at: day, tags: ['a', 'bc'], counts: [], times: [day, '1970-01-01T00:00:01Z', -5] },
    { id: 2, at: '1684-07-29T00:00:00+00:00' },
    { id: 3, at: 8_000_000_000_000_000n, tags: [] },
  ]);
  const [first, second, third] = await rows.query();
  assert.deepEqual(first, {
    id: 1, tiny: -128, short: 32767, int: 2 ** 31 - 1, single: Math.fround(0.1), at: day.getTime() * 1000,
    tags: ['a', 'bc'], counts: [], times: [day.getTime() * 1000, 1_000_000, -5],
  });
  assert.deepEqual(second, { id: 2, tiny: null, short: -7, int: null, single: null, at: second.at, tags: null, counts: [1, 2], times: null });
  assert.equal(new Date(second.at / 1000).toISOString(), '1684-07-29T00:00:00.000Z');
  assert.deepEqual([third.at, third.tags], [8_000_000_000_000_000, []]);
  assert.deepEqual((await rows.schema()).fields, {
    ...scalars.fields,
    times: { ...scalars.fields.times, maxCapacity: 4096 },
    counts: { ...scalars.fields.counts, maxCapacity: 4096 },
  });
});

test('with bigint, wide integers are read as such, in arrays too', async (t) => {
  const db = await memory(t, { bigint: true });
  const rows = await db.createCollection('rows', scalars);
  await rows.insert([{ id: 1, tiny: 1, counts: [2n ** 62n, 3], times: [new Date(1)], at: new Date(2) }, { id: 2, at: '0001-01-01T00:00:00Z' }]);
  const [row, old] = await rows.query();
  assert.equal(old.at, -62_135_596_800_000_000n);
  assert.deepEqual([row.id, row.tiny, row.counts, row.times, row.at], [1n, 1, [2n ** 62n, 3n], [1000n], 2000n]);
  const plain = await memory(t);
  const narrow = await plain.createCollection('rows', scalars);
  await narrow.insert([{ id: 1, counts: [2n ** 62n] }]);
  await assert.rejects(narrow.query(), { kind: 'invalid_argument', message: /counts.*bigint: true/ });
});

test('filters read them', async (t) => {
  const db = await memory(t);
  const rows = await db.createCollection('rows', scalars);
  await rows.insert([
    { id: 1, tiny: 5, single: 0.1, at: '2024-05-01T00:00:00Z', tags: ['red', 'blue'], counts: [10, 20, 30] },
    { id: 2, tiny: -5, single: 2, at: '2025-05-01T00:00:00Z', tags: [] },
    { id: 3 },
  ]);
  const keys = async (filter) => (await rows.query({ filter })).map((row) => row.id);
  for (const [filter, expected] of [
    ['tiny * 100 > 400', [1]],
    ['tiny in [5, -5]', [1, 2]],
    ['single == 0.1', [1]],
    ["at < ISO '2024-05-02T00:00:00Z' and at + INTERVAL 'P1D' > ISO '2024-05-01T12:00:00Z'", [1]],
    ["array_contains(tags, 'red')", [1]],
    ["array_contains_all(tags, ['red', 'blue'])", [1]],
    ['array_contains_any(counts, [2, 30])', [1, 2, 3]],
    ['array_length(tags) == 0', [2]],
    ['counts[0] == 10', [1]],
    ["tags[1] like 'b%'", [1]],
    ['tags is null', [3]],
  ]) {
    assert.deepEqual(await keys(filter), expected, filter);
  }
  await assert.rejects(rows.query({ filter: 'array_contains(tags, 1)' }), { kind: 'invalid_argument', message: /strings/ });
});

test('what does not fit is refused with its row and field', async (t) => {
  const db = await memory(t);
  const rows = await db.createCollection('rows', scalars);
  const refused = (row, pattern) =>
    assert.rejects(rows.insert([{ id: 1 }, { id: 2, ...row }]), (error) => {
      assert.equal(error.kind, 'invalid_argument', error.message);
      assert.match(error.message, /row 1/);
      assert.match(error.message, pattern);
      return true;
    });
  await refused({ tiny: 128 }, /tiny.*128 is out of range, expected -128 to 127/);
  await refused({ tiny: 1.5 }, /tiny.*expected an int8/);
  await refused({ short: -32769 }, /short.*out of range/);
  await refused({ int: 2 ** 31 }, /int.*out of range/);
  await refused({ single: 1e39 }, /single.*beyond the range of a float/);
  await refused({ single: NaN }, /single.*NaN/);
  await refused({ at: 'noon' }, /at.*RFC 3339/);
  await refused({ at: new Date(8.64e15) }, /at.*out of range/);
  await refused({ int: new Date() }, /int.*a Date is for a timestamp field/);
  await refused({ tags: ['a', 'b', 'c', 'd'] }, /tags.*4 values, at most 3/);
  await refused({ tags: ['a', 'too long'] }, /tags.*value 1: a string of 8 bytes, at most 5/);
  await refused({ tags: ['a', null] }, /tags.*value 1: null/);
  await refused({ tags: [1] }, /tags.*value 0: expected a string/);
  await refused({ tags: 'a' }, /tags.*expected array/);
  await refused({ counts: [0.5] }, /counts.*value 0: expected an int64/);
  assert.equal(await rows.count(), 0);
  const schema = (field) => ({ fields: { id: { type: 'int64', primaryKey: true }, x: field } });
  for (const [field, pattern] of [
    [{ type: 'array' }, /elementType/],
    [{ type: 'array', elementType: 'json' }, /elementType/],
    [{ type: 'array', elementType: 'int8', maxCapacity: 5000 }, /maxCapacity is 5000/],
    [{ type: 'int8', maxCapacity: 3 }, /maxCapacity is for array/],
    [{ type: 'int8', default: 300 }, /default.*300 is out of range/],
    [{ type: 'int9' }, /unknown type "int9"/],
  ]) {
    await assert.rejects(db.createCollection('bad', schema(field)), { kind: 'invalid_argument', message: pattern });
  }
});
