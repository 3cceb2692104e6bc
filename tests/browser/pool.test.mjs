// Workers that search beside the engine in a browser: workers of the engine's worker, made of the same script.

import assert from 'node:assert/strict';
import test from 'node:test';

import { launch, openPage, serveFiles } from '../support/browser.mjs';

test('a database with workers answers as one without, and so do tabs that share it', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const { alone, with2, pool, memory } = await page.evaluate(async () => {
    const { answersOf, fillSegments, settled } = await import('/tests/support/pool.mjs');
    let db = await window.eddydb.open({ name: 'pool' });
    await fillSegments(db, 2, 2000, { type: 'HNSW', m: 8, efConstruction: 40 });
    await settled(db, 0);
    const alone = await answersOf(db);
    await db.close();
    db = await window.eddydb.open({ name: 'pool', workers: 2 });
    await settled(db, 2);
    const with2 = await answersOf(db);
    window.db = db;
    return { alone, with2, pool: (await db.stats()).pool, memory: await db.memory() };
  });
  assert.deepEqual(with2, alone);
  assert.deepEqual([pool.workers, pool.failures], [2, 0]);
  assert.ok(pool.searches > 0 && pool.segments > 0 && pool.bytes === memory.pool, JSON.stringify({ pool, memory }));

  const other = await openPage(t, context, url);
  const shared = await other.evaluate(async () => {
    const { answersOf } = await import('/tests/support/pool.mjs');
    const db = await window.eddydb.open({ name: 'pool' });
    const answers = await answersOf(db);
    const { pool } = await db.stats();
    await db.close();
    return { answers, pool };
  });
  assert.deepEqual(shared.answers, alone);
  assert.ok(shared.pool.searches > pool.searches, JSON.stringify(shared.pool));
  await page.evaluate(() => window.db.close());
  assert.deepEqual([...page.noise, ...other.noise], []);
});
