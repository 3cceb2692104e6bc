// The edge worker in the runtime that it is deployed to, with its objects' storage on disk.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { temporaryDirectory } from '../support/files.mjs';
import { dim, makeRows, nearest, schema } from '../support/vectors.mjs';

const built = fileURLToPath(new URL('../../worker/dist/', import.meta.url));
const workerd = join(createRequire(import.meta.url).resolve('workerd/package.json'), '..', 'bin', 'workerd');
const token = 'a token of the test';

const config = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker), (name = "disk", disk = (path = "disk", writable = true))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  compatibilityDate = "2026-11-01",
  modules = [(name = "index.js", esModule = embed "index.js"), (name = "eddydb.wasm", wasm = embed "eddydb.wasm")],
  durableObjectNamespaces = [(className = "EddyDatabase", uniqueKey = "eddy", enableSql = true)],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [(name = "DATABASES", durableObjectNamespace = "EddyDatabase"), (name = "EDDY_TOKEN", text = "${token}")],
);
`;

/** Starts workerd on a directory, where `disk` is what outlives it. */
async function start(t, directory) {
  mkdirSync(join(directory, 'disk'), { recursive: true });
  for (const name of ['index.js', 'eddydb.wasm']) copyFileSync(join(built, name), join(directory, name));
  writeFileSync(join(directory, 'config.capnp'), config);
  const child = spawn(workerd, ['serve', 'config.capnp', '--experimental', '--control-fd=3'], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const kill = () => (child.kill('SIGKILL'), ended);
  t.after(kill);
  const port = await new Promise((resolve, reject) => {
    let text = '';
    child.stdio[3].setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
      const found = /"event":"listen".*"port":(\d+)/.exec(text);
      if (found) resolve(found[1]);
    });
    ended.then(() => reject(new Error(`workerd ended:\n${output}`)));
  });
  const ask = async (method, path, body, headers = { authorization: `Bearer ${token}` }) => {
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body, (_, value) => (value instanceof Float32Array ? [...value] : value));
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, ...(text !== undefined && { body: text }) });
    return { status: response.status, body: await response.json() };
  };
  return { ask, kill, output: () => output };
}

test('rows written through the worker are found, also after it was killed', async (t) => {
  const directory = temporaryDirectory('eddy-edge-');
  const rows = makeRows(600);
  const first = await start(t, directory);
  const notes = '/databases/mine/collections/notes';
  assert.deepEqual(await first.ask('GET', '/health'), { status: 200, body: { ok: true } });
  assert.deepEqual(await first.ask('PUT', notes, schema), { status: 200, body: { created: 'notes' } }, first.output());
  for (let from = 0; from < 600; from += 100) {
    const { status, body } = await first.ask('POST', `${notes}/upsert`, { rows: rows.slice(from, from + 100) });
    assert.deepEqual([status, body.count], [200, 100], JSON.stringify(body));
  }
  assert.equal((await first.ask('POST', `${notes}/delete`, { keys: [17] })).body.count, 1);
  // The answer to the last write is here, so it is on disk.
  await first.kill();

  const second = await start(t, directory);
  const living = rows.filter((row) => row.id !== 17);
  assert.deepEqual((await second.ask('POST', `${notes}/count`, {})).body, { count: 599 });
  const vector = rows[17].embedding;
  const { status, body } = await second.ask('POST', `${notes}/search`, { vector, limit: 5, exact: true, filter: 'year > 1950', outputFields: ['title', 'embedding'] });
  assert.equal(status, 200, JSON.stringify(body));
  assert.deepEqual(body.hits.map((hit) => hit.key), nearest(living, vector, 5, (row) => row.year > 1950).map((hit) => hit.key));
  assert.equal(body.hits[0].row.embedding.length, dim);
  assert.deepEqual((await second.ask('POST', `${notes}/query`, { filter: 'id < 3', outputFields: ['title'] })).body.rows, [{ title: 'row 0' }, { title: 'row 1' }, { title: 'row 2' }]);
  assert.deepEqual((await second.ask('POST', `${notes}/get`, { keys: [17, 18], outputFields: ['id'] })).body.rows, [{ id: 18 }]);
  const described = (await second.ask('GET', notes)).body;
  assert.equal(described.stats.rows, 599);
  assert.deepEqual(Object.keys(described.schema.fields), Object.keys(schema.fields));
  // Another name is another database.
  assert.deepEqual((await second.ask('GET', '/databases/other/collections')).body, { collections: [] });
  assert.deepEqual((await second.ask('DELETE', notes)).body, { dropped: 'notes' });
  assert.deepEqual((await second.ask('GET', '/databases/mine/collections')).body, { collections: [] });
});

test('bad requests get a status and an error with its kind', async (t) => {
  const { ask } = await start(t, temporaryDirectory('eddy-edge-'));
  const notes = '/databases/mine/collections/notes';
  await ask('PUT', notes, schema);
  const cases = [
    ['GET', '/elsewhere', undefined, 404, 'not_found'],
    ['GET', '/databases/..%2f/collections', undefined, 404, 'not_found'],
    ['PATCH', notes, undefined, 404, 'not_found'],
    ['POST', `${notes}/nothing`, {}, 404, 'not_found'],
    ['GET', '/databases/mine/collections/none', undefined, 404, 'not_found'],
    ['PUT', notes, { fields: {} }, 400, 'invalid_argument'],
    ['POST', `${notes}/upsert`, '{"rows": [', 400, 'invalid_argument'],
    ['POST', `${notes}/upsert`, '[]', 400, 'invalid_argument'],
    ['POST', `${notes}/upsert`, { rows: [{ id: 1, title: 'x', embedding: [1] }] }, 400, 'invalid_argument'],
    ['POST', `${notes}/upsert`, {}, 400, 'invalid_argument'],
    ['POST', `${notes}/query`, { filter: 'year >' }, 400, 'invalid_argument'],
    ['POST', `${notes}/search`, { limit: 1 }, 400, 'invalid_argument'],
  ];
  for (const [method, path, body, status, kind] of cases) {
    const answer = await ask(method, path, body);
    assert.deepEqual([answer.status, answer.body.error?.kind], [status, kind], `${method} ${path}: ${JSON.stringify(answer.body)}`);
  }
  assert.ok(Number.isInteger((await ask('POST', `${notes}/query`, { filter: 'year >' })).body.error.position));
  for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: token }]) {
    assert.equal((await ask('GET', '/databases/mine/collections', undefined, headers)).status, 401);
  }
});
