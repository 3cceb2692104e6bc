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
const kind = (kind) => (error) => error.kind === kind || assert.fail(`${error.kind}: ${error.message}, expected ${kind}`);
const told = ({ changes }) => changes.map(({ op, key, before, after }) => [op, key, before?.title, after?.title]);

async function memory(t, options = {}) {
  const db = await open({ name: 'changes', storage: 'memory', ...options });
  t.after(() => db.close());
  return { db, notes: await db.createCollection('notes', schema) };
}

test('every change is told once, with its transaction, from the moment at which the stream is here', async (t) => {
  const { notes } = await memory(t, { retention: 3_600_000 });
  await notes.insert([row(1, 'old')]);
  const stream = await notes.changes({ before: true, outputFields: ['title', 'v'] });
  const written = await notes.insert([row(2, 'a'), row(3, 'b')]);
  await notes.batch([{ upsert: [row(2, 'c')] }, { delete: { keys: [3] } }]);
  const { value } = await stream.next();
  assert.deepEqual(told(value), [['insert', 2, undefined, 'a'], ['insert', 3, undefined, 'b'], ['update', 2, 'a', 'c'], ['delete', 3, 'b', undefined]]);
  assert.deepEqual(value.changes.map(({ last }) => last), [false, true, false, true]);
  const [first] = value.changes;
  assert.equal(first.timestamp, written.timestamp);
  assert.equal(first.version, written.version);
  assert.equal(first.lsn, written.lsn);
  assert.deepEqual(first.after.v, Float32Array.of(2, 0));
  assert.equal(value.token, stream.token);

  // One that waits is told at once; leaving the loop ends it.
  const waiting = (async () => {
    for await (const batch of stream) return told(batch);
  })();
  await notes.delete({ keys: [1] });
  assert.deepEqual(await waiting, [['delete', 1, 'old', undefined]]);
  assert.deepEqual(await stream.next(), { done: true, value: undefined });

  const again = await notes.changes({ since: value.token, operations: ['delete'], batchTimeoutMs: 1 });
  assert.deepEqual(told((await again.next()).value), [['delete', 1, undefined, undefined]]);
  const before = again.token;
  await notes.insert([row(4, 'd')]);
  const idle = (await again.next()).value;
  assert.deepEqual(idle.changes, []);
  assert.notEqual(idle.token, before, 'it moves on by what is not followed');
  await again.return();
});

test('all rows first, then what comes; as a ReadableStream, in bigint', async (t) => {
  const { notes } = await memory(t, { bigint: true });
  await notes.insert([row(1n, 'a'), row(2n, 'b'), row(3n, 'c')]);
  const stream = await notes.changes({ since: 'full', batchSize: 2, filter: 'id != 2' });
  await notes.upsert([row(3n, 'd')]);
  const reader = stream.readable().getReader();
  const all = [];
  while (all.length < 3) all.push(...told((await reader.read()).value));
  assert.deepEqual(all, [['read', 1n, undefined, 'a'], ['read', 3n, undefined, 'c'], ['update', 3n, undefined, 'd']]);
  await reader.cancel();
  assert.equal((await stream.next()).done, true);
});

test('a subscription goes on where it got, and history without one is gone', async (t) => {
  const path = mkdtempSync(join(tmpdir(), 'eddydb-changes-'));
  t.after(() => rmSync(path, { recursive: true }));
  const options = { name: 'changes', storage: 'files', path };
  let db = await open(options);
  let notes = await db.createCollection('notes', schema);
  let stream = await notes.changes({ subscription: 'mail', before: true });
  await notes.insert([row(1, 'a')]);
  const { value } = await stream.next();
  await stream.acknowledge(value.token);
  await notes.upsert([row(1, 'b')]);
  await notes.upsert([row(1, 'c')]);
  await db.close();
  for (let opened = 0; opened < 2; opened += 1) {
    db = await open(options);
    notes = await db.collection('notes');
    stream = await notes.changes({ subscription: 'mail', before: true });
    const { value: rest } = await stream.next();
    assert.deepEqual(told(rest), [['update', 1, 'a', 'b'], ['update', 1, 'b', 'c']]);
    if (opened === 0) {
      await db.close();
      continue;
    }
    assert.deepEqual(await notes.subscriptions(), { mail: value.changes[0].lsn });
    await stream.acknowledge(rest.token);
    assert.equal(await notes.unsubscribe('mail'), true);
    assert.equal(await notes.unsubscribe('mail'), false);
    await assert.rejects(stream.acknowledge(rest.token), kind('not_found'));
    await stream.return();
    await notes.delete({ keys: [1] });
    await db.close();
    db = await open(options);
    notes = await db.collection('notes');
    await assert.rejects(notes.changes({ since: value.token }), kind('gone'));
  }
  await db.close();
});

