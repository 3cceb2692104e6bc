// Workers that search beside the engine, in real threads: the answers are those of the engine alone, whatever becomes of the workers.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { open } from 'eddydb';

import { temporaryDirectory } from '../support/files.mjs';
import { answersOf, fillSegments, settled } from '../support/pool.mjs';

test('a database with workers answers as one without', async (t) => {
  const path = temporaryDirectory('eddy-pool-');
  let db = await open({ name: 'pool', path });
  await fillSegments(db, 2, 2000, { type: 'HNSW', m: 8, efConstruction: 40 });
  await settled(db, 0);
  const expected = await answersOf(db);
  assert.equal((await db.stats()).pool, undefined);
  assert.equal((await db.memory()).pool, 0);
  await db.close();

  db = await open({ name: 'pool', path, workers: 2 });
  t.after(() => db.close());
  // A search does not wait for copies: whichever are there, the answer is the same.
  assert.deepEqual(await answersOf(db), expected);
  await settled(db, 2);
  assert.deepEqual(await answersOf(db), expected);
  const { pool } = await db.stats();
  assert.deepEqual([pool.workers, pool.failures, pool.error], [2, 0, undefined]);
  assert.ok(pool.searches > 0, JSON.stringify(pool));
  const memory = await db.memory();
  assert.equal(memory.pool, pool.bytes);
  assert.equal(memory.total, memory.rows + memory.columns + memory.vectors + memory.indexes + memory.keys + memory.cache + memory.pool);
  // Deletes and merges: what a copy was made of is there no more.
  const notes = db.collection('notes');
  await notes.delete({ filter: 'group == 3' });
  await notes.compact();
  const { hits } = await notes.search({ vector: new Float32Array(32), limit: 50, outputFields: ['group'] });
  assert.ok(hits.length === 50 && hits.every((hit) => hit.row.group !== 3));
  assert.equal((await db.stats()).pool.failures, 0);
});

test('a process ends by itself that has closed its database, and one whose workers were killed in the middle of searches', () => {
  const directory = temporaryDirectory('eddy-pool-kill-');
  // Ends every worker that searches at its third answer, which it does not give.
  const preload = join(directory, 'preload.mjs');
  writeFileSync(preload, `
    import { parentPort } from 'node:worker_threads';
    let answers = 0;
    const post = parentPort?.postMessage;
    if (post) parentPort.postMessage = function (message, transfer) {
      if (message?.answer?.length > 0 && process.env.EDDY_KILLS && ++answers === 3) process.exit(7);
      return post.call(this, message, transfer);
    };
  `);
  const program = join(directory, 'program.mjs');
  const support = new URL('../support/pool.mjs', import.meta.url).href;
  const entry = import.meta.resolve('eddydb');
  writeFileSync(program, `
    import { open } from ${JSON.stringify(entry)};
    import { answersOf, fillSegments, settled } from ${JSON.stringify(support)};
    const alone = await open({ name: 'alone' });
    await fillSegments(alone, 3, 3000, { type: 'FLAT' });
    await settled(alone, 0);
    const expected = JSON.stringify(await answersOf(alone));
    const db = await open({ name: 'pool', workers: 2 });
    await fillSegments(db, 3, 3000, { type: 'FLAT' });
    await settled(db, 2);
    const same = [];
    for (let round = 0; round < 3; round += 1) same.push(JSON.stringify(await answersOf(db)) === expected);
    const { pool } = await db.stats();
    await db.close();
    await alone.close();
    console.log(JSON.stringify({ same, pool }));
  `);
  for (const kills of [false, true]) {
    const env = { ...process.env, NODE_OPTIONS: `--import ${new URL(`file://${preload}`).href}`, EDDY_KILLS: kills ? '1' : '' };
    const ran = spawnSync(process.execPath, [program], { env, encoding: 'utf8', timeout: 120_000, cwd: fileURLToPath(new URL('.', import.meta.url)) });
    assert.equal(ran.status, 0, ran.stderr);
    const { same, pool } = JSON.parse(ran.stdout);
    assert.deepEqual(same, [true, true, true]);
    if (kills) {
      assert.deepEqual([pool.workers, pool.segments, pool.bytes], [0, 0, 0]);
      assert.ok(pool.failures >= 2, JSON.stringify(pool));
      assert.match(pool.error, /ended with 7/);
    } else {
      assert.deepEqual([pool.workers, pool.failures], [2, 0]);
    }
  }
});

test('a number of workers that cannot be is refused', async () => {
  for (const workers of [-1, 17, 1.5, 'all']) {
    await assert.rejects(open({ name: 'pool', workers }), { kind: 'invalid_argument', message: /workers/ });
  }
  const db = await open({ name: 'pool', workers: 'auto' });
  const { pool } = await db.stats();
  assert.ok(pool === undefined || (pool.workers >= 1 && pool.workers <= 4));
  await db.close();
});
