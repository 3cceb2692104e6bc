// The forms of search and query: several at once, like other rows, in a range, in groups, in order, added up, and a few at a time.

import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

import { dim, direction, random } from '../support/vectors.mjs';

const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    shelf: { type: 'varchar', nullable: true },
    price: { type: 'double', nullable: true },
    v: { type: 'float_vector', dim, metric: 'IP' },
  },
  dynamic: true,
};

async function filled(t, options = {}) {
  const db = await open({ name: 'forms', storage: 'memory', ...options });
  t.after(() => db.close());
  const books = await db.createCollection('books', schema);
  const next = random(7);
  const rows = Array.from({ length: 1500 }, (_, id) => ({
    id,
    shelf: id % 10 === 0 ? null : `S${id % 7}`,
    price: id % 13 === 0 ? null : (id % 40) / 4,
    v: direction(next, dim),
    color: ['red', 'blue', 'green'][id % 3],
  }));
  for (let first = 0; first < rows.length; first += 500) {
    await books.insert(rows.slice(first, first + 500));
    if (first < 1000) await books.flush();
  }
  return { books, rows, next };
}

const score = (a, b) => a.reduce((sum, value, at) => sum + value * b[at], 0);
const ranked = (rows, vector) => rows.map((row) => ({ row, score: score(row.v, vector) })).sort((a, b) => b.score - a.score);
const keys = (hits) => hits.map((hit) => hit.key);

test('several queries at once, and rows like others', async (t) => {
  const { books, rows, next } = await filled(t);
  const vectors = [direction(next, dim), direction(next, dim), direction(next, dim)];
  const together = await books.search({ vectors, limit: 4, exact: true, filter: "color == 'red'", outputFields: ['color'] });
  assert.equal(together.results.length, 3);
  assert.ok(!('hits' in together) && together.segmentsByScan > 0);
  for (const [at, vector] of vectors.entries()) {
    const alone = await books.search({ vector, limit: 4, exact: true, filter: "color == 'red'", outputFields: ['color'] });
    assert.deepEqual(together.results[at], alone.hits);
  }
  const { results } = await books.search({ ids: [17], limit: 5, exact: true });
  assert.deepEqual(keys(results[0]), ranked(rows.filter((row) => row.id !== 17), rows[17].v).slice(0, 5).map(({ row }) => row.id));
  await assert.rejects(books.search({ ids: [99_999] }), (error) => error.kind === 'not_found');
  await assert.rejects(books.search({ vectors: [] }), /at least one expected/);
  await assert.rejects(books.search({ vectors: [[1, 2]] }), /query vector/);
});

test('ranges and groups', async (t) => {
  const { books, rows, next } = await filled(t);
  const vector = direction(next, dim);
  const all = ranked(rows, vector);
  const [near, far] = [(all[9].score + all[10].score) / 2, (all[39].score + all[40].score) / 2];
  const ranged = await books.search({ vector, radius: far, rangeFilter: near, limit: 100, exact: true });
  assert.deepEqual(keys(ranged.hits), all.slice(10, 40).map(({ row }) => row.id));
  const grouped = await books.search({ vector, groupBy: 'shelf', groupSize: 2, strictGroupSize: true, limit: 8, exact: true });
  assert.equal(grouped.hits.length, 16);
  const best = new Map();
  for (const { row } of all) best.set(row.shelf, [...(best.get(row.shelf) ?? []), row.id].slice(0, 2));
  assert.deepEqual(keys(grouped.hits), [...best.values()].flat());
  await assert.rejects(books.search({ vector, radius: 1, rangeFilter: 0.5 }), /nearer bound/);
});

test('iterators go through everything once', async (t) => {
  const { books, rows, next } = await filled(t);
  const vector = direction(next, dim);
  const found = [];
  for await (const hits of books.searchIterator({ vector, batchSize: 130, filter: 'price > 1', exact: true, outputFields: ['price'] })) {
    assert.ok(hits.length <= 130 && hits.every((hit) => hit.row.price > 1));
    found.push(...keys(hits));
    await books.upsert([{ ...rows[found.length], price: 0 }]);
  }
  assert.deepEqual(found, ranked(rows.filter((row) => row.price > 1), vector).map(({ row }) => row.id));
  const scanned = [];
  for await (const page of books.queryIterator({ batchSize: 400, offset: 100, limit: 900, outputFields: ['id'] })) scanned.push(...page.map((row) => row.id));
  assert.deepEqual(scanned, rows.slice(100, 1000).map((row) => row.id));
  // What is left early is let go of.
  for await (const hits of books.searchIterator({ vector })) {
    assert.equal(hits.length, 1000);
    break;
  }
  await assert.rejects(async () => { for await (const _ of books.searchIterator({ vector, batchSize: 0 })); }, /batchSize/);
});

