// The worker's entrypoint for other workers: a second one with a service binding to it, in workerd.

import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { makeRows, nearest, schema } from '../support/vectors.mjs';
import { Edge } from '../support/workerd.mjs';

/** Calls the entrypoint as it is asked to, by the binding itself or by the typed client over it. */
const script = build({
  stdin: {
    contents: `
      import { EddyError } from 'eddydb/embedded';
      import { EdgeDatabase } from './worker/dist/client.js';

      const calls = {
        binding: (env, { database, operation, given }) => env.EDDY[operation](database, ...given),
        client: (env, { database, operation, collection, given }) => {
          const client = new EdgeDatabase({ binding: env.EDDY, database });
          return (collection === undefined ? client : client.collection(collection))[operation](...given);
        },
      };

      export default {
        async fetch(request, env) {
          const call = calls[new URL(request.url).pathname.slice(1)];
          if (!call) return env.MAIN.fetch(request);
          try {
            // What the caller gives is JSON: a vector is one of numbers, or of the type that fields have.
            const { typed, ...asked } = await request.json();
            if (typed) asked.given[0].vector = new Float32Array(asked.given[0].vector);
            return Response.json({ value: (await call(env, asked)) ?? null });
          } catch (error) {
            const { name, kind, message, position } = error;
            return Response.json({ error: { name, kind, message, position, isEddyError: error instanceof EddyError } });
          }
        },
      };`,
    resolveDir: fileURLToPath(new URL('../..', import.meta.url)),
    loader: 'js',
  },
  bundle: true,
  write: false,
  format: 'esm',
  platform: 'neutral',
  mainFields: ['module', 'main'],
  target: 'es2022',
  logLevel: 'warning',
}).then(({ outputFiles }) => outputFiles[0].text);

async function start(t, compatibilityDate = '2026-11-01') {
  const edge = await Edge.start(t, {}, { caller: { script: await script, compatibilityDate } });
  const ask = async (by, asked) => (await edge.ask('POST', `/${by}`, asked)).body;
  const value = async (by, asked) => {
    const answer = await ask(by, asked);
    assert.equal(answer.error, undefined, `${JSON.stringify(asked)}\n${edge.output()}`);
    return answer.value;
  };
  return {
    edge,
    ask,
    binding: (operation, ...given) => value('binding', { database: 'mine', operation, given }),
    client: (collection, operation, ...given) => value('client', { database: 'mine', collection, operation, given }),
    typed: (operation, ...given) => value('client', { database: 'mine', collection: 'notes', operation, given, typed: true }),
  };
}

test('another worker writes and reads what HTTP does', async (t) => {
  const { edge, binding } = await start(t);
  const rows = makeRows(50);
  await binding('createCollection', 'notes', schema);
  const { count, lsn } = await binding('insert', 'notes', rows);
  assert.equal(count, 50);
  assert.deepEqual(await binding('upsert', 'notes', [{ ...rows[3], title: 'another' }]), { count: 1, lsn: lsn + 1 });
  assert.deepEqual(await binding('get', 'notes', [3, 777], { outputFields: ['id', 'title'] }), [{ id: 3, title: 'another' }]);
  assert.equal((await binding('delete', 'notes', { filter: 'id >= 40' })).count, 10);
  assert.equal(await binding('count', 'notes', { filter: 'id < {most}', filterParams: { most: 30 } }), 30);
  assert.equal(await binding('count', 'notes'), 40);
  assert.deepEqual(await binding('query', 'notes', { filter: 'id == 7', outputFields: ['embedding'] }), [{ embedding: [...rows[7].embedding] }]);
  const search = { vector: rows[9].embedding, limit: 3, exact: true, outputFields: ['title', 'embedding'] };
  const found = await binding('search', 'notes', search);
  assert.deepEqual(found.hits.map(({ key }) => key), nearest(rows.slice(0, 40), rows[9].embedding, 3).map(({ key }) => key));
  const each = await binding('searchBatch', 'notes', { ids: [9, 8], limit: 2, exact: true });
  assert.deepEqual(each.results[0].map(({ key }) => key), found.hits.slice(1).map(({ key }) => key));
  assert.equal(each.results.length, 2);
  const both = await binding('hybridSearch', 'notes', { searches: [search, { vector: rows[9].embedding, limit: 1 }].map(({ outputFields, ...bare }) => bare), limit: 1 });
  assert.deepEqual(both.hits.map(({ key }) => key), [9]);
  assert.deepEqual(await binding('collections'), ['notes']);
  // HTTP has the same database, and answers the same.
  const http = async (method, path, body) => (await edge.ask(method, `/databases/mine/collections/notes${path}`, body)).body;
  const { ms: _, ...answered } = await http('POST', '/search', search);
  assert.deepEqual(found, { ...answered, ms: found.ms });
  assert.deepEqual(await binding('describe', 'notes'), await http('GET', ''));
  assert.deepEqual((await edge.ask('GET', '/databases/other/collections')).body, { collections: [] });
  await binding('dropCollection', 'notes');
  assert.deepEqual(await binding('collections'), []);
});

