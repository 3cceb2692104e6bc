import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

import { dim, direction, makeRows, nearest, random, schema } from '../support/vectors.mjs';

test('search finds what looking at every row finds', async (t) => {
  const db = await open({ name: 'search', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', schema);
  const rows = makeRows(3000);
  await notes.insert(rows.slice(0, 2000));
  for (let first = 2000; first < 3000; first += 100) await notes.insert(rows.slice(first, first + 100));
  await notes.delete({ filter: 'id % 10 == 3' });
  const living = rows.filter((row) => row.id % 10 !== 3);
  // Searches are right whether or not rows are in the index yet; with them in it, the graph is what answers.
  while ((await notes.stats()).rowsUnindexed > 0) await new Promise((resolve) => setImmediate(resolve));

  const next = random(99);
  let found = 0;
  let wanted = 0;
  for (let query = 0; query < 50; query++) {
    const vector = direction(next, dim);
    const expected = nearest(living, vector, 10);
    const exact = await notes.search({ vector, limit: 10, exact: true });
    assert.deepEqual(exact.hits.map((hit) => hit.key), expected.map((hit) => hit.key));
    exact.hits.forEach((hit, index) => assert.ok(Math.abs(hit.score - expected[index].score) < 1e-5));
    assert.ok(exact.rowsScanned >= living.length);

    const { hits, segmentsByIndex, ms } = await notes.search({ vector, limit: 10 });
    assert.ok(segmentsByIndex >= 1);
    assert.ok(ms >= 0);
    assert.equal(hits.length, 10);
    assert.ok(hits.every((hit, index) => index === 0 || hit.score <= hits[index - 1].score));
    const keys = new Set(hits.map((hit) => hit.key));
    found += expected.filter((hit) => keys.has(hit.key)).length;
    wanted += 10;

    const filtered = await notes.search({ vector, limit: 5, filter: 'year < 1910 and weight > 0.5', exact: true, outputFields: ['year', 'weight'] });
    assert.deepEqual(
      filtered.hits.map((hit) => hit.key),
      nearest(living, vector, 5, (row) => row.year < 1910 && row.weight > 0.5).map((hit) => hit.key),
    );
    assert.ok(filtered.hits.every(({ row }) => Object.keys(row).sort().join() === 'weight,year' && row.year < 1910));

    const page = await notes.search({ vector, limit: 4, offset: 3, exact: true });
    assert.deepEqual(page.hits.map((hit) => hit.key), expected.slice(3, 7).map((hit) => hit.key));
  }
  assert.ok(found / wanted >= 0.95, `recall@10 is ${found / wanted}`);
});

test('scores follow the metric', async (t) => {
  const db = await open({ name: 'metrics', storage: 'memory' });
  t.after(() => db.close());
  const points = [[1, 1], [2, 2], [-2, 0.5]];
  // Of the query [2, 2] with each point, best first.
  const expected = {
    L2: [[1, 0], [0, 2], [2, 18.25]],
    IP: [[1, 8], [0, 4], [2, -3]],
    COSINE: [[0, 1], [1, 1], [2, -3 / (Math.sqrt(8) * Math.sqrt(4.25))]],
  };
  for (const [metric, hitsExpected] of Object.entries(expected)) {
    const collection = await db.createCollection(metric, {
      fields: { id: { type: 'int64', primaryKey: true }, v: { type: 'float_vector', dim: 2, metric, index: { type: 'FLAT' } } },
    });
    await collection.insert(points.map((v, id) => ({ id, v })));
    const { hits } = await collection.search({ vector: [2, 2], limit: 3 });
    for (const [key, score] of hitsExpected) {
      const hit = hits.find((candidate) => candidate.key === key);
      assert.ok(Math.abs(hit.score - score) < 1e-6, `${metric} of ${points[key]}: ${hit.score}, expected ${score}`);
    }
    if (metric !== 'COSINE') assert.deepEqual(hits.map((hit) => hit.key), hitsExpected.map(([key]) => key));
  }
});

test('recall and latency are told by ef, and the least that is enough is kept', async (t) => {
  const db = await open({ name: 'evaluate', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', schema);
  await notes.insert(makeRows(1500));
  while ((await notes.stats()).rowsUnindexed > 0) await new Promise((resolve) => setImmediate(resolve));
  const { rows, nodes, dead, unreachable, meanDegree } = (await notes.stats()).graphs;
  assert.deepEqual({ rows, nodes, dead, unreachable }, { rows: 1500, nodes: 1500, dead: 0, unreachable: 0 });
  assert.ok(meanDegree > 4 && meanDegree <= 16);

  const { field, k, sample, exact, curve } = await notes.evaluate({ k: 5, sample: 40, ef: [100, 5] });
  assert.deepEqual({ field, k, sample }, { field: 'embedding', k: 5, sample: 40 });
  assert.equal(exact.recall, 1);
  assert.deepEqual(curve.map((point) => point.ef), [5, 100]);
  assert.ok(curve[0].recall < curve[1].recall && curve[1].recall > 0.95);
  assert.ok(curve.every(({ p50Ms, p99Ms, meanMs }) => p50Ms <= p99Ms && meanMs >= 0));

  const { ef, chosen, stored, tried } = await notes.tune({ recall: 0.9, store: true, sample: 40 });
  assert.equal(stored, ef !== null);
  if (stored) assert.deepEqual([chosen.ef, (await notes.options()).ef], [ef, ef]);
  assert.ok(tried.curve.length > 0);
  await assert.rejects(notes.tune({ recall: 2 }), { kind: 'invalid_argument', message: /recall 2; expected above 0, at most 1/ });
  await assert.rejects(notes.evaluate({ k: 0 }), { kind: 'invalid_argument' });
});

test('graphs are for vectors of every width, over codes of two bits, and of bits', async (t) => {
  const db = await open({ name: 'widths', storage: 'memory' });
  t.after(() => db.close());
  const next = random(5);
  for (const [type, index] of [['float16_vector', {}], ['float_vector', { codes: 'rabitq' }], ['binary_vector', {}]]) {
    const bits = type === 'binary_vector';
    const vector = () => (bits ? Uint8Array.from({ length: 8 }, () => next() * 256) : direction(next, 64));
    const fields = { id: { type: 'int64', primaryKey: true }, v: { type, dim: 64, metric: bits ? 'HAMMING' : 'COSINE', index: { type: 'HNSW', m: 8, ...index } } };
    const rows = await db.createCollection(type, { fields });
    await rows.insert(Array.from({ length: 1200 }, (_, id) => ({ id, v: vector() })));
    while ((await rows.stats()).rowsUnindexed > 0) await new Promise((resolve) => setImmediate(resolve));
    const [{ v }] = await rows.get([77], { outputFields: ['v'] });
    const { hits, segmentsByIndex } = await rows.search({ vector: v, limit: 3 });
    assert.deepEqual([hits[0].key, segmentsByIndex], [77, 1]);
  }
});