test('rows in order, and what groups come to', async (t) => {
  const { books, rows } = await filled(t);
  const dearest = await books.query({ orderBy: ['price desc', 'id'], limit: 5, outputFields: ['id', 'price'] });
  const expected = rows.filter((row) => row.price !== null).sort((a, b) => b.price - a.price || a.id - b.id);
  assert.deepEqual(dearest.map((row) => row.id), expected.slice(0, 5).map((row) => row.id));
  const shelves = await books.query({ groupBy: ['color'], outputFields: ['color', 'count(*)', 'avg(price)', 'max(id)'], orderBy: ['max(id) desc'] });
  assert.deepEqual(shelves.map((row) => row.color), ['green', 'blue', 'red']);
  const green = rows.filter((row) => row.color === 'green');
  const priced = green.filter((row) => row.price !== null);
  assert.equal(shelves[0]['count(*)'], green.length);
  assert.equal(shelves[0]['max(id)'], 1499);
  assert.ok(Math.abs(shelves[0]['avg(price)'] - priced.reduce((sum, row) => sum + row.price, 0) / priced.length) < 1e-9);
  assert.deepEqual(await books.query({ filter: 'id < 10', outputFields: ['count(*)', 'sum(id)', 'min(shelf)'] }), [{ 'count(*)': 10, 'sum(id)': 45, 'min(shelf)': 'S0' }]);
  await assert.rejects(books.query({ groupBy: ['color'], outputFields: ['price'] }), /beside groups/);
});

test('several searches are ranked together', async (t) => {
  const { books, rows, next } = await filled(t);
  const [one, two] = [direction(next, dim), direction(next, dim)];
  const searches = [{ vector: one, limit: 30, exact: true, filter: "color == 'red'" }, { vector: two, limit: 20, exact: true }];
  const lists = [ranked(rows.filter((row) => row.color === 'red'), one).slice(0, 30), ranked(rows, two).slice(0, 20)];
  const fused = (part) => {
    const scores = new Map();
    lists.forEach((list, at) => list.forEach(({ row, score }, rank) => scores.set(row.id, (scores.get(row.id) ?? 0) + part(at, rank, score))));
    return scores;
  };
  const check = (hits, scores, limit) => {
    const expected = [...scores.values()].sort((a, b) => b - a).slice(0, limit);
    assert.equal(hits.length, expected.length);
    hits.forEach((hit, at) => assert.ok(Math.abs(hit.score - expected[at]) < 1e-5 && Math.abs(hit.score - scores.get(hit.key)) < 1e-5));
  };
  check((await books.hybridSearch({ searches })).hits, fused((_, rank) => 1 / (61 + rank)), 10);
  const weighted = { type: 'weighted', weights: [0.8, 0.2] };
  const norm = (score) => 0.5 + Math.atan(score) / Math.PI;
  const scores = fused((at, _, score) => weighted.weights[at] * norm(score));
  check((await books.hybridSearch({ searches, rerank: weighted, limit: 25 })).hits, scores, 25);
  const rankers = [
    { function: 'linear', field: 'price', origin: 5, scale: 5 },
    { boost: 2, filter: 'shelf == {shelf}', filterParams: { shelf: 'S1' } },
  ];
  for (const [id, score] of scores) {
    const decay = rows[id].price === null ? 0 : Math.max(0, 1 - Math.abs(rows[id].price - 5) * 0.1);
    scores.set(id, score * decay * (rows[id].shelf === 'S1' ? 2 : 1));
  }
  const { hits } = await books.hybridSearch({ searches, rerank: weighted, rankers, limit: 12, outputFields: ['shelf'] });
  check(hits, scores, 12);
  assert.equal(hits[0].row.shelf, rows[hits[0].key].shelf);
  const reranked = await books.search({ vector: one, limit: 3, rankers, exact: true });
  assert.ok(reranked.hits.every((hit, at) => hit.score <= 2 && (at === 0 || hit.score <= reranked.hits[at - 1].score)));
  await assert.rejects(books.hybridSearch({ searches, rerank: { type: 'weighted', weights: [1] } }), /1 weights for 2 searches/);
  await assert.rejects(books.hybridSearch({ searches, rerank: { type: 'mean' } }), /of type rrf/);
  await assert.rejects(books.hybridSearch({ searches: [] }), /expected 1 to/);
  await assert.rejects(books.search({ vector: one, rankers: [{ function: 'gauss', field: 'price', origin: 1, scale: 0 }] }), /scale above 0/);
});

