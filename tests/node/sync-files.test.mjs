// First syncs of the package whose files are had by plain requests, over a connection that is made of requests itself.

import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

import { Proxy } from '../support/proxy.mjs';
import { Server } from '../support/server.mjs';
import { done, statusOf } from '../support/sync.mjs';

const ROWS = 6_000;
const DIM = 128;
// An index that grows would be written anew meanwhile.
const embedding = { type: 'float_vector', dim: DIM, metric: 'IP', index: { type: 'FLAT' } };
const schema = { fields: { id: { type: 'int64', primaryKey: true }, embedding } };

let server;

test.before(async () => {
  server = await Server.start();
  const db = await open({ name: 'filled', storage: 'memory' });
  const notes = await db.createCollection('notes', schema);
  const vector = (id) => Float32Array.from({ length: DIM }, (_, at) => Math.sin(id * 7 + at));
  await notes.insert(Array.from({ length: ROWS }, (_, id) => ({ id, embedding: vector(id) })));
  await statusOf(db.sync({ url: server.sync, collections: ['notes'] }), done);
  await db.close();
  await server.post('/api/flush');
});
test.after(() => server.remove());

/** Syncs a new store through a proxy, where `answers` may answer requests for files; tells what was asked for. */
async function firstSync(t, answers = () => false) {
  const asked = [];
  const proxy = await Proxy.start(server.url, {
    answers: (request, response) => {
      if (!request.url.startsWith('/sync/files/')) return false;
      asked.push([request.url, request.headers.range]);
      return answers(request, response);
    },
  });
  t.after(() => proxy.stop());
  const db = await open({ name: 'new', storage: 'memory' });
  t.after(() => db.close());
  const sync = db.sync({ url: proxy.sync, collections: ['notes'] });
  await statusOf(sync, (status) => done(status) && status.download === undefined);
  assert.equal(sync.status.error, undefined);
  const notes = db.collection('notes');
  assert.equal(await notes.count(), ROWS);
  const [{ embedding }] = await notes.get([ROWS - 1], { outputFields: ['embedding'] });
  assert.equal(embedding[1], Math.fround(Math.sin((ROWS - 1) * 7 + 1)));
  return asked;
}

test('each file comes by one request, as it is, for caches to keep', async (t) => {
  const asked = await firstSync(t);
  assert.equal(new Set(asked.map(([url]) => url)).size, asked.length);
  let longest = 0;
  for (const [url, range] of asked) {
    assert.equal(range, 'bytes=0-');
    const whole = await fetch(`${server.url}${url}`, { method: 'HEAD', headers: { 'accept-encoding': 'gzip, br' } });
    assert.equal(whole.status, 200);
    assert.equal(whole.headers.get('content-encoding'), null);
    assert.equal(whole.headers.get('cache-control'), 'public, max-age=31536000, immutable');
    assert.equal(whole.headers.get('etag'), `"${url.split('/')[3]}"`);
    longest = Math.max(longest, Number(whole.headers.get('content-length')));
  }
  assert.ok(longest > 2 << 20, 'more than is asked for at once');
});

/** Passes on the first `bytes` of what the server answers, and breaks off. */
async function cut(request, response, bytes) {
  const answer = await fetch(`${server.url}${request.url}`, { headers: { range: request.headers.range } });
  const all = Buffer.from(await answer.arrayBuffer());
  response.writeHead(answer.status, { 'content-length': all.length });
  response.write(all.subarray(0, bytes), () => response.destroy());
}

/** Whatever goes wrong with a request, the sync is done, and soon nothing is asked for that way again. */
for (const [name, answer] of [
  ['refused', (_, response) => response.writeHead(404).end('gone')],
  ['sent elsewhere', (_, response) => response.writeHead(302, { location: 'http://127.0.0.1:9/' }).end()],
  ['told whole', (_, response) => response.writeHead(200).end('all of it')],
  ['not answered', (_, response) => response.destroy()],
  ['short', (_, response) => response.writeHead(206).end('short')],
  ['cut in its midst', (request, response) => void cut(request, response, 1_500_000)],
  ['of a wrong length', (_, response) => response.writeHead(206, { 'content-length': 3 }).end('abc')],
  ['something else', (_, response) => response.writeHead(206).end(Buffer.alloc(4 << 20, 'wrong'))],
]) {
  test(`frames bring what is ${name}`, async (t) => {
    const asked = await firstSync(t, (request, response) => {
      answer(request, response);
      return true;
    });
    assert.ok(asked.length >= 1 && asked.length <= 8, `${asked.length} requests`);
  });
}

test('an answer without an end is not read to no end', async (t) => {
  let written = 0;
  await firstSync(t, (_, response) => {
    response.writeHead(206);
    const chunk = Buffer.alloc(64 << 10, 'more');
    const write = () => {
      if (response.destroyed) return;
      written += chunk.length;
      if (response.write(chunk)) setImmediate(write);
      else response.once('drain', write);
    };
    write();
    return true;
  });
  // Nobody waits for more, so nobody reads more: what is under way in buffers is all.
  assert.ok(written < 100 << 20, `${written} bytes`);
});
