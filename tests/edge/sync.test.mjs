// The edge worker as a hub of clients, and as a client of a native hub.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import test from 'node:test';

import { open } from 'eddydb';

import { Server } from '../support/server.mjs';
import { statusOf } from '../support/sync.mjs';
import { pause, until } from '../support/until.mjs';
import { Edge, token } from '../support/workerd.mjs';

const fields = {
  id: { type: 'int64', primaryKey: true },
  title: { type: 'varchar', maxLength: 200 },
  embedding: { type: 'float_vector', dim: 4, metric: 'L2' },
};
const row = (id, title = `row ${id}`) => ({ id, title, embedding: new Float32Array([id, 1, 2, 3]) });
const notes = '/databases/mine/collections/notes';

const isDone = ({ state, pending, lastSyncedAt }) => state === 'live' && pending === 0 && lastSyncedAt !== undefined;

/** A client in memory that syncs the notes of the database `mine`; every state and error that it tells. */
async function client(t, edge, { create = false, collections = ['notes'], tokenOf = token } = {}) {
  const db = await open({ name: 'client', storage: 'memory' });
  t.after(() => db.close());
  if (create) await db.createCollection('notes', { fields });
  const sync = db.sync({ url: edge.syncUrl('mine'), collections, ...(tokenOf !== null && { token: tokenOf }) });
  const told = [];
  sync.onStatus(({ state, error }) => told.push(error ? `${state}: ${error.kind}` : state));
  const titles = async (name = 'notes') => {
    if (!(await db.collections()).includes(name)) return undefined;
    return Object.fromEntries((await db.collection(name).query({ outputFields: ['id', 'title'], limit: 16_000 })).map(({ id, title }) => [id, title]));
  };
  return { db, notes: db.collection('notes'), sync, told, titles };
}

const object = async (edge) => (await edge.ask('GET', '/databases/mine/object')).body;

test('clients sync through the worker, whose HTTP interface sees and tells the same rows', async (t) => {
  const edge = await Edge.start(t);
  const a = await client(t, edge, { create: true });
  const b = await client(t, edge);
  await a.notes.insert([row(1), row(2), row(3)]);
  await until({ 1: 'row 1', 2: 'row 2', 3: 'row 3' }, b.titles);
  await b.notes.upsert([row(2, 'by b')]);
  await a.notes.delete({ keys: [1] });
  assert.equal((await edge.ask('POST', `${notes}/upsert`, { rows: [row(4, 'over HTTP')] })).status, 200, edge.output());
  const expected = { 2: 'by b', 3: 'row 3', 4: 'over HTTP' };
  for (const { titles } of [a, b]) await until(expected, titles);
  await until([2, 3, 4], async () => (await edge.ask('POST', `${notes}/query`, { outputFields: ['id'], limit: 10 })).body.rows?.map(({ id }) => id).sort());
  // A reader that must see what the hub has asks it.
  assert.equal(await b.notes.count({ consistency: 'strong' }), 3);
});

test('who shows no token, or another one, gets nothing and leaves nothing', async (t) => {
  const edge = await Edge.start(t);
  for (const tokenOf of [null, 'another one', `${token} `, '']) {
    const { sync } = await client(t, edge, { create: true, tokenOf });
    const { error } = await statusOf(sync, (status) => status.error !== undefined);
    assert.equal(error.kind, 'unauthorized', `${JSON.stringify(tokenOf)}: ${error.message}`);
    await sync.stop();
  }
  assert.deepEqual(await object(edge).then(({ opened, connections }) => ({ opened, connections })), { opened: 0, connections: 0 });
  // Nor who sends what is no frame: a text message, masked with zeros.
  const headers = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==' };
  const asked = request(edge.syncUrl('mine').replace('ws:', 'http:'), { headers }).end();
  const [, socket] = await once(asked, 'upgrade');
  socket.write(Buffer.from([0x81, 0x84, 0, 0, 0, 0, ...Buffer.from('text')]));
  let answer = '';
  for await (const bytes of socket) {
    answer += bytes.toString('latin1');
    // The runtime waits for the client's half of the end.
    if (answer.includes('corrupt')) break;
  }
  assert.ok(answer.includes('a text message'), JSON.stringify(answer));
});

