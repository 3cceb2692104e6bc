// The typed client of the worker's HTTP interface.

import assert from 'node:assert/strict';
import test from 'node:test';

import { EddyError } from 'eddydb/embedded';

import { EdgeDatabase } from '../../worker/dist/client.js';
import { makeRows, nearest, schema } from '../support/vectors.mjs';
import { Edge, token } from '../support/workerd.mjs';

test('the client writes and reads what the worker has, and throws its errors', async (t) => {
  const edge = await Edge.start(t);
  const options = { url: `http://127.0.0.1:${edge.port}/`, database: 'mine', token };
  const database = new EdgeDatabase(options);
  const rows = makeRows(50);
  const notes = await database.createCollection('notes', schema);
  assert.equal((await notes.insert(rows)).count, 50);
  assert.equal((await notes.upsert([{ ...rows[3], title: 'another' }])).count, 1);
  assert.deepEqual(await notes.get([3, 777], { outputFields: ['id', 'title'] }), [{ id: 3, title: 'another' }]);
  assert.equal((await notes.delete({ filter: 'id >= 40' })).count, 10);
  assert.equal(await notes.count({ filter: 'id < {most}', filterParams: { most: 30 } }), 30);
  assert.deepEqual(await notes.query({ filter: 'id == 7', outputFields: ['embedding'] }), [{ embedding: [...rows[7].embedding] }]);
  const { hits } = await notes.search({ vector: rows[9].embedding, limit: 3, exact: true });
  assert.deepEqual(hits.map(({ key }) => key), nearest(rows.slice(0, 40), rows[9].embedding, 3).map(({ key }) => key));
  const each = await notes.searchBatch({ vectors: [rows[9].embedding, rows[20].embedding], limit: 3, exact: true, outputFields: ['title'] });
  const keys = (hits) => hits.map(({ key }) => key);
  assert.deepEqual(each.results.map(keys), [9, 20].map((at) => keys(nearest(rows.slice(0, 40), rows[at].embedding, 3))));
  assert.deepEqual(each.results[1][0].row, { title: 'row 20' });
  const alike = await notes.searchBatch({ ids: [9], limit: 2, exact: true });
  assert.deepEqual(alike.results.map(keys), [keys(hits).slice(1)]);
  const searches = [9, 20].map((at) => ({ vector: rows[at].embedding, limit: 1, exact: true }));
  const together = await notes.hybridSearch({ searches, rerank: { type: 'weighted', weights: [0.2, 0.8] }, limit: 2, outputFields: ['id'] });
  assert.deepEqual(together.hits.map(({ row }) => row), [{ id: 20 }, { id: 9 }]);
  await assert.rejects(notes.hybridSearch({ limit: 2 }), { kind: 'invalid_argument', message: /searches: an array expected, got undefined/ });
  assert.deepEqual(await database.collections(), ['notes']);

  await assert.rejects(notes.insert([rows[1]]), (error) => error instanceof EddyError && error.kind === 'already_exists');
  await assert.rejects(notes.query({ filter: 'id ==' }), (error) => error.kind === 'invalid_argument' && Number.isInteger(error.position));
  await assert.rejects(new EdgeDatabase({ ...options, token: 'another' }).collections(), { name: 'EddyError', kind: 'unauthorized' });
  await assert.rejects(new EdgeDatabase({ ...options, fetch: async () => new Response('<html>', { status: 502 }) }).collections(), { kind: 'unavailable', message: /502/ });
  await database.dropCollection('notes');
  await assert.rejects(notes.count(), { kind: 'not_found' });
  await edge.kill();
  await assert.rejects(database.collections(), { name: 'EddyError', kind: 'unavailable' });
});
