// Several tabs of one origin on one database.

import assert from 'node:assert/strict';
import test from 'node:test';

import { launch, openPage, serveFiles } from '../support/browser.mjs';

/** Opens the database of a tab, which stays in `window.notes`. */
const openNotes = (page) =>
  page.evaluate(async () => {
    const { eddydb, vectors } = window;
    window.db = await eddydb.open({ name: 'shared' });
    window.notes = await window.db.createCollection('notes', vectors.schema, { ifNotExists: true });
  });

const insert = (page, count, first) => page.evaluate(([count, first]) => window.notes.insert(window.vectors.makeRows(count, { first })).then(() => {}), [count, first]);
const count = (page) => page.evaluate(() => window.notes.count());

test('two tabs see each other, changes included', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const [a, b] = [await openPage(t, context, url), await openPage(t, context, url)];
  await openNotes(a);
  await openNotes(b);
  for (const page of [a, b]) {
    await page.evaluate(async () => {
      window.lsns = [];
      window.notes.onChange(({ lsn }) => window.lsns.push(lsn));
      // A request that is answered says that the one before it, for events, was too.
      await window.notes.count();
    });
  }
  await insert(a, 10, 0);
  assert.equal(await count(b), 10);
  await insert(b, 5, 100);
  assert.equal(await count(a), 15);
  const newest = await a.evaluate(async () => (await window.notes.stats()).lsn);
  for (const page of [a, b]) await page.waitForFunction((lsn) => window.lsns.at(-1) === lsn, newest);

  // Errors keep their kind and position on the way through the other tab.
  const errors = await b.evaluate(async () => {
    const of = (promise) => promise.then(() => 'none', ({ name, kind, position }) => ({ name, kind, position }));
    return [await of(window.notes.query({ filter: 'year > ' })), await of(window.notes.insert(window.vectors.makeRows(1)))];
  });
  assert.equal(errors[0].kind, 'invalid_argument');
  assert.ok(Number.isInteger(errors[0].position));
  assert.deepEqual([errors[1].name, errors[1].kind, errors[1].position], ['EddyError', 'already_exists', undefined]);
  const vector = await b.evaluate(async () => {
    const [row] = await window.notes.get([3], { outputFields: ['embedding'] });
    return [row.embedding instanceof Float32Array, row.embedding.every((number, index) => number === window.vectors.makeRows(10)[3].embedding[index])];
  });
  assert.deepEqual(vector, [true, true]);
  assert.deepEqual([...a.noise, ...b.noise], []);
});

test('when the owner tab closes, another takes over, with its events', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const [a, b, c] = [await openPage(t, context, url), await openPage(t, context, url), await openPage(t, context, url)];
  for (const page of [a, b, c]) await openNotes(page);
  await insert(a, 20, 0);
  for (const page of [b, c]) {
    await page.evaluate(async () => {
      window.lsns = [];
      window.notes.onChange(({ lsn }) => window.lsns.push(lsn));
      await window.notes.count();
    });
  }
  await a.close();
  const started = performance.now();
  assert.equal(await count(b), 20);
  t.diagnostic(`the first answer after the owner was gone took ${Math.round(performance.now() - started)} ms`);
  await insert(c, 5, 100);
  assert.equal(await count(b), 25);
  const newest = await b.evaluate(async () => (await window.notes.stats()).lsn);
  for (const page of [b, c]) await page.waitForFunction((lsn) => window.lsns.at(-1) === lsn, newest);

  // And once more, by closing the database instead of the tab; the last tab has everything.
  await b.evaluate(() => window.db.close());
  assert.equal(await count(c), 25);
  await insert(c, 5, 200);
  assert.equal(await count(c), 30);
  assert.equal(await b.evaluate(() => window.notes.count().catch((error) => error.kind)), 'closed');
});

test('the owner crashes with calls of another tab under way: reads are answered, writes say retry', async (t) => {
  const url = await serveFiles(t);
  const { browser, context } = await launch(t);
  const [a, b] = [await openPage(t, context, url), await openPage(t, context, url)];
  await openNotes(a);
  await openNotes(b);
  await insert(a, 2000, 0);
  // Asked in one task, so that all of it is under way, or on its way, when the owner's worker ends.
  const asked = b.evaluate(async () => {
    const { notes, vectors } = window;
    const settle = (promise) => promise.then((value) => ({ value }), ({ kind }) => ({ kind }));
    const writes = Array.from({ length: 40 }, (_, batch) => settle(notes.insert(vectors.makeRows(50, { first: 10_000 + batch * 50 })).then(() => 'done')));
    const reads = Array.from({ length: 40 }, (_, index) => settle(notes.get([index]).then(([row]) => row.id)));
    window.asked = true;
    return { writes: await Promise.all(writes), reads: await Promise.all(reads) };
  });
  await b.waitForFunction(() => window.asked);
  // The whole process of the tab ends where it is; the call has no answer.
  (await context.newCDPSession(a)).send('Page.crash').catch(() => {});
  const { writes, reads } = await asked;
  assert.deepEqual(reads.map((read) => read.value), Array.from({ length: 40 }, (_, index) => index));
  for (const write of writes) assert.ok(write.value === 'done' || write.kind === 'unavailable', JSON.stringify(write));
  const there = await b.evaluate(async () => (await window.notes.query({ filter: 'id >= 10000', outputFields: ['id'] })).map((row) => row.id));
  writes.forEach((write, batch) => {
    const ids = there.filter((id) => Math.floor((id - 10_000) / 50) === batch);
    if (write.value === 'done') assert.equal(ids.length, 50, `batch ${batch} was acknowledged`);
    else assert.ok(ids.length === 0 || ids.length === 50, `batch ${batch} is there in part`);
  });
  // Retrying what was unavailable ends with every row there once.
  const total = await b.evaluate(async () => {
    for (let batch = 0; batch < 40; batch++) await window.notes.upsert(window.vectors.makeRows(50, { first: 10_000 + batch * 50 }));
    return window.notes.count();
  });
  assert.equal(total, 4000);
  assert.ok(browser.isConnected());
});

test('databases of different names, and in memory, are apart', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const [a, b] = [await openPage(t, context, url), await openPage(t, context, url)];
  for (const [page, name] of [[a, 'one'], [b, 'two']]) {
    const names = await page.evaluate(async (name) => {
      const { eddydb, vectors } = window;
      const db = await eddydb.open({ name });
      await db.createCollection(`of-${name}`.replace('-', '_'), vectors.schema);
      const memory = await eddydb.open({ name, storage: 'memory' });
      return [await db.collections(), await memory.collections()];
    }, name);
    assert.deepEqual(names, [[`of_${name}`], []]);
  }
});
