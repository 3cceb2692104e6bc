// Several tabs of one origin on one database.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { inspect } from 'node:util';

import { firefox, launch, openPage, serveFiles } from '../support/browser.mjs';

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

test('live queries and changes go on when the tab that holds the database closes it', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const [a, b] = [await openPage(t, context, url), await openPage(t, context, url)];
  for (const page of [a, b]) {
    await openNotes(page);
    await page.evaluate(async () => {
      window.live = await window.notes.live({ filter: 'year >= 0' });
      window.told = [];
      window.follow = (async () => {
        for await (const { changes } of await window.notes.changes({ since: 'full' })) window.told.push(...changes.map(({ key }) => key));
      })().catch((error) => error.kind);
    });
  }
  await insert(a, 5, 0);
  await b.waitForFunction(() => window.live.answer.length === 5 && window.told.length === 5);
  await a.evaluate(() => window.db.close());
  await insert(b, 5, 100);
  await b.waitForFunction(() => window.live.error || window.live.answer.length === 10);
  assert.equal(await b.evaluate(() => window.live.error?.message), undefined);
  assert.equal(await Promise.race([b.evaluate(() => window.follow), b.waitForFunction(() => window.told.length === 10)]).then((ended) => typeof ended), 'object');
  assert.deepEqual(await a.evaluate(async () => [window.live.error?.kind, await window.follow]), ['closed', 'closed']);
});

/** How an owner goes: its worker alone, its tab, or the process of its tab. */
const ends = {
  'its worker is ended, and its page lives': (page) => page.evaluate(() => window.workers.forEach((worker) => worker.terminate())),
  'its tab closes': (page) => page.close(),
  // Firefox has no command for that.
  ...(!firefox && { 'the process of its tab dies': async (page, context) => void (await context.newCDPSession(page)).send('Page.crash').catch(() => {}) }),
};

/** Has pages keep their workers in `window.workers`. */
const keepWorkers = (context) =>
  context.addInitScript(() => {
    window.workers = [];
    window.Worker = class extends Worker {
      constructor(...args) {
        super(...args);
        window.workers.push(this);
      }
    };
  });

for (const [how, end] of Object.entries(ends)) {
  test(`the owner goes with calls of other tabs under way (${how}): all of them are done, once`, async (t) => {
    const url = await serveFiles(t);
    const { context } = await launch(t);
    await keepWorkers(context);
    const pages = [];
    for (let page = 0; page < 3; page++) {
      pages.push(await openPage(t, context, url));
      await openNotes(pages[page]);
    }
    const [a, ...guests] = pages;
    await insert(a, 2000, 0);
    // Asked in one task, so that all of it is under way, or on its way, when the owner ends.
    const asked = guests.map((page, guest) =>
      page.evaluate(async (guest) => {
        const { notes, vectors } = window;
        const settle = (promise) => promise.then((value) => ({ value }), ({ kind, message }) => ({ kind, message }));
        const first = 10_000 * (guest + 1);
        const writes = Array.from({ length: 40 }, (_, batch) => settle(notes.insert(vectors.makeRows(50, { first: first + batch * 50 }))));
        const deletes = Array.from({ length: 20 }, (_, index) => settle(notes.delete({ keys: [guest * 100 + index] })));
        const reads = Array.from({ length: 40 }, (_, index) => settle(notes.get([500 + index]).then(([row]) => row.id)));
        window.asked = true;
        return { writes: await Promise.all(writes), deletes: await Promise.all(deletes), reads: await Promise.all(reads) };
      }, guest),
    );
    for (const page of guests) await page.waitForFunction(() => window.asked);
    const started = performance.now();
    const own = how.includes('page lives') ? a.evaluate(() => window.notes.count().catch(({ kind }) => kind)) : undefined;
    await end(a, context);
    for (const [guest, answers] of (await Promise.all(asked)).entries()) {
      assert.deepEqual(answers.reads.map((read) => read.value), Array.from({ length: 40 }, (_, index) => 500 + index));
      assert.deepEqual(answers.deletes.map(({ value }) => value?.count), Array.from({ length: 20 }, () => 1), inspect(answers.deletes));
      const rows = await guests[guest].evaluate(async (first) => {
        const rows = await window.notes.query({ filter: `id >= ${first} and id < ${first + 10_000}`, outputFields: ['id', '$version'] });
        return rows.map((row) => [row.id, row.$version]);
      }, 10_000 * (guest + 1));
      assert.equal(rows.length, 2000);
      for (const [id, version] of rows) {
        const { value, ...error } = answers.writes[Math.floor((id % 10_000) / 50)];
        assert.equal(value?.version, version, `row ${id} was written once, by the write that says so: ${inspect(error)}`);
      }
      assert.deepEqual(answers.writes.map(({ value }) => value?.count), Array.from({ length: 40 }, () => 50));
    }
    t.diagnostic(`everything was answered ${Math.round(performance.now() - started)} ms after the owner was gone`);
    assert.equal(await count(guests[0]), 2000 + 2 * 2000 - 2 * 20);
    // A page whose worker is gone is told, also what it asks later.
    if (own) {
      assert.ok(['unavailable', 2000].includes(await own) || (await own) > 2000);
      assert.equal(await a.evaluate(() => window.notes.count().catch(({ kind }) => kind)), 'unavailable');
    }
  });
}

