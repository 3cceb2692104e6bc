// The memory limit in Chromium, over the origin's private file system.

import assert from 'node:assert/strict';
import test from 'node:test';

import { launch, openPage, serveFiles } from '../support/browser.mjs';

test('a collection three times the limit answers the same', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const { whole, held, limit, expected, found } = await page.evaluate(async () => {
    const { eddydb } = window;
    const dim = 256;
    const vector = (id) => Float32Array.from({ length: dim }, (_, at) => (Math.imul(id * dim + at + 1, 2654435761) >>> 8) / 2 ** 24);
    const text = (id) => `${id} ${Array.from(vector(id).slice(0, 60), (number) => number.toString(36).slice(2, 9)).join(' ')}`;
    const schema = {
      fields: { id: { type: 'int64', primaryKey: true }, text: { type: 'varchar' }, embedding: { type: 'float_vector', dim, metric: 'L2' } },
    };
    const ask = async (notes) => {
      const search = { vector: vector(777), limit: 10, outputFields: ['id', 'text'] };
      return JSON.stringify([
        (await notes.search(search)).hits,
        (await notes.search({ ...search, exact: true, filter: "text like '1%'" })).hits,
        await notes.count({ filter: "text like '12%'" }),
        await notes.query({ filter: 'id > 1495' }),
      ]);
    };
    let db = await eddydb.open({ name: 'limited', storage: 'opfs' });
    let notes = await db.createCollection('notes', schema);
    for (let start = 0; start < 1500; start += 500) {
      await notes.insert(Array.from({ length: 500 }, (_, at) => ({ id: start + at, text: text(start + at), embedding: vector(start + at) })));
    }
    await notes.flush();
    while ((await notes.stats()).rowsUnindexed > 0) await new Promise((resolve) => setTimeout(resolve, 20));
    const expected = await ask(notes);
    const whole = await db.memory();
    await db.close();
    const limit = Math.floor(whole.total / 3);
    db = await eddydb.open({ name: 'limited', storage: 'opfs', memoryLimitBytes: limit });
    notes = db.collection('notes');
    const found = await ask(notes);
    const held = await db.memory();
    await db.close();
    return { whole, held, limit, expected, found };
  });
  assert.equal(found, expected);
  assert.ok(JSON.parse(found)[0][0].key === 777);
  assert.ok(held.total <= limit, `${JSON.stringify(held)} of at most ${limit}`);
  assert.ok(held.columns + held.vectors < (whole.columns + whole.vectors) / 2, JSON.stringify({ held, whole }));
  assert.deepEqual(page.noise, []);
});
