import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

import { open } from 'eddydb';

const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    title: { type: 'varchar' },
    v: { type: 'float_vector', dim: 2, metric: 'L2', index: { type: 'FLAT' } },
  },
};

const row = (id, title) => ({ id, title, v: [id, 0] });
const titles = (rows) => Object.fromEntries(rows.map(({ id, title }) => [id, title]));
const kind = (kind) => (error) => error.kind === kind || assert.fail(`${error.kind}: ${error.message}, expected ${kind}`);

async function memory(t, options = {}) {
  const db = await open({ name: 'history', storage: 'memory', ...options });
  t.after(() => db.close());
  return { db, notes: await db.createCollection('notes', schema) };
}

test('a snapshot does not move, and ends when it is released', async (t) => {
  const { notes } = await memory(t);
  await notes.insert([row(1, 'a'), row(2, 'a'), row(3, 'a')]);
  const snapshot = await notes.snapshot();
  await notes.upsert([row(1, 'b'), row(4, 'b')]);
  await notes.delete({ keys: [2] });
  await notes.flush();
  assert.deepEqual(titles(await snapshot.query()), { 1: 'a', 2: 'a', 3: 'a' });
  assert.deepEqual(titles(await snapshot.get([4, 2, 1])), { 1: 'a', 2: 'a' });
  assert.equal(await snapshot.count({ filter: "title == 'a'" }), 3);
  assert.deepEqual((await snapshot.search({ vector: [4, 0], limit: 1 })).hits.map((hit) => hit.key), [3]);
  assert.deepEqual(titles(await notes.query()), { 1: 'b', 3: 'a', 4: 'b' });
  const later = await notes.snapshot();
  await snapshot.release();
  await snapshot.release();
  await assert.rejects(snapshot.query(), kind('gone'));
  assert.equal(await later.count(), 3);
  await later[Symbol.asyncDispose]();
});

test('the past can be read inside the retention window, and after it was closed', async (t) => {
  const path = mkdtempSync(join(tmpdir(), 'eddydb-history-'));
  t.after(() => rmSync(path, { recursive: true }));
  const options = { name: 'history', storage: 'files', path, retention: 3_600_000 };
  let db = await open(options);
  let notes = await db.createCollection('notes', schema);
  const first = await notes.insert([row(1, 'a'), row(2, 'a')]);
  await notes.upsert([row(1, 'b')]);
  const second = await notes.delete({ keys: [2] });
  await notes.upsert([row(1, 'c')]);
  for (let opened = 0; opened < 2; opened += 1) {
    assert.deepEqual(titles(await notes.query({ at: first.timestamp })), { 1: 'a', 2: 'a' });
    assert.deepEqual(titles(await notes.query({ at: second.timestamp })), { 1: 'b' });
    assert.deepEqual(titles(await notes.get([1, 2], { at: first.timestamp })), { 1: 'a', 2: 'a' });
    assert.equal(await notes.count({ at: first.timestamp }), 2);
    assert.equal((await notes.search({ vector: [2, 0], at: first.timestamp })).hits.length, 2);
    assert.equal(await notes.count({ at: new Date(Date.now() + 1000) }), 1);
    const then = await notes.snapshot({ at: first.timestamp });
    assert.equal(await then.count(), 2);
    await then.release();
    await assert.rejects(notes.query({ at: new Date(0) }), kind('gone'));
    await assert.rejects(notes.query({ at: 'yesterday' }), kind('invalid_argument'));
    await db.close();
    db = await open(options);
    notes = db.collection('notes', schema);
  }
  await db.close();
});

test('without retention only snapshots keep the past', async (t) => {
  const { notes } = await memory(t);
  const { timestamp } = await notes.insert([row(1, 'a')]);
  await notes.upsert([row(1, 'b')]);
  await assert.rejects(notes.query({ at: timestamp }), kind('gone'));
  await assert.rejects(open({ name: 'x', storage: 'memory', retention: -1 }), kind('invalid_argument'));
});

test('conditional writes are refused whole when somebody else was first', async (t) => {
  const { notes } = await memory(t);
  const first = await notes.upsert([row(1, 'a'), row(2, 'a')], { ifAbsent: true });
  const [read] = await notes.get([1], { outputFields: ['title', '$version'] });
  assert.deepEqual(read, { title: 'a', $version: first.version });
  await assert.rejects(notes.upsert([row(3, 'b'), row(1, 'b')], { ifAbsent: true }), kind('conflict'));
  const second = await notes.upsert([row(1, 'b')], { ifVersion: first.version, durability: 'buffered' });
  await assert.rejects(notes.upsert([row(1, 'c')], { ifVersion: first.version }), kind('conflict'));
  await assert.rejects(notes.delete({ keys: [1] }, { ifVersion: first.version }), kind('conflict'));
  await notes.upsert([row(1, 'c'), row(2, 'c'), row(4, 'c')], { ifVersion: [second.version, first.version, null] });
  assert.deepEqual(titles(await notes.query()), { 1: 'c', 2: 'c', 4: 'c' });
  await assert.rejects(notes.upsert([row(1, 'd')], { ifVersion: 'yesterday' }), kind('invalid_argument'));
  await assert.rejects(notes.upsert([row(1, 'd')], { ifVersion: [first.version, first.version] }), kind('invalid_argument'));
  await assert.rejects(notes.upsert([row(1, 'd')], { durability: 'perhaps' }), kind('invalid_argument'));
  await assert.rejects(notes.upsert([row(1, 'd')], { ifVersoin: first.version }), kind('invalid_argument'));
});

test('a batch is done in order, and wholly or not at all', async (t) => {
  const { notes } = await memory(t);
  await notes.insert([row(1, 'a'), row(2, 'a')]);
  const { lsn } = await notes.stats();
  const written = await notes.batch([
    { delete: { keys: [1] } },
    { insert: [row(1, 'b'), row(3, 'b')] },
    { upsert: [row(3, 'c')] },
    { delete: { filter: "title == 'a'" } },
    { insert: [row(2, 'd')] },
  ]);
  assert.deepEqual([written.count, written.lsn], [3, lsn + 1]);
  // The filter looks at the rows before the batch: the new row 1 is deleted by it too.
  assert.deepEqual(titles(await notes.query()), { 2: 'd', 3: 'c' });
  await assert.rejects(notes.batch([{ upsert: [row(9, 'x')] }, { insert: [row(2, 'x')] }]), kind('already_exists'));
  await assert.rejects(notes.batch([{ upsert: [row(9, 'x')] }, {}]), kind('invalid_argument'));
  await assert.rejects(notes.batch([{ upsert: [row(9, 'x')] }, { upsert: [row(3, 'x')], ifAbsent: true }]), kind('conflict'));
  assert.deepEqual(titles(await notes.query()), { 2: 'd', 3: 'c' });
});

test('writers that count up together lose no step', async (t) => {
  const { notes } = await memory(t);
  await notes.insert([row(1, '0')]);
  const count = async () => {
    for (let step = 0; step < 20; step += 1) {
      for (;;) {
        const [{ title, $version }] = await notes.get([1], { outputFields: ['title', '$version'] });
        try {
          await notes.upsert([row(1, String(Number(title) + 1))], { ifVersion: $version });
          break;
        } catch (error) {
          if (error.kind !== 'conflict') throw error;
        }
      }
    }
  };
  await Promise.all([count(), count(), count()]);
  assert.deepEqual(titles(await notes.query()), { 1: '60' });
});
