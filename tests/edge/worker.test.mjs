// What the edge worker answers over HTTP.

import assert from 'node:assert/strict';
import test from 'node:test';

import { dim, makeRows, nearest, schema } from '../support/vectors.mjs';
import { Edge, token } from '../support/workerd.mjs';

test('rows written through the worker are found, also after it was killed', async (t) => {
  const rows = makeRows(600);
  const edge = await Edge.start(t);
  const notes = '/databases/mine/collections/notes';
  assert.deepEqual(await edge.ask('GET', '/health'), { status: 200, body: { ok: true } });
  assert.deepEqual(await edge.ask('PUT', notes, schema), { status: 200, body: { created: 'notes' } }, edge.output());
  for (let from = 0; from < 600; from += 100) {
    const { status, body } = await edge.ask('POST', `${notes}/upsert`, { rows: rows.slice(from, from + 100) });
    assert.deepEqual([status, body.count], [200, 100], JSON.stringify(body));
  }
  assert.equal((await edge.ask('POST', `${notes}/delete`, { keys: [17] })).body.count, 1);
  // The answer to the last write is here, so it is on disk.
  await edge.kill();
  await edge.restart();
  const living = rows.filter((row) => row.id !== 17);
  assert.deepEqual((await edge.ask('POST', `${notes}/count`, {})).body, { count: 599 });
  const vector = rows[17].embedding;
  const { status, body } = await edge.ask('POST', `${notes}/search`, { vector, limit: 5, exact: true, filter: 'year > 1950', outputFields: ['title', 'embedding'] });
  assert.equal(status, 200, JSON.stringify(body));
  assert.deepEqual(body.hits.map((hit) => hit.key), nearest(living, vector, 5, (row) => row.year > 1950).map((hit) => hit.key));
  assert.equal(body.hits[0].row.embedding.length, dim);
  assert.deepEqual((await edge.ask('POST', `${notes}/query`, { filter: 'id < 3', outputFields: ['title'] })).body.rows, [{ title: 'row 0' }, { title: 'row 1' }, { title: 'row 2' }]);
  assert.deepEqual((await edge.ask('POST', `${notes}/get`, { keys: [17, 18], outputFields: ['id'] })).body.rows, [{ id: 18 }]);
  const described = (await edge.ask('GET', notes)).body;
  assert.equal(described.stats.rows, 599);
  assert.deepEqual(Object.keys(described.schema.fields), Object.keys(schema.fields));
  // Another name is another database.
  assert.deepEqual((await edge.ask('GET', '/databases/other/collections')).body, { collections: [] });
  assert.deepEqual((await edge.ask('DELETE', notes)).body, { dropped: 'notes' });
  assert.deepEqual((await edge.ask('GET', '/databases/mine/collections')).body, { collections: [] });
});

test('bad requests get a status and an error with its kind', async (t) => {
  const edge = await Edge.start(t);
  const ask = edge.ask.bind(edge);
  const notes = '/databases/mine/collections/notes';
  await ask('PUT', notes, schema);
  const cases = [
    ['GET', '/elsewhere', undefined, 404, 'not_found'],
    ['GET', '/databases/..%2f/collections', undefined, 404, 'not_found'],
    ['GET', '/databases/mine/sync', undefined, 400, 'invalid_argument'],
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
