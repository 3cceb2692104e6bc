// Two real servers, of which the second is a client of the first, and clients that know of both: the first is killed in mid-work.

import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

import { Server } from '../support/server.mjs';
import { statusOf } from '../support/sync.mjs';

const fields = { id: { type: 'int64', primaryKey: true }, title: { type: 'varchar', maxLength: 40 }, embedding: { type: 'float_vector', dim: 2 } };
const row = (id, title) => ({ id, title, embedding: new Float32Array([id, 0.5]) });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const served = (sync, url) => statusOf(sync, (status) => status.state === 'live' && status.url === url && status.pending === 0);

/** Every row with its version: the same change, done once, has the same one everywhere. */
const sorted = (rows) => rows.map(({ id, title, $version }) => `${id} ${title} ${$version}`).sort();
const outputFields = ['id', 'title', '$version'];
const rowsOf = async (collection) => sorted(await collection.query({ outputFields, limit: 10_000 }));
const rowsAt = async (server) => sorted((await server.post('/api/collections/notes/query', { outputFields, limit: 10_000 })).rows);

test('the first of two servers is killed in mid-work: the other one serves, and the first again when it is back', async (t) => {
  const first = await Server.start();
  t.after(() => first.remove());
  const [one, other] = await Promise.all(['one', 'other'].map((name) => open({ name, storage: 'memory' })));
  t.after(() => Promise.all([one.close(), other.close()]));
  const notes = await one.createCollection('notes', { fields });
  const written = new Map();
  const write = async (id, title) => {
    await notes.upsert([row(id, title)]);
    written.set(id, title);
  };
  for (let id = 0; id < 100; id++) await write(id, 'before');
  const alone = one.sync({ url: first.sync, collections: ['notes'] });
  await served(alone, first.sync);
  await alone.stop();
  // The second server is in step with the first one, and no sooner than that has the collection.
  const second = await Server.start({ more: ['--upstream', first.sync, '--upstream-collections', 'notes'] });
  t.after(() => second.remove());

  const url = [first.sync, second.sync];
  const urls = [];
  const sync = one.sync({ url, collections: ['notes'] });
  sync.onStatus((status) => status.url !== urls.at(-1) && status.url !== undefined && urls.push(status.url));
  const elsewhere = other.sync({ url, collections: ['notes'] });
  await Promise.all([served(sync, first.sync), served(elsewhere, first.sync)]);
  const there = await other.collection('notes');

  // Writes go on all the while, some of them of the same rows.
  let writes = true;
  const writing = (async () => {
    for (let id = 50; writes; id++) {
      await write(id % 400, `write ${id}`);
      if (id % 7 === 0) await pause(2);
    }
  })();
  while (written.size < 150) await pause(5);
  await first.kill();
  await statusOf(sync, (status) => status.url === second.sync);
  const atSecond = written.size;
  while (written.size < Math.min(atSecond + 50, 400)) await pause(5);
  await there.upsert([row(1_000, 'of the other one')]);
  written.set(1_000, 'of the other one');
  await statusOf(elsewhere, (status) => status.url === second.sync && status.pending === 0);

  await first.restart();
  // It is looked for after half a minute, or a whole one.
  await statusOf(sync, (status) => status.url === first.sync);
  writes = false;
  await writing;
  await Promise.all([served(sync, first.sync), served(elsewhere, first.sync)]);
  assert.deepEqual(urls, [first.sync, second.sync, first.sync]);

  const same = async () => {
    const all = await Promise.all([rowsOf(notes), rowsOf(there), rowsAt(first), rowsAt(second)]);
    return all.every((rows) => rows.length === written.size && rows.join() === all[0].join());
  };
  while (!(await same())) await pause(20);
  const expected = [...written].map(([id, title]) => `${id} ${title}`).sort();
  assert.deepEqual((await rowsOf(notes)).map((text) => text.slice(0, text.lastIndexOf(' '))).sort(), expected);
  for (const collection of [notes, there]) assert.deepEqual(await collection.conflicts(), []);
  for (const server of [first, second]) assert.deepEqual((await server.get('/api/collections/notes/conflicts')).conflicts, []);
  assert.equal(sync.status.refusals?.length ?? 0, 0);
});

test('after a pause the first server is asked first', async (t) => {
  const [first, second] = await Promise.all([Server.start(), Server.start()]);
  t.after(() => Promise.all([first.remove(), second.remove()]));
  const db = await open({ name: 'paused', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', { fields });
  await notes.insert([row(1, 'first')]);
  const sync = db.sync({ url: [first.sync, second.sync], collections: ['notes'] });
  await served(sync, first.sync);
  await first.kill();
  await notes.insert([row(2, 'second')]);
  await served(sync, second.sync);
  // What it wrote is at the second one, though nobody has passed it on.
  assert.deepEqual(await rowsAt(second), await rowsOf(notes));
  await first.restart();
  await sync.pause();
  assert.equal((await statusOf(sync, (status) => status.state === 'offline')).url, undefined);
  await sync.resume();
  await served(sync, first.sync);
  assert.deepEqual(await rowsAt(first), await rowsOf(notes));
});
