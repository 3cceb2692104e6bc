// The sync of the package, seen from the outside: what it refuses, and what it tells without a server.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import test from 'node:test';

import { open } from 'eddydb';

import { Server } from '../support/server.mjs';
import { done, statusOf } from '../support/sync.mjs';
import { dim, makeRows, nearest, schema } from '../support/vectors.mjs';

test('what cannot be synced is refused', async (t) => {
  const db = await open({ name: 'refused', storage: 'memory' });
  t.after(() => db.close());
  for (const options of [{ url: 'ftp://x', collections: ['a'] }, { url: 'ws://x' }, { url: 'ws://x', collections: [] }, { url: 'ws://x', collections: [1] },
    { url: [], collections: ['a'] }, { url: ['ws://x', 'ws://x'], collections: ['a'] }, { url: ['ws://x', 'y'], collections: ['a'] }, { url: ['ws://x', 'ws://y'], collections: { a: { filter: 'id > 3' } } }]) {
    assert.throws(() => db.sync(options), { name: 'EddyError', kind: 'invalid_argument' });
  }
});

test('without a server: offline, with what is pending; paused, resumed, stopped', async (t) => {
  // A port on which nobody listens any more.
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));

  const db = await open({ name: 'alone', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', schema);
  await notes.insert(makeRows(7));
  const sync = db.sync({ url: `ws://127.0.0.1:${port}/sync`, collections: ['notes'] });
  const offline = await statusOf(sync, (status) => status.state === 'offline' && status.error !== undefined);
  assert.equal(offline.error.kind, 'unavailable');
  assert.equal(offline.pending, 7);
  await notes.delete({ keys: [1, 2] });
  // A row that was written and deleted since is one change: the delete.
  await statusOf(sync, (status) => status.pending === 7 && status !== offline);

  // The same sync, started twice, is one; it ends with the last.
  const same = db.sync({ url: `ws://127.0.0.1:${port}/sync`, collections: ['notes', 'notes'] });
  await statusOf(same, (status) => status.pending === 7);
  await sync.pause();
  await statusOf(same, (status) => status.state === 'offline');
  await sync.resume();
  await sync.stop();
  assert.equal(sync.status.state, 'stopped');
  await same.pause();
  await same.stop();
  await same.stop();
  await assert.rejects(same.pause(), { kind: 'closed' });
  assert.equal(await notes.count(), 5);
});

test('a first sync brings segments with their indexes, is searched, and then goes on live both ways', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const fields = {
    id: { type: 'int64', primaryKey: true },
    title: { type: 'varchar', maxLength: 40 },
    embedding: { type: 'float_vector', dim, metric: 'IP', index: { type: 'HNSW', m: 8, efConstruction: 80 } },
  };
  // The server has the collection from another replica, and indexes it.
  const first = await open({ name: 'first', storage: 'memory' });
  t.after(() => first.close());
  const rows = makeRows(3_000).map(({ id, title, embedding }) => ({ id, title, embedding }));
  const of = await first.createCollection('notes', { fields });
  await of.insert(rows);
  const up = first.sync({ url: server.sync, collections: ['notes'] });
  await statusOf(up, (status) => status.state === 'live' && status.pending === 0 && status.lastSyncedAt !== undefined);
  await server.post('/api/flush');
  while ((await server.get('/api/collections/notes')).rowsUnindexed !== 0) await new Promise((resolve) => setTimeout(resolve, 20));
  await server.post('/api/flush');

  const db = await open({ name: 'new', storage: 'memory' });
  t.after(() => db.close());
  const sync = db.sync({ url: server.sync, collections: ['notes'] });
  const downloads = [];
  sync.onStatus(({ download }) => download && downloads.push(download));
  await statusOf(sync, (status) => status.state === 'live' && status.lastSyncedAt !== undefined && status.download === undefined);
  assert.ok(downloads.length > 0, 'segments were downloaded');
  assert.ok(downloads.every(({ done, total }) => done <= total) && downloads.at(-1).total > 3_000 * dim * 4, JSON.stringify(downloads.at(-1)));
  const notes = db.collection('notes');
  assert.equal(await notes.count(), 3_000);
  const { hits } = await notes.search({ vector: rows[77].embedding, limit: 5 });
  assert.deepEqual(hits.map((hit) => hit.key), nearest(rows, rows[77].embedding, 5).map(({ key }) => key));

  await notes.upsert([{ ...rows[5], title: 'by the new one' }]);
  await of.upsert([{ ...rows[6], title: 'by the first' }]);
  const titleOf = async (collection, id) => (await collection.get([id]))[0]?.title;
  while ((await titleOf(of, 5)) !== 'by the new one' || (await titleOf(notes, 6)) !== 'by the first') await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(await notes.count(), 3_000);
});

