// The sync of the package, seen from the outside: what it refuses, and what it tells without a server.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import test from 'node:test';

import { open } from 'eddydb';

import { makeRows, schema } from '../support/vectors.mjs';

const statusOf = (sync, wanted) =>
  new Promise((resolve) => {
    const look = (status) => wanted(status) && resolve(status);
    sync.onStatus(look);
    look(sync.status);
  });

test('what cannot be synced is refused', async (t) => {
  const db = await open({ name: 'refused', storage: 'memory' });
  t.after(() => db.close());
  for (const options of [{ url: 'ftp://x', collections: ['a'] }, { url: 'ws://x' }, { url: 'ws://x', collections: [] }, { url: 'ws://x', collections: [1] }]) {
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
