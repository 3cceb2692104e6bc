// The edge worker with an R2 bucket for large files of segments: Cloudflare's simulator of R2, in the runtime that the worker is deployed to.

import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { direction, nearest, random } from '../support/vectors.mjs';
import { until } from '../support/until.mjs';
import { Edge } from '../support/workerd.mjs';

const dim = 64;
const notes = '/databases/mine/collections/notes';
const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    embedding: { type: 'float_vector', dim, metric: 'IP', index: { type: 'FLAT' } },
  },
};

/** So many rows that their vectors are more than what stays in the object. */
const ROWS = 2_000;
function makeRows(first, count = ROWS) {
  const next = random(first + 1);
  return Array.from({ length: count }, (_, at) => ({ id: first + at, embedding: direction(next, dim) }));
}

async function ask(edge, method, path, body) {
  const { status, body: answer } = await edge.ask(method, path, body);
  assert.equal(status, 200, `${method} ${path}: ${JSON.stringify(answer)}\n${edge.output()}`);
  return answer;
}

async function fill(edge, rows) {
  await ask(edge, 'PUT', notes, schema);
  for (let at = 0; at < rows.length; at += 500) await ask(edge, 'POST', `${notes}/insert`, { rows: rows.slice(at, at + 500) });
}

/** All that was written is there, vectors and all. */
async function hasAll(edge, rows) {
  assert.equal((await ask(edge, 'POST', `${notes}/count`, {})).count, rows.length);
  for (const { embedding: vector } of [rows[0], rows.at(-1)]) {
    const { hits } = await ask(edge, 'POST', `${notes}/search`, { vector, limit: 5, exact: true, outputFields: ['embedding'] });
    assert.deepEqual(hits.map(({ key }) => key), nearest(rows, vector, 5).map(({ key }) => key));
    for (const { key, row } of hits) assert.deepEqual(row.embedding, [...rows.find(({ id }) => id === key).embedding]);
  }
}

/** The database is closed, so everything was written out, as far as that could be done. */
const rests = (edge) => until(false, async () => (await ask(edge, 'GET', '/databases/mine/object')).awake);

/** The worker, whose bucket fails in the way that the variable FAULT names. */
const faulty = build({
  stdin: {
    contents: `
      import worker, { EddyDatabase as Real } from './worker/dist/index.js';

      const failure = () => new Error('put: We encountered an internal error. Please try again. (10001)');
      const faults = {
        // Done, but nobody hears of it.
        hang: { put: async (bucket, ...given) => (await bucket.put(...given), new Promise(() => {})) },
        all: Object.fromEntries(['put', 'get', 'delete'].map((name) => [name, async () => { throw failure(); }])),
        puts: { put: async () => { throw failure(); } },
        deletes: { delete: async () => { throw failure(); } },
        twice: Object.fromEntries(['put', 'get'].map((name) => [name, async (bucket, key, ...given) => {
          failed[name + key] = (failed[name + key] ?? 0) + 1;
          if (failed[name + key] <= 2) throw failure();
          return bucket[name](key, ...given);
        }])),
      };
      const failed = {};

      function withFaults(bucket, faults) {
        const call = (name) => (...given) => (faults[name] ? faults[name](bucket, ...given) : bucket[name](...given));
        return Object.fromEntries(['put', 'get', 'delete'].map((name) => [name, call(name)]));
      }

      export class EddyDatabase extends Real {
        constructor(ctx, env) {
          super(ctx, env.FAULT ? { ...env, SEGMENTS: withFaults(env.SEGMENTS, faults[env.FAULT]) } : env);
        }
      }
      export default worker;`,
    resolveDir: fileURLToPath(new URL('../..', import.meta.url)),
    loader: 'js',
  },
  bundle: true,
  write: false,
  format: 'esm',
  platform: 'neutral',
  target: 'es2022',
  external: ['cloudflare:*', '*.wasm'],
  logLevel: 'warning',
}).then(({ outputFiles }) => outputFiles[0].text);

const start = async (t, bindings, { bucket = true } = {}) => Edge.start(t, bindings, { bucket, script: await faulty });

test('large files of segments are in the bucket, and rows are found after the worker was killed', async (t) => {
  const edge = await start(t);
  const rows = makeRows(0);
  await fill(edge, rows);
  await rests(edge);
  const keys = await edge.keys();
  assert.ok(keys.length > 0);
  for (const key of keys) assert.match(key, /^[0-9a-f]{64}\/c\d+\/segment\/\d+\/vector-0-[0-9a-f-]{36}$/);
  await edge.kill();
  await edge.restart();
  await hasAll(edge, rows);
  // Another segment, and both merged: what was merged goes.
  const more = makeRows(ROWS);
  await fill(edge, more);
  await hasAll(edge, [...rows, ...more]);
  await rests(edge);
  await hasAll(edge, [...rows, ...more]);
  await ask(edge, 'DELETE', notes);
  await until([], () => edge.keys());
});

