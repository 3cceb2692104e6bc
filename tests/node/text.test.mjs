import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    title: { type: 'varchar', analyzer: 'english' },
    body: { type: 'varchar', enableAnalyzer: true, nullable: true },
    tags: { type: 'varchar', analyzer: { tokenizer: 'whitespace', filter: ['lowercase', { type: 'length', max: 5 }] }, default: '' },
  },
};

const rows = [
  { id: 1, title: 'The rivers are running', body: 'Rain falls on the river.', tags: 'WATER longer-than-five' },
  { id: 2, title: 'A stone bridge', body: 'Over the river, of stone: the bridge', tags: 'stone' },
  { id: 3, title: 'Night train', body: null },
];

test('text is searched by its words', async (t) => {
  const db = await open({ name: 'text', storage: 'memory' });
  t.after(() => db.close());
  const texts = await db.createCollection('texts', schema);
  await texts.insert(rows);
  const found = async (text, field, more = {}) => (await texts.search({ text, field, ...more })).hits.map((hit) => hit.key);
  for (const state of ['growing', 'flushed']) {
    assert.deepEqual(await found('river run', 'title'), [1], state);
    assert.deepEqual((await found('river', 'body')).sort(), [1, 2], state);
    assert.deepEqual(await found('river', 'body', { filter: 'id > 1' }), [2], state);
    assert.deepEqual(await found('water', 'tags'), [1], state);
    assert.deepEqual(await found('longer-than-five', 'tags'), [], state);
    const { hits } = await texts.search({ text: 'the bridge', field: 'body', bm25: { k1: 2, b: 0 }, outputFields: ['title'] });
    assert.equal(hits[0].row.title, 'A stone bridge');
    assert.ok(hits[0].score > 0);
    assert.equal(hits[0].highlights, undefined);
    const shown = await texts.search({ text: 'rain', field: 'body', outputFields: ['id'], highlight: { preTag: '[', postTag: ']' } });
    assert.deepEqual(shown.hits, [{ key: 1, score: shown.hits[0].score, row: { id: 1 }, highlights: { body: ['[Rain] falls on the river'] } }]);
    assert.equal(await texts.count({ filter: "text_match(body, 'RAIN train')" }), 1, state);
    assert.equal(await texts.count({ filter: "phrase_match(body, 'the bridge')" }), 1, state);
    assert.equal(await texts.count({ filter: "text_match_fuzzy(body, 'rivet', 1)" }), 2, state);
    await texts.flush();
  }
  assert.deepEqual((await texts.schema()).fields.title.analyzer, 'english');
  await assert.rejects(texts.search({ text: 'x' }), (error) => error.kind === 'invalid_argument' && /title, body, tags/.test(error.message));
  await assert.rejects(texts.search({ text: 5, field: 'title' }), (error) => error.kind === 'invalid_argument');
  await assert.rejects(
    db.createCollection('wrong', { fields: { id: { type: 'int64', primaryKey: true }, n: { type: 'int64', analyzer: 'english' } } }),
    (error) => error.kind === 'invalid_argument' && /analyzer is for varchar/.test(error.message),
  );
});

test('indexes of values and of sparse vectors change no answer', async (t) => {
  const db = await open({ name: 'values', storage: 'memory' });
  t.after(() => db.close());
  const fields = (index, sparse) => ({
    id: { type: 'int64', primaryKey: true },
    price: { type: 'double', nullable: true, ...(index && { index: { type: 'STL_SORT' } }) },
    kind: { type: 'varchar', ...(index && { index: { type: 'TRIE' } }) },
    terms: { type: 'sparse_float_vector', index: { type: sparse } },
  });
  const plain = await db.createCollection('plain', { fields: fields(false, 'FLAT') });
  const indexed = await db.createCollection('indexed', { fields: fields(true, 'SPARSE_WAND') });
  const rows = Array.from({ length: 300 }, (_, id) => ({
    id,
    price: id % 7 === 0 ? null : (id * 37 % 100) / 4,
    kind: `kind-${id % 5}`,
    terms: { [id % 11]: 1 + (id % 3), [20 + (id % 13)]: 0.5 },
  }));
  for (const collection of [plain, indexed]) {
    await collection.insert(rows.slice(0, 200));
    await collection.flush();
    await collection.insert(rows.slice(200));
  }
  for (const filter of ['price > 10', 'not (price > 10)', "kind like 'kind-1%' and price <= 3.5", 'price is null', "kind in ['kind-2', 'x']"]) {
    assert.equal(await indexed.count({ filter }), await plain.count({ filter }), filter);
  }
  const request = { vector: { 3: 1, 25: 2 }, limit: 20 };
  const found = await indexed.search(request);
  assert.deepEqual(found.hits.map(({ key, score }) => [key, score]), (await plain.search(request)).hits.map(({ key, score }) => [key, score]));
  assert.equal(found.segmentsByScan, 0);
  assert.ok((await indexed.search({ ...request, dropRatioSearch: 0.5 })).hits.every((hit) => hit.score > 0));
  const { terms, price } = (await indexed.schema()).fields;
  assert.deepEqual([terms.index.type, price.index.type, price.metric], ['SPARSE_INVERTED_INDEX', 'STL_SORT', undefined]);
});