test('what is wrong is told at once, and a stream ends with its database or collection', async (t) => {
  const { db, notes } = await memory(t);
  for (const wrong of [{ since: 'yesterday' }, { since: 5 }, { filter: 'id >' }, { operations: ['remove'] }, { outputFields: ['x'] }, { batchTimeoutMs: -1 }, { misspelt: 1 }]) {
    await assert.rejects(notes.changes(wrong), kind('invalid_argument'));
  }
  const plain = await notes.changes();
  await assert.rejects(plain.acknowledge('1-1-1-1-1'), kind('invalid_argument'));
  await plain.return();
  const other = await db.createCollection('other', schema);
  const dropped = await other.changes();
  const ended = assert.rejects(dropped.next(), kind('gone'));
  await db.dropCollection('other');
  await ended;
  const last = await notes.changes();
  const closed = assert.rejects(last.next(), kind('closed'));
  await db.close();
  await closed;
});

test('a slow stream is let go of, and no writer waits for it', async (t) => {
  const { notes } = await memory(t);
  await notes.insert([row(1, 'a')]);
  const slow = await notes.changes({ bufferSize: 2 });
  for (const title of ['b', 'c', 'd', 'e']) await notes.upsert([row(1, title)]);
  await assert.rejects(slow.next(), kind('gone'));
});

test('changes of the past come again so many times as fast as they happened', async (t) => {
  const { notes } = await memory(t);
  const writtenMs = [];
  for (const id of [1, 2, 3]) {
    const { timestamp } = await notes.insert(id === 2 ? [row(2, 'b'), row(20, 'b')] : [row(id, 'a')]);
    writtenMs.push(Number(timestamp >> 18n));
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  const keys = ({ changes }) => changes.map(({ key }) => key);
  const read = async (stream) => (await stream.next()).value;

  const slow = await notes.changes({ since: 'earliest', speed: 0.2 });
  const started = performance.now();
  const first = await read(slow);
  assert.deepEqual(keys(first), [1]);
  assert.deepEqual(keys(await read(slow)), [2, 20], 'a transaction comes whole');
  assert.ok(performance.now() - started >= 5 * (writtenMs[1] - writtenMs[0]));
  assert.deepEqual(keys(await read(slow)), [3]);
  assert.ok(performance.now() - started >= 5 * (writtenMs[2] - writtenMs[0]));
  // Once the past is told it goes on with what is written.
  const later = read(slow);
  await notes.insert([row(4, 'd')]);
  assert.deepEqual(keys(await later), [4]);

  // The token of what was told, not of what was read.
  const again = await notes.changes({ since: first.token });
  assert.deepEqual(keys(await read(again)), [2, 20, 3, 4]);
  // While nothing is due, whoever wants to hear so does.
  const quiet = await notes.changes({ since: 'earliest', speed: 0.0001, batchTimeoutMs: 1 });
  assert.deepEqual(keys(await read(quiet)), [1]);
  const nothing = await read(quiet);
  assert.deepEqual([keys(nothing), nothing.token], [[], first.token]);
  // Rows that were there did not happen.
  const full = await notes.changes({ since: 'full', speed: 0.0001 });
  assert.deepEqual(keys(await read(full)), [1, 2, 3, 4, 20]);
  await full.return();
  for (const speed of [0, -1, Number.NaN, Infinity, '2x']) await assert.rejects(async () => notes.changes({ speed }), kind('invalid_argument'));
});
