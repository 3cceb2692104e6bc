// The store in IndexedDB, for browsers and pages that lack the private file system.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';

import { firefox, launch, openPage, serveFiles } from '../support/browser.mjs';

/** What a private window of some browsers does: the method is there, and refuses. */
const withoutOpfs = `StorageManager.prototype.getDirectory = () => Promise.reject(new DOMException('refused', 'SecurityError'));\n`;

test('rows survive a reload, a closed tab and a killed browser', async (t) => {
  const url = await serveFiles(t);
  let { context, kill, profile } = await launch(t);
  let page = await openPage(t, context, url);
  const write = async (first, count) => {
    await page.evaluate(async ([first, count]) => {
      const { eddydb, vectors } = window;
      window.db ??= await eddydb.open({ name: 'kept', storage: 'indexeddb' });
      const notes = await window.db.createCollection('notes', vectors.schema, { ifNotExists: true });
      await notes.insert(vectors.makeRows(count, { first }));
    }, [first, count]);
  };
  const read = () =>
    page.evaluate(async () => {
      const { eddydb, vectors } = window;
      window.db = await eddydb.open({ name: 'kept', storage: 'indexeddb' });
      const notes = window.db.collection('notes');
      const rows = await notes.query({ outputFields: ['id', 'embedding'] });
      const expected = vectors.makeRows(100, { first: 0 })[42].embedding;
      return { ids: rows.map(({ id }) => id), same: rows[42].embedding.every((number, index) => number === expected[index]) };
    });
  const upTo = (end) => ({ ids: Array.from({ length: end }, (_, id) => id), same: true });
  await write(0, 100);
  await page.evaluate(() => window.db.collection('notes').flush());
  await write(100, 50);
  await page.reload();
  await page.waitForFunction(() => 'eddydb' in window);
  assert.deepEqual(await read(), upTo(150));
  await write(150, 30);
  await page.close();
  page = await openPage(t, context, url);
  assert.deepEqual(await read(), upTo(180));
  await write(180, 20);
  await kill();
  ({ context } = await launch(t, profile));
  page = await openPage(t, context, url);
  assert.deepEqual(await read(), upTo(200));
  assert.deepEqual(page.noise, []);
});

test("'auto' takes it where the private file system refuses, and finds its rows again where it does not", async (t) => {
  let refuse = true;
  const change = (path, file) => (refuse && path.endsWith('/worker.js') ? withoutOpfs + readFileSync(file, 'utf8') : undefined);
  const url = await serveFiles(t, { change });
  const { context } = await launch(t);
  for (const count of [10, 20]) {
    const page = await openPage(t, context, url);
    const found = await page.evaluate(async (count) => {
      const { eddydb, vectors } = window;
      const db = await eddydb.open({ name: 'auto' });
      const notes = await db.createCollection('notes', vectors.schema, { ifNotExists: true });
      await notes.insert(vectors.makeRows(10, { first: count - 10 }));
      return [await notes.count(), (await indexedDB.databases()).map(({ name }) => name)];
    }, count);
    assert.deepEqual(found, [count, ['eddydb:auto']]);
    await page.close();
    refuse = false;
  }
});

test('tabs share it, and another takes over when the owner closes', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const pages = [await openPage(t, context, url), await openPage(t, context, url)];
  for (const page of pages) {
    await page.evaluate(async () => {
      const { eddydb, vectors } = window;
      window.db = await eddydb.open({ name: 'shared', storage: 'indexeddb' });
      window.notes = await window.db.createCollection('notes', vectors.schema, { ifNotExists: true });
    });
  }
  const [a, b] = pages;
  await a.evaluate(() => window.notes.insert(window.vectors.makeRows(20)).then(() => {}));
  assert.equal(await b.evaluate(() => window.notes.count()), 20);
  await a.close();
  // Asked while the owner goes.
  await b.evaluate(() => window.notes.insert(window.vectors.makeRows(5, { first: 20 })).then(() => {}));
  assert.equal(await b.evaluate(() => window.notes.count()), 25);
});

test('what cannot be opened says why', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const errors = await page.evaluate(async () => {
    const { eddydb } = window;
    const later = indexedDB.open('eddydb:later', 7);
    await new Promise((resolve) => (later.onsuccess = resolve));
    later.result.close();
    const of = (options) => eddydb.open(options).then(() => 'opened', ({ kind, message }) => [kind, message]);
    return [await of({ name: 'later', storage: 'indexeddb' }), await of({ name: 'x', storage: 'floppy' })];
  });
  assert.equal(errors[0][0], 'unsupported');
  assert.match(errors[0][1], /VersionError/);
  assert.equal(errors[1][0], 'invalid_argument');
});

/** The log of the LevelDB in which Chromium keeps the IndexedDB of the one origin of a profile. */
function chromiumLog(profile) {
  const root = join(profile, 'Default', 'IndexedDB');
  const directory = join(root, readdirSync(root).find((name) => name.endsWith('.leveldb')));
  return join(directory, readdirSync(directory).find((name) => name.endsWith('.log')));
}

/** Runs in the page: opens the store, tells how many rows it has, and adds 20. */
async function visit() {
  const { eddydb, vectors } = window;
  const db = await eddydb.open({ name: 'torn', storage: 'indexeddb' }).catch(({ kind, message }) => ({ failed: [kind, message] }));
  if (db.failed) return db.failed;
  const notes = await db.createCollection('notes', vectors.schema, { ifNotExists: true });
  const found = await notes.count();
  await notes.insert(vectors.makeRows(20, { first: found }));
  return found;
}

// Chromium writes on behind the half record at the end of its log, and took it for damage a browser later: it removed every database of
// the origin, and with them writes that it had acknowledged as durable.
if (!firefox) test('a browser killed in the middle of a write to its own log loses nothing, then or later', async (t) => {
  const url = await serveFiles(t);
  let profile;
  for (const expected of [0, 20, 40, 60]) {
    const browser = await launch(t, profile);
    profile = browser.profile;
    const page = await openPage(t, browser.context, url);
    assert.equal(await page.evaluate(visit), expected);
    // Half a record, as of a write that nobody was told of.
    await page.evaluate(() => new Promise((resolve) => (indexedDB.open(`later ${performance.now()}`).onsuccess = resolve)));
    await browser.kill();
    const log = chromiumLog(profile);
    truncateSync(log, statSync(log).size - 5);
  }
});

if (!firefox) test('a store that the browser has removed as damaged: opening says so, once', async (t) => {
  const url = await serveFiles(t);
  let browser = await launch(t);
  let page = await openPage(t, browser.context, url);
  assert.equal(await page.evaluate(visit), 0);
  await browser.kill();
  const log = chromiumLog(browser.profile);
  const bytes = readFileSync(log);
  bytes.fill(0xa5, 100, 200);
  writeFileSync(log, bytes);
  browser = await launch(t, browser.profile);
  page = await openPage(t, browser.context, url);
  const [kind, message] = await page.evaluate(visit);
  assert.equal(kind, 'corrupt');
  assert.match(message, /damaged .* removed all that was in store "torn"/);
  assert.equal(await page.evaluate(visit), 0);
});
