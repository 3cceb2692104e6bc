// Tokens, from the package: who may do what, and a session that outlives its tokens.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import test from 'node:test';

import { open } from 'eddydb';

import { Server } from '../support/server.mjs';
import { done, statusOf } from '../support/sync.mjs';
import { makeRows, schema } from '../support/vectors.mjs';

const secret = 'a secret that only this test and its server know';

const sign = (claims) => {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
};

const grant = (...actions) => ({ eddy: [{ collections: ['notes'], actions }] });
const now = () => Date.now() / 1000;

test('a session outlives its tokens, and says which it lacks', async (t) => {
  // The revocations are written beside the store of nobody else.
  const server = await Server.start({ more: ['--token-secret', secret, '--tokens-revoked', `/tmp/eddy-revoked-${process.pid}`] });
  t.after(() => server.remove());
  const ask = async (path, token, body) => {
    const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
    const response = await fetch(`${server.url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    return { status: response.status, body: await response.json() };
  };
  const count = async () => (await ask('/api/collections/notes/count', sign(grant('read')), {})).body.count;

  const db = await open({ name: 'tokens', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', schema);
  await notes.insert(makeRows(3));
  assert.throws(() => db.sync({ url: server.sync, collections: ['notes'], token: 7 }), { kind: 'invalid_argument' });

  // Without one, or with one that is not valid, nothing goes: it waits, and says why.
  for (const token of [undefined, 'nonsense', () => Promise.reject(new Error('the login is gone'))]) {
    const sync = db.sync({ url: server.sync, collections: ['notes'], ...(token && { token }) });
    const { error, pending } = await statusOf(sync, (status) => status.error !== undefined);
    assert.equal(error.kind, 'unauthorized', error.message);
    assert.equal(pending, 3);
    await sync.stop();
  }

  // Tokens live 10 s beside the leeway of 30 s that clocks get; the session fetches others before they end.
  let fetched = 0;
  const token = async () => (fetched++, sign({ ...grant('admin'), exp: now() - 20 }));
  const sync = db.sync({ url: server.sync, collections: ['notes'], token });
  await statusOf(sync, done);
  const states = new Set();
  sync.onStatus((status) => states.add(status.state));
  while (fetched < 3) await new Promise((resolve) => setTimeout(resolve, 20));
  await notes.insert(makeRows(5).slice(3));
  await statusOf(sync, done);
  assert.deepEqual([...states], ['live'], 'the connection stayed');
  assert.equal(await count(), 5);
  await sync.stop();

  // What may be read may not be written: the change comes back with the reason, and what comes later goes on.
  const reader = db.sync({ url: server.sync, collections: ['notes'], token: sign(grant('read')) });
  await statusOf(reader, done);
  await notes.delete({ keys: [1] });
  const { refusals } = await statusOf(reader, (status) => status.refusals?.length > 0);
  assert.equal(refusals[0].error.kind, 'forbidden');
  assert.equal(refusals[0].collection, 'notes');
  assert.equal(await count(), 5);
  await reader.stop();

  // The HTTP interface goes by the same.
  assert.equal((await ask('/api/collections/notes/count', undefined, {})).status, 401);
  assert.equal((await ask('/api/collections/notes/delete', sign(grant('read')), { keys: [2] })).status, 403);
  assert.equal((await ask('/api/collections/other/count', sign(grant('read')), {})).status, 403);
  const some = sign({ eddy: [{ collections: ['notes'], actions: ['read'], filter: 'id <= {most}', filterParams: { most: 2 } }] });
  assert.equal((await ask('/api/collections/notes/count', some, {})).body.count, await ask('/api/collections/notes/count', sign(grant('read')), { filter: 'id <= 2' }).then(({ body }) => body.count));
});

test('a server that is below another shows it the token that it was given', async (t) => {
  const above = await Server.start({ more: ['--token-secret', secret] });
  t.after(() => above.remove());
  const token = sign(grant('admin'));
  const db = await open({ name: 'above', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', schema);
  await notes.insert(makeRows(2));
  const direct = db.sync({ url: above.sync, collections: ['notes'], token });
  await statusOf(direct, done);

  const below = await Server.start({ more: ['--upstream', above.sync, '--upstream-collections', 'notes', '--upstream-token', token] });
  t.after(() => below.remove());
  const other = await open({ name: 'below', storage: 'memory' });
  t.after(() => other.close());
  const collections = async () => (await below.get('/api/collections')).collections;
  while (!(await collections()).some(({ name }) => name === 'notes')) await new Promise((resolve) => setTimeout(resolve, 20));
  await statusOf(other.sync({ url: below.sync, collections: ['notes'] }), done);
  const others = other.collection('notes');
  assert.equal(await others.count(), 2);
  await others.insert(makeRows(4).slice(2));
  while ((await notes.count()) < 4) await new Promise((resolve) => setTimeout(resolve, 20));
});
