// Every type of field through the package: what goes in, what comes back, what filters see, what is refused.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

const vectors = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    half: { type: 'float16_vector', dim: 2, metric: 'L2' },
    brain: { type: 'bfloat16_vector', dim: 2, metric: 'IP', nullable: true },
    byte: { type: 'int8_vector', dim: 2, default: [1, -1] },
    bits: { type: 'binary_vector', dim: 16, nullable: true },
  },
  dynamic: true,
};

test('vectors of every type come back as they went in, and are found', async (t) => {
  const db = await memory(t);
  const rows = await db.createCollection('rows', vectors);
  await rows.insert([
    { id: 1, half: [1, 0.1], brain: new Float32Array([1, 0.1]), byte: new Int8Array([-128, 127]), bits: new Uint8Array([15, 0]), extra: 'x' },
    { id: 2, half: new Uint16Array([0x3c00, 0xbc00]), brain: new Uint16Array([0x3f80, 0xbf80]), bits: [7, 0] },
    { id: 3, half: new Float64Array([65504, 0]), brain: null },
  ]);
  const read = await rows.query({ outputFields: ['*'] });
  assert.deepEqual(read[0], {
    id: 1, half: new Float32Array([1, 0.0999755859375]), brain: new Float32Array([1, 0.10009765625]),
    byte: new Int8Array([-128, 127]), bits: new Uint8Array([15, 0]), extra: 'x',
  });
  assert.deepEqual(read[1], {
    id: 2, half: new Float32Array([1, -1]), brain: new Float32Array([1, -1]), byte: new Int8Array([1, -1]), bits: new Uint8Array([7, 0]),
  });
  assert.deepEqual([read[2].brain, read[2].bits], [null, null]);
  // As of every vector: only when it is named.
  assert.deepEqual(await rows.get([1]), [{ id: 1, extra: 'x' }]);

  const nearest = async (field, vector) => (await rows.search({ field, vector })).hits.map(({ key, score }) => [key, score]);
  assert.deepEqual(await nearest('half', [1, -1]), [[2, 0], [1, 1.0999755859375 ** 2], [3, 65503 ** 2 + 1]].map(([key, score]) => [key, Math.fround(score)]));
  assert.deepEqual((await nearest('brain', new Float64Array([1, -1]))).map(([key]) => key), [2, 1]);
  const [[key, cosine]] = await nearest('byte', new Int8Array([-1, 1]));
  assert.ok(key === 1 && Math.abs(cosine - 255 / Math.sqrt(2 * (128 ** 2 + 127 ** 2))) < 1e-6, `${key}: ${cosine}`);
  assert.deepEqual(await nearest('bits', new Uint8Array([3, 0])), [[2, 1], [1, 2]]);
  const { hits } = await rows.search({ field: 'half', vector: [0, 0], limit: 1, filter: 'id > 1' });
  assert.deepEqual(hits[0].row, { id: 2 });
  assert.deepEqual(await rows.count({ filter: "extra == 'x'" }), 1);
});

test('sparse vectors: maps and pairs, found by inner product', async (t) => {
  const db = await memory(t);
  const docs = await db.createCollection('docs', {
    fields: { id: { type: 'int64', primaryKey: true }, terms: { type: 'sparse_float_vector' }, v: { type: 'float_vector', dim: 1, nullable: true } },
  });
  await docs.insert([
    { id: 1, terms: { 5: 0.5, 4294967294: 2 } },
    { id: 2, terms: [[5, 1], [70, 1]], v: [3] },
    { id: 3, terms: {}, v: [-1] },
  ]);
  const [first, second, third] = await docs.query({ outputFields: ['terms', 'v'] });
  assert.deepEqual([first, third.terms], [{ terms: { 5: 0.5, 4294967294: 2 }, v: null }, {}]);
  assert.deepEqual(second, { terms: { 5: 1, 70: 1 }, v: new Float32Array([3]) });
  const { hits } = await docs.search({ field: 'terms', vector: { 5: 2, 70: 1 } });
  // A row that has no index in common with the query is not found.
  assert.deepEqual(hits.map(({ key, score }) => [key, score]), [[2, 3], [1, 1]]);
  const numbers = await docs.search({ field: 'v', vector: [2] });
  assert.deepEqual(numbers.hits.map(({ key, score }) => [key, score]), [[2, 1], [3, -1]]);
});

