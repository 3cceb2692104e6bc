// Each bad input gives an error with a kind, and a message that says where. Nothing is half done afterwards.

import assert from 'node:assert/strict';
import test from 'node:test';

import { EddyError, open } from 'eddydb';
import { source } from 'eddydb/plan';

import { dim, direction, makeRows, random, strictSchema } from '../support/vectors.mjs';

const good = () => ({ id: 1, title: 'good', embedding: direction(random(3), dim) });

test('bad rows are refused whole', async (t) => {
  const db = await open({ name: 'errors', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', strictSchema);
  const refused = async (row, pattern) => {
    for (const method of ['insert', 'upsert']) {
      await assert.rejects(
        () => notes[method]([good(), { ...good(), id: 2, ...row }]),
        (error) => {
          assert.ok(error instanceof EddyError);
          assert.equal(error.kind, 'invalid_argument', error.message);
          assert.match(error.message, pattern);
          assert.match(error.message, /row 1/);
          return true;
        },
      );
    }
  };
  await refused({ embedding: [1, 2, 3] }, /embedding.*3|3.*embedding/s);
  await refused({ embedding: Float32Array.from({ length: dim }, (_, i) => (i === 5 ? NaN : 0)) }, /embedding.*NaN/s);
  await refused({ embedding: Array.from({ length: dim }, (_, i) => (i === 6 ? Infinity : 0)) }, /embedding.*inf/is);
  await refused({ embedding: Float64Array.from({ length: dim }, () => 1e300) }, /embedding.*inf/is);
  await refused({ embedding: Array.from({ length: dim }, () => '1') }, /embedding/);
  await refused({ embedding: undefined }, /embedding/);
  await refused({ embedding: null }, /embedding/);
  await refused({ embedding: 'text' }, /embedding/);
  await refused({ embedding: new BigInt64Array(dim) }, /embedding/);
  await refused({ id: 1 }, /1/); // twice in one batch
  await refused({ id: undefined }, /id/);
  await refused({ id: 'one' }, /id/);
  await refused({ id: 1.5 }, /id/);
  await refused({ id: null }, /id/);
  await refused({ id: 2n ** 64n }, /id/);
  await refused({ colour: 'red' }, /colour/);
  await refused({ title: 7 }, /title/);
  await refused({ title: undefined }, /title/);
  await refused({ title: null }, /title/);
  await refused({ title: 'ü'.repeat(21) }, /title.*42.*40|title.*40.*42/s);
  await refused({ done: 'yes' }, /done/);
  await refused({ year: 1999.5 }, /year/);
  await refused({ weight: 'heavy' }, /weight/);
  await refused({ year: new Date(0) }, /year.*Date/);
  await refused({ year: new Date(NaN) }, /year.*Date/);
  await refused({ meta: new Date(0) }, /meta.*Date/);
  await refused({ year: () => 1 }, /year/);
  for (const rows of [[7], [null], [[1]], [new Float32Array(2)]]) {
    await assert.rejects(notes.insert(rows), { kind: 'invalid_argument', message: /row 0/ });
  }
  for (const rows of [undefined, null, good(), 'rows']) await assert.rejects(notes.insert(rows), { kind: 'invalid_argument' });
  let deep = 1;
  for (let level = 0; level < 5000; level++) deep = [deep];
  await assert.rejects(notes.insert([{ ...good(), meta: deep }]), { kind: 'invalid_argument' });
  assert.equal(await notes.count(), 0);
  await notes.insert([good()]);
  assert.equal(await notes.count(), 1);
});

test('an oversized batch is refused, and says how much is too much', async (t) => {
  const db = await open({ name: 'oversized', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', { fields: { id: { type: 'int64', primaryKey: true }, v: { type: 'float_vector', dim: 32768 } } });
  const v = new Float32Array(32768).fill(0.5);
  // 2,600 vectors of 128 KiB: 325 MiB.
  const rows = Array.from({ length: 2600 }, (_, id) => ({ id, v }));
  await assert.rejects(notes.insert(rows), { kind: 'invalid_argument', message: /\d/ });
  assert.equal(await notes.count(), 0);
  await notes.insert(rows.slice(0, 10));
});

test('a broken filter shows where', async (t) => {
  const db = await open({ name: 'filters', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', strictSchema);
  await notes.insert(makeRows(3));
  const cases = [
    ['year >', 6],
    ['year > 5 and and done', 13],
    ["title == 'open", 9],
    ['colour == 1', 0],
    ['(year > 5', 9],
    ['year > 5 )', 9],
    ["year like 'a%'", 0],
  ];
  for (const [filter, position] of cases) {
    for (const ask of [() => notes.query({ filter }), () => notes.count({ filter }), () => notes.delete({ filter }), () => notes.search({ vector: new Float32Array(dim), filter })]) {
      await assert.rejects(ask, (error) => {
        assert.ok(error instanceof EddyError);
        assert.equal(error.kind, 'invalid_argument', `${filter}: ${error.message}`);
        assert.ok(Number.isInteger(error.position), `${filter}: ${error.message} at ${error.position}`);
        assert.ok(Math.abs(error.position - position) <= 5, `${filter}: ${error.message} at ${error.position}, expected about ${position}`);
        return true;
      });
    }
  }
  assert.equal(await notes.count(), 3);
});

test('what another entry of the package throws is an error of this one', () => {
  const bad = () => source('notes', { v: { type: 'float_vector', dim: 2 } }).dedupe('v', { radius: 0.1, withinMs: NaN });
  assert.throws(bad, (error) => error instanceof EddyError && error instanceof Error && error.kind === 'invalid_argument');
  for (const other of [new Error('closed'), { kind: 'closed' }, 'closed', null, undefined]) assert.ok(!(other instanceof EddyError));
});

test('bad requests', async (t) => {
  const db = await open({ name: 'requests', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', strictSchema);
  const vector = new Float32Array(dim);
  const invalid = (promise, message) => assert.rejects(promise, { name: 'EddyError', kind: 'invalid_argument', message });
  await invalid(notes.search({ vector: [1, 2] }), /2/);
  await invalid(notes.search({ vector: new Float32Array(dim).fill(NaN) }), /NaN/i);
  await invalid(notes.search({}), /vector/);
  await invalid(notes.search({ vector, limit: 0 }), /limit/);
  await invalid(notes.search({ vector, limit: 1_000_000 }), /limit|16,?384/);
  await invalid(notes.search({ vector, limit: -1 }), /limit|integer/);
  await invalid(notes.search({ vector, limit: 1.5 }), /limit|integer|float/);
  await invalid(notes.search({ vector, field: 'title' }), /title/);
  await invalid(notes.search({ vector, fliter: 'done' }), /fliter/);
  await invalid(notes.search({ vector, outputFields: ['colour'] }), /colour/);
  await invalid(notes.query({ outputFields: 'title' }), /./);
  await invalid(notes.query({ filter: 7 }), /./);
  await invalid(notes.count({ filter: 7 }), /filter/);
  await invalid(notes.get('1'), /./);
  await invalid(notes.get([1.5]), /key 0/);
  await invalid(notes.get([{}]), /key 0/);
  await invalid(notes.get(['one']), /id|int/);
  await invalid(notes.delete({}), /neither/);
  await invalid(notes.delete({ keys: [1], filter: 'done' }), /both/);
  await assert.rejects(db.collection('nothing').count(), { kind: 'not_found', message: /nothing/ });
});

test('bad schemas', async (t) => {
  const db = await open({ name: 'schemas', storage: 'memory' });
  t.after(() => db.close());
  const id = { type: 'int64', primaryKey: true };
  const v = { type: 'float_vector', dim: 2 };
  const cases = [
    [undefined, /schema/],
    [{}, /fields/],
    [{ fields: {} }, /primaryKey/],
    [{ fields: { id: { type: 'int64' }, v } }, /primaryKey/],
    [{ fields: { id, other: id, v } }, /other/],
    [{ fields: { id: { type: 'double', primaryKey: true }, v } }, /id/],
    [{ fields: { id: { ...id, nullable: true }, v } }, /id/],
    [{ fields: { id, v: { type: 'float_vector' } } }, /"v".*dim/],
    [{ fields: { id, v: { type: 'float_vector', dim: 0 } } }, /v/],
    [{ fields: { id, v: { type: 'float_vector', dim: 40_000 } } }, /v/],
    [{ fields: { id, v: { ...v, nullable: true, index: { type: 'BIN_FLAT' } } } }, /"v".*BIN_FLAT.*may be null can have/],
    [{ fields: { id, v: { ...v, metric: 'DOT' } } }, /DOT/],
    [{ fields: { id, v: { ...v, index: { type: 'TREE' } } } }, /TREE/],
    [{ fields: { id, v: { ...v, index: { type: 'HNSW', m: 1 } } } }, /"v".*M 1.*2 to/],
    [{ fields: { id, v: { ...v, dims: 3 } } }, /dims/],
    [{ fields: { id, v, n: { type: 'text' } } }, /text/],
    [{ fields: { id, v, n: { type: 'int64', default: 'x' } } }, /n/],
    [{ fields: { id, v, n: { type: 'int64', maxLength: 3 } } }, /"n".*maxLength/],
    [{ fields: { id, v, 'no spaces': { type: 'bool' } } }, /no spaces/],
    [{ fields: { id, v }, dynamik: true }, /dynamik/],
  ];
  for (const [schema, message] of cases) {
    await assert.rejects(
      (async () => db.createCollection('bad', schema))(),
      (error) => error.kind === 'invalid_argument' && message.test(error.message) || assert.fail(`${JSON.stringify(schema)}: ${error.kind}: ${error.message}`),
    );
  }
  await assert.rejects(db.createCollection('', { fields: { id, v } }), { kind: 'invalid_argument' });
  assert.deepEqual(await db.collections(), []);
});

test('bad options', async () => {
  for (const [options, message] of [
    [{}, /name/],
    [{ name: '' }, /name/],
    [{ name: '../up' }, /name/],
    [{ name: 'a', storage: 'opfs' }, /storage.*files/],
    [{ name: 'a', storage: 'files' }, /path/],
    [{ name: 'a', storage: 'memory', path: '/tmp/x' }, /path/],
    [{ name: 'a', durability: 'maybe' }, /durability/],
  ]) {
    await assert.rejects(open(options), { name: 'EddyError', kind: 'invalid_argument', message }, JSON.stringify(options));
  }
});

test('a closed database says so', async () => {
  const db = await open({ name: 'closed', storage: 'memory' });
  const notes = await db.createCollection('notes', strictSchema);
  const running = notes.insert(makeRows(200));
  await db.close();
  // What was asked before the close is done.
  assert.equal((await running).count, 200);
  for (const ask of [() => notes.count(), () => db.collections(), () => notes.insert(makeRows(1))]) await assert.rejects(ask, { kind: 'closed' });
  await db.close();
});