test('what a put leaves that was done when the worker was killed is removed, and nothing is lost', async (t) => {
  const edge = await start(t, { FAULT: 'hang' });
  const rows = makeRows(0);
  await fill(edge, rows);
  await until(1, async () => (await edge.keys()).length);
  const [orphan] = await edge.keys();
  await edge.kill();
  await edge.restart({});
  await hasAll(edge, rows);
  await until(false, async () => (await edge.keys()).includes(orphan));
  await rests(edge);
  assert.equal((await edge.keys()).length, 1);
  await hasAll(edge, rows);
});

test('what was acknowledged is there after the worker was killed while it put files into the bucket', async (t) => {
  const edge = await start(t);
  let rows = [];
  for (let round = 0; round < 4; round++) {
    const before = (await edge.keys()).length;
    const more = makeRows(round * ROWS);
    await fill(edge, more);
    rows = [...rows, ...more];
    await until(true, async () => (await edge.keys()).length !== before);
    await edge.kill();
    await edge.restart();
    await hasAll(edge, rows);
  }
  await ask(edge, 'DELETE', notes);
  await until([], () => edge.keys());
});

test('while the bucket takes nothing rows are written and found, and go there when it does again', async (t) => {
  const edge = await start(t, { FAULT: 'puts' });
  const rows = makeRows(0);
  await fill(edge, rows);
  await rests(edge);
  assert.match(edge.output(), /not everything was written out: .*the bucket failed 3 times: put: We encountered an internal error/);
  await hasAll(edge, rows);
  assert.deepEqual(await edge.keys(), []);
  await edge.kill();
  await edge.restart({});
  await hasAll(edge, rows);
  await rests(edge);
  assert.equal((await edge.keys()).length, 1);
});

test('a bucket that fails for a moment is asked again; one that goes on failing is unavailable, and nothing is lost', async (t) => {
  const edge = await start(t, { FAULT: 'twice' });
  const rows = makeRows(0);
  await fill(edge, rows);
  await rests(edge);
  assert.equal((await edge.keys()).length, 1);
  await hasAll(edge, rows);
  await rests(edge);
  await edge.kill();
  await edge.restart({ FAULT: 'all' });
  const { status, body } = await edge.ask('POST', `${notes}/search`, { vector: rows[0].embedding, limit: 1, exact: true });
  assert.deepEqual([status, body.error?.kind], [503, 'unavailable'], JSON.stringify(body));
  assert.match(body.error.message, /vector-0: the bucket failed 3 times/);
  await edge.kill();
  await edge.restart({});
  await hasAll(edge, rows);
});

test('what could not be removed from the bucket is removed later', async (t) => {
  const edge = await start(t, { FAULT: 'deletes' });
  await fill(edge, makeRows(0));
  await rests(edge);
  const [key] = await edge.keys();
  await ask(edge, 'DELETE', notes);
  await rests(edge);
  assert.match(edge.output(), /litter stays in the bucket/);
  assert.deepEqual(await edge.keys(), [key]);
  await edge.kill();
  await edge.restart({});
  assert.deepEqual((await ask(edge, 'GET', '/databases/mine/collections')).collections, []);
  await until([], () => edge.keys());
});

test('a database gets a bucket later; without it again it says so, and loses nothing', async (t) => {
  const edge = await start(t, {}, { bucket: false });
  const rows = makeRows(0);
  await fill(edge, rows);
  await rests(edge);
  assert.deepEqual(await edge.keys(), []);
  await edge.kill();
  await edge.restart({}, { bucket: true });
  await hasAll(edge, rows);
  const more = makeRows(ROWS);
  await fill(edge, more);
  await rests(edge);
  const keys = await edge.keys();
  assert.ok(keys.length > 0);
  await edge.kill();
  await edge.restart({}, { bucket: false });
  const { status, body } = await edge.ask('POST', `${notes}/count`, {});
  assert.deepEqual([status, body.error?.kind], [503, 'unavailable'], JSON.stringify(body));
  assert.match(body.error.message, /bind the bucket as SEGMENTS again/);
  await edge.kill();
  await edge.restart({}, { bucket: true });
  await hasAll(edge, [...rows, ...more]);
});
