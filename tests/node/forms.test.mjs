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
