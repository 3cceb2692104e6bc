// Parts of collections, from the package, of a server that runs.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import test from 'node:test';

import { open } from 'eddydb';

import { Server } from '../support/server.mjs';
import { statusOf } from '../support/sync.mjs';

const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    owner: { type: 'varchar', maxLength: 20 },
    place: { type: 'float_vector', dim: 2, metric: 'L2' },
  },
};

const row = (id, owner) => ({ id, owner, place: [id, 0] });
const keys = async (notes) => (await notes.query({ outputFields: ['id'] })).map(({ id }) => id);

const done = (status) => status.state === 'live' && status.pending === 0 && status.lastSyncedAt !== undefined && !status.error;

async function until(what, holds) {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail(`never ${what}`);
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

async function database(t, name) {
  const db = await open({ name, storage: 'memory' });
  t.after(() => db.close());
  return db;
}

test('a replica keeps a part, and another one moves the difference', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const full = await database(t, 'full');
  const all = await full.createCollection('notes', schema);
  await all.insert(Array.from({ length: 20 }, (_, id) => row(id, id % 4 === 0 ? 'ann' : 'bob')));
  await statusOf(full.sync({ url: server.sync, collections: ['notes'] }), done);

  const db = await database(t, 'part');
  const wanted = (filter, filterParams) => ({ url: server.sync, collections: { notes: { filter, filterParams } } });
  let sync = db.sync(wanted('owner == {who} and id < {most}', { who: 'ann', most: 100n }));
  await statusOf(sync, done);
  const notes = db.collection('notes');
  assert.deepEqual(await keys(notes), [0, 4, 8, 12, 16]);

  // One leaves and one comes; what is written outside is at the server, and goes here.
  await all.upsert([row(0, 'bob'), row(1, 'ann')]);
  await until('moved', async () => same(await keys(notes), [1, 4, 8, 12, 16]));
  await notes.upsert([row(30, 'bob'), row(31, 'ann')]);
  await until('sent', async () => (await keys(all)).length === 22);
  await until('gone here', async () => same(await keys(notes), [1, 4, 8, 12, 16, 31]));
  await sync.stop();

  sync = db.sync(wanted('id < 3'));
  await until('of the other part', async () => same(await keys(notes), [0, 1, 2]));
  assert.equal(await all.count(), 22, 'nothing was deleted at the server');
  await sync.stop();

  assert.throws(() => db.sync({ url: server.sync, collections: {} }), { kind: 'invalid_argument' });
  assert.throws(() => db.sync({ url: server.sync, collections: { notes: 'owner == 1' } }), { kind: 'invalid_argument' });
  assert.throws(() => db.sync(wanted('id < {most}', { most: 1n << 60n })), { kind: 'invalid_argument' });
  const wrong = db.sync(wanted('owner == 3'));
  const { error } = await statusOf(wrong, (status) => status.error !== undefined);
  assert.equal(error.kind, 'invalid_argument', error.message);
  await wrong.stop();
});

test('a search in a neighbourhood says whether its answer is proved', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const full = await database(t, 'full');
  await (await full.createCollection('notes', schema)).insert(Array.from({ length: 50 }, (_, id) => row(id, 'ann')));
  await statusOf(full.sync({ url: server.sync, collections: ['notes'] }), done);
  const search = { vector: [10.2, 0], limit: 3, exact: true };
  assert.equal((await full.collection('notes').search(search)).covered, undefined);

  const db = await database(t, 'near');
  const near = { field: 'place', metric: 'L2', centers: [new Float32Array([10, 0])], radius: 4 };
  await statusOf(db.sync({ url: server.sync, collections: { notes: { near } } }), done);
  const notes = db.collection('notes');
  assert.deepEqual(await keys(notes), [6, 7, 8, 9, 10, 11, 12, 13, 14]);
  const found = async (request) => {
    const { hits, covered } = await notes.search({ ...search, ...request });
    return [hits.map(({ key }) => key), covered];
  };
  assert.deepEqual(await found({}), [[10, 11, 9], true]);
  // Near the border something nearer may lie beyond.
  assert.deepEqual(await found({ vector: [13.4, 0] }), [[13, 14, 12], false]);
  assert.deepEqual(await found({ vector: [13.4, 0], limit: 1 }), [[13], true]);
  assert.deepEqual(await found({ limit: 100 }).then(([, covered]) => covered), false);
  assert.deepEqual(await found({ limit: 100, radius: 4 }), [[10, 11, 9, 12], true]);
  assert.equal((await found({ exact: false }))[1], false);
});

test('rows that a newer token does not allow leave', async (t) => {
  const secret = 'a secret that only this test and its server know';
  const sign = (claims) => {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  };
  const server = await Server.start({ more: ['--token-secret', secret, '--tokens-revoked', `/tmp/eddy-revoked-parts-${process.pid}`] });
  t.after(() => server.remove());
  const full = await database(t, 'full');
  const all = await full.createCollection('notes', schema);
  await all.insert([row(1, 'ann'), row(2, 'bob'), row(3, 'ann')]);
  const admin = sign({ eddy: [{ collections: ['*'], actions: ['admin'] }] });
  await statusOf(full.sync({ url: server.sync, collections: ['notes'], token: admin }), done);

  const db = await database(t, 'rights');
  let allowed = 'ann';
  // Tokens end soon, so that there is a newer one.
  const token = () =>
    sign({
      eddy: [{ collections: ['notes'], actions: ['read', 'write'], filter: 'owner == {who}', filterParams: { who: allowed } }],
      exp: Date.now() / 1000 - 26,
    });
  const sync = db.sync({ url: server.sync, collections: { notes: { filter: 'id < 100' } }, token });
  await statusOf(sync, done);
  const notes = db.collection('notes');
  assert.deepEqual(await keys(notes), [1, 3]);
  await notes.upsert([row(4, 'bob'), row(5, 'ann')]);
  const { refusals } = await statusOf(sync, (status) => status.refusals?.length === 1 && status.pending === 0);
  assert.equal(refusals[0].error.kind, 'forbidden');
  assert.equal(await all.count(), 3, 'a batch is taken whole or not at all');
  allowed = 'bob';
  await until('what the newer token allows', async () => (await keys(notes)).includes(2) && !(await keys(notes)).includes(1));
});
