// What filters can say, through the package: regular expressions, samples, and values beside the text.

import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    title: { type: 'varchar', nullable: true },
    year: { type: 'int32', nullable: true },
    v: { type: 'float_vector', dim: 2 },
  },
  dynamic: true,
};

async function filled(t) {
  const db = await open({ name: 'expressions', storage: 'memory' });
  t.after(() => db.close());
  const books = await db.createCollection('books', schema);
  const titles = ["It's a day", 'day and night', 'Night', null];
  await books.insert(Array.from({ length: 400 }, (_, id) => ({ id, title: titles[id % 4], year: 1900 + (id % 100), v: [id, 1], shelf: `S${id % 3}` })));
  return books;
}

test('values stand beside the text', async (t) => {
  const books = await filled(t);
  const filter = 'title == {title} and year in {years} and shelf == {shelf}';
  const filterParams = { title: "It's a day", years: [1900, 1904, 1908n], shelf: 'S1' };
  const expected = [4, 100, 208, 304];
  assert.deepEqual((await books.query({ filter, filterParams })).map((row) => row.id), expected);
  assert.equal(await books.count({ filter, filterParams }), expected.length);
  const { hits } = await books.search({ vector: [4, 1], filter, filterParams, exact: true });
  assert.deepEqual(hits.map((hit) => hit.key).sort((a, b) => a - b), expected);
  await assert.rejects(books.query({ filter, filterParams: { title: 'x' } }), (error) => error.kind === 'invalid_argument' && error.position === 30 && /`years`/.test(error.message));
  await assert.rejects(books.query({ filter: 'id == {id}', filterParams: { id: null } }), /is null/);
  assert.equal((await books.delete({ filter: 'id in {ids}', filterParams: { ids: [4, 5] } })).count, 2);
  assert.equal(await books.count({ filter, filterParams }), expected.length - 1);
});

test('regular expressions and samples', async (t) => {
  const books = await filled(t);
  const count = (filter) => books.count({ filter });
  assert.equal(await count("title =~ '(?i)night'"), 200);
  assert.equal(await count("title =~ r'^\\w+$'"), 100);
  assert.equal(await count("title !~ 'day$'"), 200);
  assert.equal(await count("shelf =~ '[01]$' and title is null"), 67);
  const sampled = await books.query({ filter: 'year < 1950 and random_sample(0.25)' });
  assert.ok(sampled.length > 20 && sampled.length < 90 && sampled.every((row) => row.year < 1950), `${sampled.length}`);
  assert.deepEqual(await books.query({ filter: 'year < 1950 and random_sample(0.25)' }), sampled);
  await assert.rejects(count("title =~ 'a('"), (error) => error.kind === 'invalid_argument' && error.position === 9);
});