test('bad vectors are refused with their row and field', async (t) => {
  const db = await memory(t);
  const good = { id: 1, half: [1, 1] };
  const rows = await db.createCollection('rows', vectors);
  const refused = (row, pattern) => assert.rejects(rows.insert([good, { ...good, id: 2, ...row }]), { kind: 'invalid_argument', message: pattern });
  await refused({ half: [1] }, /row 1.*half.*1 numbers, expected 2/);
  await refused({ half: [1, 1e6] }, /row 1.*half.*number 1 is out of range/);
  await refused({ half: [NaN, 1] }, /row 1.*half.*number 0/);
  await refused({ half: new Uint16Array([0x7c00, 0]) }, /row 1.*half.*number 0/);
  await refused({ half: null }, /row 1.*half.*null/);
  await refused({ byte: [1, 128] }, /row 1.*byte.*128, expected an integer from -128 to 127/);
  await refused({ byte: [1, 0.5] }, /row 1.*byte.*0.5/);
  await refused({ byte: new Int8Array(3) }, /row 1.*byte.*3 bytes, expected 2/);
  await refused({ bits: [1, 256] }, /row 1.*bits.*256, expected an integer from 0 to 255/);
  await refused({ bits: new Uint8Array(3) }, /row 1.*bits.*3 bytes, expected 2/);
  assert.equal(await rows.count(), 0);
  await rows.insert([good]);
  await assert.rejects(rows.search({ field: 'bits', vector: [1] }), { kind: 'invalid_argument', message: /query vector.*bits.*1 bytes, expected 2/ });
  await assert.rejects(rows.search({ field: 'half', vector: [1, Infinity] }), { kind: 'invalid_argument', message: /query vector.*number 1 is inf/ });
  await assert.rejects(rows.search({ vector: [1, 1] }), { kind: 'invalid_argument', message: /4 vector fields/ });

  const id = { type: 'int64', primaryKey: true };
  const sparse = await db.createCollection('sparse', { fields: { id, terms: { type: 'sparse_float_vector' } } });
  for (const [terms, pattern] of [
    [[[7, 1], [5, 1]], /terms.*index 5 after 7/],
    [[[7, 1], [7, 1]], /terms.*index 7 after 7/],
    [{ '-1': 1 }, /terms.*expected an index/],
    [{ x: 1 }, /terms.*expected an index/],
    [{ 1: 'a' }, /terms.*expected a number at index 1/],
    [[1, 2], /terms.*pair/],
    [[[1, 1e39]], /terms.*inf at index 1/],
  ]) {
    await assert.rejects(sparse.insert([{ id: 1, terms }]), { kind: 'invalid_argument', message: pattern });
  }
  for (const [v, pattern] of [
    [{ type: 'binary_vector', dim: 12 }, /multiple of 8/],
    [{ type: 'binary_vector', dim: 16, metric: 'L2' }, /L2.*HAMMING or JACCARD/],
    [{ type: 'float_vector', dim: 2, metric: 'HAMMING' }, /HAMMING.*L2 or IP or COSINE/],
    [{ type: 'sparse_float_vector', metric: 'COSINE' }, /COSINE.*IP/],
    [{ type: 'sparse_float_vector', dim: 3 }, /dim is for/],
    [{ type: 'int8_vector' }, /needs its dim/],
    [{ type: 'int8_vector', dim: 2, index: { type: 'BIN_FLAT' } }, /BIN_FLAT.*int8_vector can have/],
    [{ type: 'int4_vector', dim: 2 }, /unknown type/],
  ]) {
    await assert.rejects(db.createCollection('bad', { fields: { id, v } }), { kind: 'invalid_argument', message: pattern });
  }
});

test('all of it survives a restart', async (t) => {
  const path = await mkdtemp(join(tmpdir(), 'eddy-types-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  const fields = { ...scalars.fields, ...vectors.fields, terms: { type: 'sparse_float_vector', nullable: true } };
  const full = {
    id: 1, tiny: 1, short: 2, int: 3, single: 0.5, at: 5, tags: ['a'], counts: [7], times: [8], half: [1, 2], brain: [3, 4], byte: [5, 6], bits: [7, 8], terms: { 9: 10 },
  };
  const expected = {};
  for (const round of [0, 1, 2]) {
    const db = await open({ name: 'types', path });
    const rows = round === 0 ? await db.createCollection('rows', { fields: Object.fromEntries(Object.entries(fields).filter(([name]) => name !== 'brain')) }) : db.collection('rows');
    if (round === 0) {
      delete full.brain;
      await rows.insert([full, { id: 2, half: [0, 0] }]);
      expected.rows = await rows.query({ outputFields: ['*'] });
    }
    // The first time from the log, then from a segment.
    assert.deepEqual(await rows.query({ outputFields: ['*'] }), expected.rows);
    if (round === 1) await rows.flush();
    await db.close();
  }
});
