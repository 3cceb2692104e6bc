// Pipelines in a browser: the stream suite in the worker, tabs that share a database, and a browser that is killed.

import assert from 'node:assert/strict';
import test from 'node:test';

import { temporaryDirectory } from '../support/files.mjs';
import { firefox, launch, openPage, serveFiles } from '../support/browser.mjs';
import { flink, nexmark } from '../support/streams.mjs';

test('the stream suite in the worker, on each storage', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  for (const storage of ['memory', 'indexeddb', ...(firefox ? [] : ['opfs'])]) {
    const cases = await page.evaluate(async (storage) => {
      const { runAll } = await import('/tests/support/streams.mjs');
      const db = await window.eddydb.open({ name: `suite-${storage}`, storage, streams: true });
      try {
        return await runAll(db, [5]);
      } finally {
        await db.close();
      }
    }, storage);
    assert.equal(cases, flink.length + nexmark.length + 5, storage);
  }
});

/** Opens the database of a tab, whose rows are told to `window.told`. */
const openNumbers = (page) =>
  page.evaluate(async () => {
    const { source } = await import('eddydb/plan');
    window.db = await window.eddydb.open({ name: 'numbers', storage: 'opfs', streams: true });
    window.numbers = await window.db.createCollection('numbers', { fields: { id: { type: 'int64', primaryKey: true } } }, { ifNotExists: true });
    // The function is this tab's, wherever the engine is.
    await window.db.setFunction('double', ({ id }) => ({ id, twice: 2 * id }));
    if (!(await window.db.pipelines()).includes('told')) {
      const plan = source('numbers', { id: 'int64' }).call('double', { id: 'int64', twice: 'int64' }).sink({ name: 'told' });
      await window.db.createPipeline('told', { plan, options: { checkpointIntervalMs: 0 } });
    }
    window.told = [];
    window.rows = window.db.pipeline('told').rows();
    void (async () => {
      for await (const { position, row } of window.rows) window.told.push([position, row.id, row.twice]);
    })();
  });

const insert = (page, ids) => page.evaluate((ids) => window.numbers.insert(ids.map((id) => ({ id }))).then(() => {}), ids);
const waitForRows = (page, count) => page.waitForFunction((count) => window.told.length === count, count);

test('when the tab that runs a pipeline closes, another goes on with it', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const [a, b] = [await openPage(t, context, url), await openPage(t, context, url)];
  await openNumbers(a);
  await openNumbers(b);
  await insert(b, [0, 1, 2]);
  for (const page of [a, b]) await waitForRows(page, 3);
  await a.close();
  await insert(b, [3, 4]);
  await waitForRows(b, 5);
  assert.deepEqual(await b.evaluate(() => window.told), [0, 1, 2, 3, 4].map((id) => [id, id, 2 * id]));
});

test('a browser that is killed goes on where the application was', async (t) => {
  const url = await serveFiles(t);
  const profile = temporaryDirectory('eddy-browser-');
  const first = await launch(t, profile);
  const page = await openPage(t, first.context, url);
  await openNumbers(page);
  await insert(page, [0, 1, 2, 3]);
  await waitForRows(page, 4);
  await page.evaluate(() => window.rows.acknowledge(1));
  await insert(page, [4, 5]);
  await first.kill();

  const second = await launch(t, profile);
  const again = await openPage(t, second.context, url);
  await openNumbers(again);
  await waitForRows(again, 4);
  assert.deepEqual(await again.evaluate(() => window.told), [2, 3, 4, 5].map((id) => [id, id, 2 * id]));
});

test('events go to the tab that gave its functions last, and to another when it closes', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const pages = [await openPage(t, context, url), await openPage(t, context, url), await openPage(t, context, url)];
  const [a, b, c] = pages;
  for (const page of pages) {
    await page.evaluate(async () => {
      window.db = await window.eddydb.open({ name: 'bus', storage: 'opfs', streams: true });
      window.numbers = await window.db.createCollection('numbers', { fields: { id: { type: 'int64', primaryKey: true } } }, { ifNotExists: true });
      window.told = [];
      const handlers = { tell: { function: ({ key }) => void window.told.push(key) } };
      await window.db.bus().configure({ sources: { numbers: { collection: 'numbers' } }, handlers, routes: [{ to: ['tell'] }] });
    });
  }
  const wasTold = (page, key) => page.waitForFunction((key) => window.told.some((one) => one === key), key);
  await insert(b, [0]);
  await wasTold(c, 0);
  await c.close();
  await insert(b, [1]);
  await wasTold(b, 1);
  // The tab that holds the database.
  await a.close();
  await insert(b, [2]);
  await wasTold(b, 2);
  // What was handled and not noted when a tab closed comes again.
  assert.deepEqual(await b.evaluate(() => [...new Set(window.told)].filter((key) => key > 0)), [1, 2]);
});
