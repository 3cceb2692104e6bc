// The memory limit, compaction and progress, through the package.

import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

import { temporaryDirectory } from '../support/files.mjs';

const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    group: { type: 'int64' },
    text: { type: 'varchar' },
    embedding: { type: 'float_vector', dim: 128, metric: 'L2', index: { type: 'HNSW', m: 8, efConstruction: 40 } },
  },
};

function row(id) {
  let state = (id + 1) * 2654435761;
  const next = () => ((state = (Math.imul(state ^ (state >>> 15), 2246822519) + 0x9e3779b9) >>> 0) >>> 8) / 2 ** 24;
  const embedding = Float32Array.from({ length: 128 }, next);
  return { id, group: id % 10, text: `${id} ${Array.from({ length: 60 }, () => next().toString(36).slice(2, 9)).join(' ')}`, embedding };
}

async function settled(collection) {
  for (;;) {
    const { rowsUnindexed, states } = await collection.stats();
    if (rowsUnindexed === 0 && states.sealed + states.compacting === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function answers(notes) {
  const { embedding } = row(777);
  const search = { vector: embedding, limit: 10, outputFields: ['id', 'text'] };
  return [
    (await notes.search(search)).hits,
    (await notes.search({ ...search, exact: true, filter: 'group == 7' })).hits,
    await notes.count({ filter: "text like '12%'" }),
    await notes.query({ filter: 'id > 1990', outputFields: ['*'] }),
    await notes.get([5, 1999]),
  ];
}

test('a collection three times the limit answers the same', async (t) => {
  const path = temporaryDirectory('eddy-memory-');
  let db = await open({ name: 'memory', path });
  let notes = await db.createCollection('notes', schema);
  for (let start = 0; start < 2000; start += 500) await notes.insert(Array.from({ length: 500 }, (_, at) => row(start + at)));
  await notes.flush();
  await settled(notes);
  const expected = await answers(notes);
  const whole = await db.memory();
  assert.equal(whole.total, whole.rows + whole.columns + whole.vectors + whole.indexes + whole.keys + whole.cache);
  await db.close();

  const memoryLimitBytes = Math.floor(whole.total / 3);
  db = await open({ name: 'memory', path, memoryLimitBytes });
  t.after(() => db.close());
  notes = db.collection('notes');
  assert.deepEqual(await answers(notes), expected);
  const held = await db.memory();
  assert.ok(held.total <= memoryLimitBytes, `${JSON.stringify(held)} of at most ${memoryLimitBytes}`);
  assert.ok(held.columns + held.vectors < whole.columns + whole.vectors, JSON.stringify({ held, whole }));
});

test('compaction gives up dead rows and tells how it goes on; files are told by kind', async (t) => {
  const db = await open({ name: 'compaction', path: temporaryDirectory('eddy-compaction-'), codec: 'lz4' });
  t.after(() => db.close());
  const told = [];
  const end = db.onProgress((event) => told.push(event));
  const notes = await db.createCollection('notes', schema);
  await notes.insert(Array.from({ length: 300 }, (_, id) => row(id)));
  await db.flush();
  await notes.delete({ filter: 'group == 1' });
  await db.compact();
  const { rows, rowsDead, states, files, written, storageBytes } = await notes.stats();
  assert.deepEqual({ rows, rowsDead }, { rows: 270, rowsDead: 0 });
  assert.deepEqual(states, { growing: 1, sealed: 0, flushed: 1, compacting: 0, dropped: 0 });
  assert.ok(files.rows > 0 && files.column > 0 && files.vector >= 270 * 512 && files.layout > 0, JSON.stringify(files));
  assert.equal(Object.values(files).reduce((sum, bytes) => sum + bytes, 0), storageBytes);
  assert.ok(written.logged > 0 && written.flushed > 0 && written.compacted > 0, JSON.stringify(written));
  for (const work of ['flush', 'compaction']) {
    assert.ok(told.some((event) => event.collection === 'notes' && event.work === work && event.rowsDone === event.rows), JSON.stringify(told));
  }
  end();
  const before = told.length;
  await notes.insert([row(1000)]);
  await notes.flush();
  assert.equal(told.length, before);
});

test('options that cannot be are refused', async () => {
  for (const options of [{ memoryLimitBytes: -1 }, { memoryLimitBytes: '1' }, { codec: 'brotli' }]) {
    await assert.rejects(open({ name: 'wrong', storage: 'memory', ...options }), { kind: 'invalid_argument' });
  }
  const refused = { kind: 'invalid_argument', message: /mergePolicy: hierarchical, sequential or parallel expected, got tiered/ };
  await assert.rejects(open({ name: 'wrong', storage: 'memory', mergePolicy: 'tiered' }), refused);
});