test('what was acknowledged is there after the worker was killed in the midst of syncs', async (t) => {
  const edge = await Edge.start(t);
  const [a, b] = [await client(t, edge, { create: true }), await client(t, edge)];
  const written = [0, 0];
  for (let round = 0; round < 4; round++) {
    // Some of it is on its way when the worker dies.
    for (const [index, { notes, sync }] of [a, b].entries()) {
      if (!(await (index ? b : a).db.collections()).includes('notes')) await until(true, async () => (await b.db.collections()).includes('notes'));
      for (let at = 0; at < 40; at++) {
        const id = index * 100_000 + written[index]++;
        await notes.insert([row(id)]);
        if (at === 10) await statusOf(sync, ({ state, pending }) => state === 'live' && pending < written[index]);
      }
    }
    await edge.kill();
    const acknowledged = [a, b].map(({ sync }, index) => written[index] - sync.status.pending);
    await Promise.all([a.sync.pause(), b.sync.pause()]);
    await edge.restart();
    const there = new Set((await edge.ask('POST', `${notes}/query`, { outputFields: ['id'], limit: 16_000 })).body.rows.map(({ id }) => id));
    for (const [index, count] of acknowledged.entries()) {
      const lost = Array.from({ length: count }, (_, at) => index * 100_000 + at).filter((id) => !there.has(id));
      assert.deepEqual(lost, [], `round ${round}, of ${count} acknowledged to client ${index}`);
    }
    await Promise.all([a.sync.resume(), b.sync.resume()]);
  }
  const ids = [0, 1].flatMap((index) => Array.from({ length: written[index] }, (_, at) => index * 100_000 + at));
  const expected = Object.fromEntries(ids.map((id) => [id, `row ${id}`]));
  for (const { titles } of [a, b]) await until(expected, titles);
});

test('the object is evicted while its connections stay, and nobody notices', async (t) => {
  const edge = await Edge.start(t);
  const [a, b] = [await client(t, edge, { create: true }), await client(t, edge)];
  await a.notes.insert([row(1)]);
  await until({ 1: 'row 1' }, b.titles);
  for (const { sync } of [a, b]) await statusOf(sync, isDone);
  const [heardA, heardB] = [a, b].map(({ told }) => told.length);
  // It comes to rest by itself, and says so without being woken.
  await until({ awake: false, connections: 0, resting: 2 }, async () => {
    const { awake, connections, resting } = await object(edge);
    return { awake, connections, resting };
  });
  const { life } = await object(edge);
  const expected = { 1: 'row 1' };
  // The runtime evicts what nobody has called for 10 s, and clients ask for a sign of life after 20 s.
  let evicted = false;
  for (let turn = 0; turn < 4 && !evicted; turn++) {
    await pause(13_000);
    await b.notes.upsert([row(10 + turn, 'by b'), row(1, `once more ${turn}`)]);
    Object.assign(expected, { [10 + turn]: 'by b', 1: `once more ${turn}` });
    await until(expected, a.titles);
    evicted = (await object(edge)).life !== life;
  }
  assert.ok(evicted, 'the object was evicted');
  await a.notes.insert([row(20)]);
  await until({ ...expected, 20: 'row 20' }, b.titles);
  // Over HTTP too: who rests hears of it.
  await until(2, async () => (await object(edge)).resting);
  await edge.ask('POST', `${notes}/delete`, { keys: [20] });
  for (const { titles } of [a, b]) await until(expected, titles);
  assert.deepEqual([...a.told.slice(heardA), ...b.told.slice(heardB)].filter((state) => state !== 'live'), []);
});

