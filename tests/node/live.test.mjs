import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    title: { type: 'varchar' },
    v: { type: 'float_vector', dim: 2, metric: 'L2', index: { type: 'FLAT' } },
  },
};

const row = (id, x, title = 'a') => ({ id, title, v: [x, 0] });
const kind = (kind) => (error) => error.kind === kind || assert.fail(`${error.kind}: ${error.message}, expected ${kind}`);
const keys = (answer) => answer.map(({ key }) => key);
const told = ({ differences }) => differences.map(({ op, index, key, hit, from }) => [op, key ?? hit.key, index, ...(from === undefined ? [] : [from])]);

async function memory(t, options = {}) {
  const db = await open({ name: 'live', storage: 'memory', ...options });
  t.after(() => db.close());
  return { db, notes: await db.createCollection('notes', schema) };
}

test('an answer is kept current, and what happens to it is told', async (t) => {
  const { notes } = await memory(t);
  await notes.insert([row(1, 1), row(2, 2), row(3, 3), row(4, 4)]);
  const live = await notes.live({ vector: [0, 0], limit: 3, outputFields: ['title', 'v'] });
  assert.deepEqual(keys(live.answer), [1, 2, 3]);
  assert.deepEqual(live.answer[0], { key: 1, score: 1, row: { title: 'a', v: Float32Array.of(1, 0) }, version: live.answer[0].version });
  const updates = live[Symbol.asyncIterator]();
  const after = async (write) => {
    const next = updates.next();
    await write();
    return told((await next).value);
  };
  assert.deepEqual(await after(() => notes.upsert([row(3, 0.5)])), [['moved', 3, 0, 2]]);
  assert.deepEqual(await after(() => notes.upsert([row(1, 1, 'b')])), [['changed', 1, 1]]);
  assert.equal(live.answer[1].row.title, 'b');
  assert.deepEqual(await after(() => notes.insert([row(9, 0.75)])), [['left', 2, 2], ['entered', 9, 1]]);
  assert.deepEqual(await after(() => notes.delete({ keys: [3, 1] })), [['left', 3, 0], ['left', 1, 2], ['entered', 2, 1], ['entered', 4, 2]]);
  const { hits } = await notes.search({ vector: [0, 0], limit: 3, exact: true });
  assert.deepEqual(live.answer.map(({ key, score }) => [key, score]), hits.map(({ key, score }) => [key, score]));
  const ended = updates.next();
  await live.stop();
  assert.deepEqual(await ended, { done: true, value: undefined });
});

test('filters, radius, several at once; whoever looks late gets one update', async (t) => {
  const { notes } = await memory(t, { bigint: true });
  await notes.insert([row(1n, 1), row(2n, 2, 'b')]);
  const near = await notes.live({ vector: [0, 0], radius: 4, limit: 100 });
  const titled = await notes.live({ filter: 'title == {title}', filterParams: { title: 'b' } });
  const many = await Promise.all(Array.from({ length: 50 }, (_, at) => notes.live({ vector: [100 + at, 0], limit: 1 })));
  assert.deepEqual([keys(near.answer), keys(titled.answer), keys(many[7].answer)], [[1n], [2n], [2n]]);
  const updates = [];
  const forget = titled.onUpdate((update) => updates.push(told(update)));
  const late = near[Symbol.asyncIterator]();
  const first = late.next();
  await notes.upsert([row(3n, 0.5, 'b')]);
  await first;
  await notes.upsert([row(1n, 8, 'b')]);
  await notes.upsert([row(4n, 1.5)]);
  await notes.delete({ keys: [2n] });
  // The last of the writes is in both answers once this one has it.
  const last = await notes.live({ filter: 'id == 5' });
  const there = last[Symbol.asyncIterator]().next();
  await notes.insert([row(5n, 50)]);
  await there;
  assert.deepEqual(told((await late.next()).value), [['left', 1n, 1], ['entered', 4n, 1]]);
  assert.deepEqual(keys(titled.answer), [1n, 3n]);
  assert.deepEqual(updates, [[['entered', 3n, 1]], [['entered', 1n, 0]], [['left', 2n, 1]]]);
  assert.deepEqual(keys(many[7].answer), [5n]);
  forget();
  for (const live of [near, titled, last, ...many]) await live.stop();
});

test('what is wrong is told at once, and a live query ends with its database', async (t) => {
  const { db, notes } = await memory(t);
  await assert.rejects(notes.live({ vector: [0] }), kind('invalid_argument'));
  await assert.rejects(notes.live({ filter: 'x ==' }), kind('invalid_argument'));
  await assert.rejects(notes.live({ vector: [0, 0], groupBy: 'title' }), kind('unsupported'));
  const live = await notes.live({ vector: [0, 0] });
  assert.deepEqual(live.answer, []);
  const closed = assert.rejects(live[Symbol.asyncIterator]().next(), kind('closed'));
  await db.close();
  await closed;
  assert.equal(live.error.kind, 'closed');
});

test('several searches, ranked together, are kept current', async (t) => {
  const fields = { ...schema.fields, w: { type: 'float_vector', dim: 2, metric: 'COSINE', index: { type: 'FLAT' } } };
  const both = (id, x, w) => ({ ...row(id, x), w });
  const db = await open({ name: 'hybrid', storage: 'memory', streams: true });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', { fields });
  await notes.insert([both(1, 1, [1, 0]), both(2, 2, [0, 1]), both(3, 3, [1, 1]), both(4, 4, [-1, 0])]);
  const searches = [{ field: 'v', vector: [0, 0], limit: 3 }, { field: 'w', vector: [0, 1], limit: 3, filter: 'id > 1' }];
  const request = { searches, rerank: { type: 'weighted', weights: [0.4, 0.6] }, limit: 2, outputFields: ['title'] };
  const live = await notes.live({ hybrid: request });
  const fresh = async () => (await notes.hybridSearch({ ...request, searches: searches.map((search) => ({ ...search, exact: true })) })).hits.map(({ key, score, row }) => ({ key, score, row }));
  const shown = () => live.answer.map(({ key, score, row }) => ({ key, score, row }));
  assert.deepEqual(shown(), await fresh());
  for (const write of [() => notes.upsert([both(4, 0.1, [0, 2])]), () => notes.delete({ keys: [2] }), () => notes.insert([both(5, 0.2, [1, 5])])]) {
    const updated = new Promise((resolve) => live.onUpdate(resolve));
    await write();
    await updated;
    assert.deepEqual(shown(), await fresh());
  }
  await assert.rejects(notes.live({ hybrid: request, limit: 2 }), kind('invalid_argument'));
  await assert.rejects(notes.live({ hybrid: { searches: [{ field: 'title', vector: 'words' }] } }), ({ kind }) => ['unsupported', 'invalid_argument'].includes(kind));

  const { notes: plain } = await memory(t);
  await assert.rejects(plain.live({ hybrid: { searches: [{ vector: [0, 0] }] } }), kind('unsupported'));
});