test('a server that went back to a backup gets what it has lost from a client, and only that', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const db = await open({ name: 'witness', storage: 'memory', streams: true });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', schema);
  await notes.insert(makeRows(200));
  const options = { url: server.sync, collections: ['notes'] };
  const isDone = (status) => status.state === 'live' && status.pending === 0 && status.lastSyncedAt !== undefined;
  const sync = db.sync(options);
  await statusOf(sync, isDone);
  assert.deepEqual(await sync.reconcile(), { notes: { sent: 0, received: 0 } });
  await sync.pause();
  await assert.rejects(sync.reconcile(), { kind: 'unavailable' });
  await server.kill();
  const putBack = await server.backUp();
  await server.restart();
  await sync.resume();
  // The server's own: nobody but the client knows of them afterwards.
  const write = (rows) => server.post('/api/collections/notes/upsert', { rows: rows.map((row) => ({ ...row, embedding: [...row.embedding] })) });
  await write(makeRows(20, { first: 1_000 }));
  await server.post('/api/collections/notes/delete', { keys: [3, 4] });
  while ((await notes.count()) !== 218) await new Promise((resolve) => setTimeout(resolve, 10));
  await statusOf(sync, isDone);
  await sync.stop();
  await server.kill();
  await putBack();
  await server.restart();
  assert.equal((await server.get('/api/collections/notes')).rows, 200);
  // It has written more since than it has lost: nothing shows that something is missing.
  for (let id = 2_000; id < 2_030; id++) await write(makeRows(1, { first: id }));
  const again = db.sync(options);
  while ((await server.get('/api/collections/notes')).rows !== 248 || (await notes.count()) !== 248) {
    const changed = await again.reconcile(['notes']);
    assert.ok(changed.notes.sent <= 22, JSON.stringify(changed));
  }
  assert.deepEqual(await again.reconcile(), { notes: { sent: 0, received: 0 } });
  await assert.rejects(again.reconcile(['others']), { kind: 'invalid_argument', message: /"others"/ });
  await assert.rejects(again.reconcile('notes'), { kind: 'invalid_argument', message: /names expected/ });
  await again.stop();
  await assert.rejects(again.reconcile(), { kind: 'closed' });
});

test('what lost without having been seen is told by the replica that wrote it', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const fields = { id: { type: 'int64', primaryKey: true }, title: { type: 'varchar', maxLength: 40 }, embedding: { type: 'float_vector', dim: 2 } };
  const [one, other] = await Promise.all(['one', 'other'].map((name) => open({ name, storage: 'memory' })));
  t.after(() => Promise.all([one.close(), other.close()]));
  const row = (id, title) => ({ id, title, embedding: new Float32Array([id, 0.5]) });
  const notes = await one.createCollection('notes', { fields });
  await notes.insert([row(1, 'first'), row(2, 'first')]);
  const atOne = one.sync({ url: server.sync, collections: ['notes'] });
  await statusOf(atOne, done);
  const atOther = other.sync({ url: server.sync, collections: ['notes'] });
  await statusOf(atOther, done);
  const there = await other.collection('notes');
  assert.equal(await there.count(), 2);
  assert.deepEqual(await there.conflicts(), []);

  await atOne.pause();
  await notes.upsert([row(1, 'edited offline')]);
  await notes.delete({ keys: [2] });
  await new Promise((resolve) => setTimeout(resolve, 5));
  const { version } = await there.upsert([row(1, 'edited later'), row(2, 'edited later')]);
  await statusOf(atOther, done);
  const winner = async () => (await notes.get([1]))[0].title;
  await atOne.resume();
  while ((await winner()) !== 'edited later') await new Promise((resolve) => setTimeout(resolve, 10));
  const conflicts = await notes.conflicts();
  conflicts.sort((a, b) => a.key - b.key);
  assert.deepEqual(conflicts.map(({ key, row }) => [key, row]), [[1, row(1, 'edited offline')], [2, null]]);
  for (const { winner, at } of conflicts) {
    assert.equal(winner, version);
    assert.ok(Math.abs(at - Date.now()) < 60_000);
  }
  const { conflicts: atServer } = await server.get('/api/collections/notes/conflicts');
  assert.ok(Array.isArray(atServer));
});
