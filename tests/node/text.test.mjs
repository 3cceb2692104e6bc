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