test('errors have their kind, message and position in the other worker', async (t) => {
  const { edge, ask, binding } = await start(t);
  await binding('createCollection', 'notes', schema);
  const [row] = makeRows(1);
  await binding('insert', 'notes', [row]);
  const cases = [
    [{ database: 'mine', operation: 'count', given: ['none'] }, 'not_found', /none/],
    [{ database: 'mine', operation: 'insert', given: ['notes', [row]] }, 'already_exists', /0/],
    [{ database: 'mine', operation: 'query', given: ['notes', { filter: 'year >' }] }, 'invalid_argument', /year/],
    [{ database: 'mine', operation: 'insert', given: ['notes'] }, 'invalid_argument', /rows: an array expected, got undefined/],
    [{ database: 'mine', operation: 'get', given: ['notes', 'all'] }, 'invalid_argument', /keys: an array expected, got string/],
    [{ database: 'mine', operation: 'search', given: ['notes'] }, 'invalid_argument', /the request: an object expected, got undefined/],
    [{ database: 'mine', operation: 'search', given: ['notes', { ids: [0] }] }, 'invalid_argument', /searchBatch/],
    [{ database: 'mine', operation: 'searchBatch', given: ['notes', { vector: row.embedding }] }, 'invalid_argument', /vectors or ids/],
    [{ database: 'mine', operation: 'hybridSearch', given: ['notes', { searches: [7] }] }, 'invalid_argument', /a search: an object expected, got 7/],
    [{ database: 'mine', operation: 'delete', given: ['notes', [1]] }, 'invalid_argument', /the target: an object expected, got an array/],
    [{ database: '../mine', operation: 'collections', given: [] }, 'invalid_argument', /is no name of a database/],
    [{ operation: 'collections', given: [] }, 'invalid_argument', /is no name of a database/],
  ];
  for (const [asked, kind, message] of cases) {
    const { error } = await ask('binding', asked);
    assert.deepEqual([error?.name, error?.kind], ['EddyError', kind], JSON.stringify([asked, error]));
    assert.match(error.message, message);
  }
  // As HTTP says them, and with a class in the client.
  const { body } = await edge.ask('POST', '/databases/mine/collections/notes/query', { filter: 'year >' });
  const { isEddyError, ...error } = (await ask('client', { database: 'mine', collection: 'notes', operation: 'query', given: [{ filter: 'year >' }] })).error;
  assert.deepEqual([isEddyError, error], [true, { name: 'EddyError', ...body.error }]);
});

test('the client asks through a binding as it asks over HTTP', async (t) => {
  const { client, typed } = await start(t);
  const rows = makeRows(50);
  await client(undefined, 'createCollection', 'notes', schema);
  assert.equal((await client('notes', 'insert', rows)).count, 50);
  assert.deepEqual(await client('notes', 'get', [3, 777], { outputFields: ['id'] }), [{ id: 3 }]);
  assert.equal((await client('notes', 'delete', { keys: [49] })).count, 1);
  assert.equal(await client('notes', 'count'), 49);
  assert.equal((await client('notes', 'describe')).stats.rows, 49);
  assert.deepEqual(await client('notes', 'query', { filter: 'id == 7', outputFields: ['title'] }), [{ title: 'row 7' }]);
  const search = { vector: rows[9].embedding, limit: 3, exact: true };
  const { hits } = await client('notes', 'search', search);
  assert.deepEqual(hits.map(({ key }) => key), nearest(rows.slice(0, 49), rows[9].embedding, 3).map(({ key }) => key));
  assert.deepEqual((await typed('search', search)).hits, hits);
  assert.deepEqual(await client(undefined, 'collections'), ['notes']);
});

test('a caller of an old compatibility date hears how it comes by kinds', async (t) => {
  const { ask } = await start(t, '2026-01-01');
  const { error } = await ask('client', { database: 'mine', collection: 'none', operation: 'count', given: [] });
  assert.deepEqual([error.isEddyError, error.kind], [true, 'internal']);
  assert.match(error.message, /none.*\(its kind comes with the compatibility flag enhanced_error_serialization\)/);
});