test('a plan tells how a read is done', async (t) => {
  const { books, next } = await filled(t);
  const vector = direction(next, dim);
  const plan = await books.explainSearch({ vector, filter: 'price > 2' });
  assert.equal(plan.step, 'read');
  assert.ok(plan.cost > 0 && plan.actual === undefined && plan.steps[0].steps.length > 0);
  const profile = await books.explainSearch({ vector, filter: 'price > 2' }, { profile: true });
  assert.equal(profile.actual.rows, 10);
  assert.ok(profile.actual.ms >= 0);
  const looked = await books.explainQuery({ filter: 'id in [3, 4]' }, { profile: true });
  assert.equal(looked.actual.rows, 2);
  assert.ok(looked.steps.every((segment) => ['look up', 'skip'].includes(segment.steps[0].step)));
});

test('how several searches are done, and how much a read must see', async (t) => {
  const { books, rows, next } = await filled(t);
  const request = {
    searches: [{ vector: direction(next, dim), filter: "color == 'red'" }, { vector: direction(next, dim), limit: 5 }],
    rerank: { type: 'rrf', k: 10 },
    limit: 8,
  };
  const plan = await books.explainHybrid(request);
  assert.equal(plan.actual, undefined);
  const [fuse] = plan.steps;
  assert.deepEqual([plan.step, fuse.step, fuse.detail], ['read', 'fuse', 'rrf, k 10']);
  assert.deepEqual(fuse.steps.map(({ step }) => step), ['nearest', 'nearest']);
  assert.ok(fuse.cost > fuse.steps[0].cost + fuse.steps[1].cost);
  const profile = await books.explainHybrid(request, { profile: true });
  const { hits } = await books.hybridSearch(request);
  assert.equal(profile.actual.rows, hits.length);
  const [red, all] = profile.steps[0].steps;
  assert.deepEqual([red.actual.rows, all.actual.rows], [10, 5]);
  const admitted = red.steps.map((segment) => segment.steps[0].actual.rows).reduce((sum, count) => sum + count, 0);
  assert.equal(admitted, rows.filter(({ color }) => color === 'red').length);
  await assert.rejects(books.explainHybrid({ searches: [] }), (error) => error.kind === 'invalid_argument');

  const { sessionToken } = await books.upsert([{ ...rows[3], price: 99 }]);
  for (const seen of [
    { consistency: 'strong' },
    { consistency: 'bounded' },
    { consistency: { bounded: 0 } },
    { consistency: 'session' },
    { sessionToken },
    { sessionToken: [sessionToken], timeoutMs: 0 },
    { consistency: 'eventually' },
  ]) {
    assert.deepEqual(await books.get([3], { outputFields: ['price'], ...seen }), [{ price: 99 }]);
    assert.equal(await books.count({ filter: 'price == 99', ...seen }), 1);
    assert.equal((await books.search({ vector: rows[3].v, limit: 1, exact: true, ...seen })).hits[0].key, 3);
    for await (const found of books.queryIterator({ filter: 'id == 3', ...seen })) assert.equal(found[0].price, 99);
  }
  await assert.rejects(books.count({ sessionToken: '1-1', timeoutMs: 5 }), (error) => error.kind === 'unavailable' && /after 5 ms/.test(error.message));
  for (const wrong of [{ consistency: 'best' }, { consistency: {} }, { consistency: { bounded: -1 } }, { sessionToken: 7 }, { sessionToken: 'x' }, { consistency: 'strong', timeoutMs: 0.5 }]) {
    await assert.rejects(books.count(wrong), (error) => error.kind === 'invalid_argument', JSON.stringify(wrong));
  }
  const snapshot = await books.snapshot();
  await assert.rejects(snapshot.count({ consistency: 'strong' }), /whatever the consistency/);
  await snapshot.release();
});