test('writes that the owner did and never answered are known to the next one', async (t) => {
  // Workers as they are, but for answers to other tabs, which are lost once the test says so.
  const mute = `let mute = false; new BroadcastChannel('test').onmessage = () => (mute = true);
    const post = BroadcastChannel.prototype.postMessage;
    BroadcastChannel.prototype.postMessage = function (message) { if (!(mute && 'owner' in message && 'id' in message)) post.call(this, message); };\n`;
  const change = (path, file) => (path.endsWith('/worker.js') ? mute + readFileSync(file, 'utf8') : undefined);
  const url = await serveFiles(t, { change });
  const { context } = await launch(t);
  for (const flushed of [false, true]) {
    const [a, b] = [await openPage(t, context, url), await openPage(t, context, url)];
    const name = `unanswered-${flushed}`;
    for (const page of [a, b]) {
      await page.evaluate(async (name) => {
        const { eddydb, vectors } = window;
        window.db = await eddydb.open({ name, bigint: true });
        window.notes = await window.db.createCollection('notes', vectors.schema, { ifNotExists: true });
        const fields = { id: { type: 'int64', primaryKey: true, autoId: true }, v: { type: 'float_vector', dim: 1 } };
        window.made = await window.db.createCollection('made', { fields }, { ifNotExists: true });
      }, name);
    }
    await insert(a, 10, 0);
    await b.evaluate(() => window.notes.count());
    await a.evaluate(() => new BroadcastChannel('test').postMessage('mute'));
    const asked = b.evaluate(async () => {
      const { notes, made, vectors } = window;
      const answers = [
        notes.insert(vectors.makeRows(5, { first: 100 })),
        notes.delete({ filter: 'id < 3' }),
        notes.upsert(vectors.makeRows(1, { first: 5 })),
        made.insert([{ v: [1] }, { v: [2] }]),
      ].map((promise) => promise.then(({ count, version, keys }) => ({ count, version, keys }), ({ kind, message }) => ({ kind, message })));
      return Promise.all(answers);
    });
    // The owner has done all of it; then somebody there writes what would be done again.
    const done = await a.evaluate(async () => {
      const { db, notes, made } = window;
      const all = async () => (await notes.count()) === 12 && (await notes.get([5], { outputFields: ['title'] }))[0].title && (await made.count()) === 2;
      let wake;
      for (const collection of [notes, made]) collection.onChange(() => wake());
      for (;;) {
        const changed = new Promise((resolve) => (wake = resolve));
        if (await all()) return db.collections();
        await changed;
      }
    });
    assert.deepEqual(done, ['made', 'notes']);
    await a.evaluate(async (flushed) => {
      const { db, notes, vectors } = window;
      await notes.insert(vectors.makeRows(3));
      if (flushed) await db.flush();
    }, flushed);
    await a.close();
    const answers = await asked;
    assert.deepEqual(answers.map(({ count }) => count), [5, 3, 1, 2], inspect(answers));
    const there = await b.evaluate(async () => {
      const { notes, made } = window;
      const rows = await notes.query({ outputFields: ['id', '$version'] });
      return { ids: rows.map((row) => Number(row.id)), five: rows.find((row) => row.id === 5n).$version, made: (await made.query()).map((row) => row.id) };
    });
    assert.deepEqual(there.ids, [...Array(10).keys(), 100, 101, 102, 103, 104]);
    assert.equal(there.five, answers[2].version);
    assert.deepEqual([...there.made].sort(), [...answers[3].keys].sort());
    await b.close();
  }
});

test('nothing on the way to a new owner waits by the clock', () => {
  const source = (name) => readFileSync(new URL(`../../pkg/src/${name}.ts`, import.meta.url), 'utf8');
  // A lock that is granted, an announcement and its answer are events. What remains: files of a dead process are let go a moment after
  // its lock, and are asked for again until they are.
  assert.doesNotMatch(source('tab') + source('host-browser'), /setInterval/);
  assert.deepEqual([...source('tab').matchAll(/setTimeout\([^)]*\)/g)].map(([text]) => text), ['setTimeout(resolve, RELEASE_RETRY_MS)']);
  assert.doesNotMatch(source('host-browser'), /setTimeout/);
  assert.ok(Number(/RELEASE_RETRY_MS = ([\d_]+)/.exec(source('tab'))[1]) <= 50);
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