test('browser, edge and server: what is written at either end comes to the other one', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const bindings = { UPSTREAM_URL: server.sync, UPSTREAM_COLLECTIONS: 'notes, tags', UPSTREAM_EVERY_SECONDS: '1' };
  const edge = await Edge.start(t, bindings);
  // Of two collections one comes from each end.
  await server.post('/api/collections', { name: 'tags', fields: Object.entries(fields).map(([name, { metric, ...field }]) => ({ name, ...field })) });
  await server.post('/api/collections/tags/upsert', { rows: [{ id: 1, title: 'of the server', embedding: [1, 2, 3, 4] }] });
  const a = await client(t, edge, { create: true, collections: ['notes', 'tags'] });
  await a.notes.insert([row(1), row(2)]);
  await until({ 1: 'of the server' }, () => a.titles('tags'));
  const atServer = async (name) => {
    const { rows } = await server.post(`/api/collections/${name}/query`, { outputFields: ['id', 'title'], limit: 1000 }).catch(() => ({ rows: [] }));
    return Object.fromEntries(rows.map(({ id, title }) => [id, title]));
  };
  await until({ 1: 'row 1', 2: 'row 2' }, () => atServer('notes'));
  await server.post('/api/collections/notes/upsert', { rows: [{ id: 2, title: 'by the server', embedding: [1, 2, 3, 4] }] });
  await a.db.collection('tags').upsert([row(1, 'by the browser'), row(2, 'by the browser')]);
  await until({ 1: 'row 1', 2: 'by the server' }, () => a.titles('notes'));
  await until({ 1: 'by the browser', 2: 'by the browser' }, () => atServer('tags'));
  // While the server is gone the edge goes on, and so it does when the edge is killed.
  await server.kill();
  await a.notes.upsert([row(3, 'without the server')]);
  await statusOf(a.sync, isDone);
  await edge.kill();
  await server.restart();
  await edge.restart();
  await until({ 1: 'row 1', 2: 'by the server', 3: 'without the server' }, () => atServer('notes'));
});

test('an object that nobody uses syncs by alarms', async (t) => {
  const server = await Server.start();
  t.after(() => server.remove());
  const edge = await Edge.start(t, { UPSTREAM_URL: server.sync, UPSTREAM_COLLECTIONS: 'notes', UPSTREAM_EVERY_SECONDS: '1' });
  await edge.ask('PUT', notes, { fields });
  await edge.ask('POST', `${notes}/upsert`, { rows: [row(1)] });
  await until([1], async () => (await server.post('/api/collections/notes/query', { outputFields: ['id'] }).catch(() => ({ rows: [] }))).rows.map(({ id }) => id));
  await until(false, async () => (await object(edge)).awake);
  await server.post('/api/collections/notes/upsert', { rows: [{ id: 2, title: 'by the server', embedding: [1, 2, 3, 4] }] });
  const { opened } = await object(edge);
  // Once it was opened and closed since, it has heard of that; it was not asked for anything.
  await until(true, async () => {
    const now = await object(edge);
    return now.opened > opened && !now.awake;
  });
  await edge.kill();
  await edge.restart({});
  assert.deepEqual((await edge.ask('POST', `${notes}/query`, { outputFields: ['id', 'title'], limit: 10 })).body.rows, [{ id: 1, title: 'row 1' }, { id: 2, title: 'by the server' }]);
});

test('tokens for the hub above are fetched when they are needed, and again when that failed', async (t) => {
  const hub = await Edge.start(t);
  const asked = [];
  // Refuses, answers nonsense, and then gives what the hub takes.
  const answers = [[500, '{}'], [200, '{"tokens": 1}'], [200, JSON.stringify({ token })]];
  const giver = createServer(async (incoming, response) => {
    let body = '';
    for await (const part of incoming) body += part;
    const [status, text] = answers[Math.min(asked.length, answers.length - 1)];
    asked.push([incoming.method, incoming.headers.authorization, body]);
    response.writeHead(status).end(text);
  });
  giver.listen(0, '127.0.0.1');
  await once(giver, 'listening');
  t.after(() => giver.close());
  const url = `http://127.0.0.1:${giver.address().port}/token`;
  const edge = await Edge.start(t, { UPSTREAM_URL: hub.syncUrl('{database}'), UPSTREAM_COLLECTIONS: 'notes', UPSTREAM_TOKEN_URL: url, UPSTREAM_TOKEN: 'who asks', UPSTREAM_EVERY_SECONDS: '1' });
  await edge.ask('PUT', notes, { fields });
  await edge.ask('POST', `${notes}/upsert`, { rows: [row(1)] });
  await until([{ id: 1 }], async () => (await hub.ask('POST', `${notes}/query`, { outputFields: ['id'] })).body.rows);
  assert.ok(asked.length >= 3, `${asked.length} requests`);
  for (const request of asked) assert.deepEqual(request, ['POST', 'Bearer who asks', '{"database":"mine"}']);
});
