// Pipelines in the package: the stream suite in Node, and what becomes of them when a process is killed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { open } from 'eddydb';
import { source } from 'eddydb/plan';

import { temporaryDirectory } from '../support/files.mjs';
import { flink, nexmark, runAll, settled } from '../support/streams.mjs';

const kind = (kind, words = '') => (error) => (error.kind === kind && error.message.includes(words)) || assert.fail(`${error.kind}: ${error.message}, expected ${kind}`);
const numbers = { fields: { id: { type: 'int64', primaryKey: true } } };
const passed = () => source('numbers', { id: 'int64' }).sink({ name: 'told' });

test('the stream suite, in memory', async () => {
  const db = await open({ name: 'suite', streams: true });
  assert.equal(await runAll(db), flink.length + 2 * nexmark.length + 5);
  assert.deepEqual(await db.pipelines(), []);
  await db.close();
});

test('the stream suite, from files', async () => {
  const db = await open({ name: 'suite', streams: true, path: temporaryDirectory('eddy-suite-') });
  assert.equal(await runAll(db, [3]), flink.length + nexmark.length + 5);
  await db.close();
});

test('what cannot be is refused, with its kind and position', async () => {
  const without = await open({ name: 'without' });
  await assert.rejects(without.createPipeline('p', { sql: 'SELECT 1' }), kind('unsupported', 'streams: true'));
  await assert.rejects(without.sql('SELECT 1'), kind('unsupported'));
  await without.close();
  const db = await open({ name: 'wrong', streams: true });
  await db.createCollection('numbers', numbers);
  await assert.rejects(db.createPipeline('p', { sql: 'SELECT id FROM' }), (error) => error.kind === 'invalid_argument' && Number.isInteger(error.position));
  await assert.rejects(db.createPipeline('p', {}), kind('invalid_argument', 'neither'));
  await assert.rejects(db.createPipeline('p', { plan: passed(), options: { keepRow: 1 } }), kind('invalid_argument', 'keepRow'));
  await assert.rejects(db.pipeline('p').status(), kind('not_found'));
  await db.createPipeline('p', { plan: passed() });
  await assert.rejects(db.createPipeline('p', { plan: passed() }), kind('already_exists'));
  assert.match(await db.explainPipeline({ plan: passed() }), /told/);
  await assert.rejects(db.pipeline('p').rows('other').next(), kind('not_found', 'other'));
  await assert.rejects(db.pipeline('p').rows().acknowledge(5), kind('invalid_argument', 'row 5 was not told'));
  await assert.rejects(db.setFunction('f', 'text'), kind('invalid_argument', 'function'));
  const waiting = db.pipeline('p').rows().next();
  await db.pipeline('p').drop();
  await assert.rejects(waiting, (error) => ['closed', 'not_found'].includes(error.kind));
  await db.close();
});

test('a pipeline is paused, put back to a savepoint, and explained', async () => {
  const db = await open({ name: 'savepoint', streams: true });
  const collection = await db.createCollection('numbers', numbers);
  const pipeline = await db.createPipeline('copy', { plan: source('numbers', { id: 'int64' }).sink({ collection: 'copies', keys: ['id'] }) });
  await collection.insert([{ id: 1 }]);
  await settled(pipeline);
  await pipeline.savepoint('one');
  assert.deepEqual(await pipeline.savepoints(), ['one']);
  await pipeline.pause();
  await collection.insert([{ id: 2 }]);
  assert.equal((await pipeline.status()).state, 'paused');
  assert.equal(await db.collection('copies').count(), 1);
  await pipeline.resume();
  await settled(pipeline);
  await pipeline.recover({ savepoint: 'one' });
  await settled(pipeline);
  assert.match(await pipeline.explain(), /numbers: \d+ in/);
  await pipeline.recover('nothing');
  await settled(pipeline);
  await pipeline.pause();
  assert.equal(await db.collection('copies').count(), 2);
  assert.equal(await pipeline.removeSavepoint('one'), true);
  assert.equal(await pipeline.removeSavepoint('one'), false);
  await assert.rejects(pipeline.recover({ savepoint: 'one' }), kind('not_found'));
  await db.close();
});

test('rows are given until they are acknowledged, and a full sink lets its pipeline wait', async () => {
  const path = temporaryDirectory('eddy-rows-');
  let db = await open({ name: 'rows', streams: true, path });
  const collection = await db.createCollection('numbers', numbers);
  const pipeline = await db.createPipeline('told', { plan: passed(), options: { keepRows: 5, batchRows: 5, checkpointIntervalMs: 0 } });
  for (let id = 0; id < 12; id += 4) await collection.insert([0, 1, 2, 3].map((at) => ({ id: id + at })));
  const rows = pipeline.rows();
  const seen = [];
  for await (const { position, row } of rows) {
    assert.equal(position, seen.length);
    seen.push(row.id);
    // Nothing is acknowledged before the pipeline waits for it.
    if (seen.length === 8) break;
    if (seen.length === 4) assert.equal((await pipeline.status()).unread[0].acknowledged, 0);
  }
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.equal((await pipeline.status()).unread[0].isFull, true);
  await pipeline.rows().acknowledge(2);
  await db.close();

  db = await open({ name: 'rows', streams: true, path });
  const again = db.pipeline('told').rows('told', { batchSize: 2 });
  const left = [];
  while (left.length < 9) {
    const { value } = await again.next();
    left.push([value.position, value.row.id]);
    await again.acknowledge();
  }
  assert.deepEqual(left, Array.from({ length: 9 }, (_, at) => [at + 3, at + 3]));
  await again.return();
  await db.close();
});

test('a text alone says where rows come from and go to, and how fast', async () => {
  const db = await open({ name: 'text', streams: true });
  const collection = await db.createCollection('numbers', numbers);
  await collection.insert([{ id: 1 }]);
  const sql = `CREATE SOURCE fresh WITH (connector = 'collection', collection = 'numbers', since = 'now');
    CREATE SINK told FROM fresh WITH (connector = 'application', keepRows = 5)`;
  assert.match(await db.explainPipeline({ sql }), /told: sink, 5 rows kept.*from collection numbers, since now/s);
  const wrong = db.createPipeline('text', { sql: sql.replace('since', 'sinse') });
  await assert.rejects(wrong, (error) => error.position === sql.indexOf('since') && /did you mean `since`/.test(error.message));
  const pipeline = await db.createPipeline('text', { sql });
  await collection.insert([{ id: 2 }]);
  assert.equal((await pipeline.rows('told').next()).value.row.id, 2);
  const plan = source('numbers', { id: 'int64' }, { since: 'earliest', pace: 1_000_000 }).sink({ name: 'told' });
  await assert.rejects(db.createPipeline('past', { plan: { ...plan, sources: { numbers: { pace: 1 } } } }), kind('invalid_argument', 'other than `full`'));
  const past = await db.createPipeline('past', { plan });
  const rows = past.rows();
  assert.deepEqual([(await rows.next()).value.row.id, (await rows.next()).value.row.id], [1, 2]);
  await db.close();
});

test('a function that hangs keeps nobody waiting but its pipeline', async () => {
  const db = await open({ name: 'hangs', streams: true });
  const collection = await db.createCollection('numbers', numbers);
  let asked;
  const called = new Promise((resolve) => (asked = resolve));
  await db.setFunction('hang', () => (asked(), new Promise(() => {})));
  const slow = await db.createPipeline('slow', { plan: source('numbers', { id: 'int64' }).call('hang', { id: 'int64' }).sink({ name: 'slow' }) });
  const other = await db.createPipeline('other', { plan: passed() });
  await collection.insert([{ id: 1 }]);
  await called;
  assert.equal((await other.rows().next()).value.row.id, 1);
  assert.equal((await slow.status()).state, 'active');
  assert.equal(await collection.count(), 1);
  await db.close();
});

/** Writes numbers one by one until it is killed, and says which it has written. */
const writer = `
  import { open } from 'eddydb';
  import { source } from 'eddydb/plan';
  const db = await open({ name: 'killed', streams: true, path: process.argv[1] });
  const collection = await db.createCollection('numbers', { fields: { id: { type: 'int64', primaryKey: true } } }, { ifNotExists: true });
  const plan = source('numbers', { id: 'int64' }).sink({ name: 'told' });
  if (!(await db.pipelines()).includes('told')) await db.createPipeline('told', { plan, options: { checkpointIntervalMs: 0 } });
  const rows = db.pipeline('told').rows();
  (async () => {
    for await (const { position, row } of rows) {
      process.stdout.write('told ' + position + ' ' + row.id + '\\n');
      if (position % 3 === 0) {
        await rows.acknowledge(position);
        process.stdout.write('acknowledged ' + position + '\\n');
      }
    }
  })();
  for (let id = Number(process.argv[2]); ; id++) {
    await collection.insert([{ id }]);
    process.stdout.write('wrote ' + id + '\\n');
  }`;

test('killed in mid-stream, no row is lost, and none that was acknowledged comes again', async () => {
  const path = temporaryDirectory('eddy-killed-');
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const byPosition = new Map();
  let [next, acknowledged] = [0, -1];
  for (let life = 0; life < 4; life++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', writer, path, String(next)], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
    let [text, lines] = ['', 0];
    for await (const chunk of child.stdout.setEncoding('utf8')) {
      text += chunk;
      const whole = text.split('\n');
      text = whole.pop();
      for (const line of whole) {
        const [what, ...of] = line.split(' ');
        const [first, second] = of.map(Number);
        if (what === 'wrote') next = Math.max(next, first + 1);
        if (what === 'acknowledged') acknowledged = first;
        if (what === 'told') {
          assert.ok(!byPosition.has(first) || byPosition.get(first) === second, `row ${first} was ${byPosition.get(first)}, and is ${second}`);
          byPosition.set(first, second);
        }
        lines += 1;
      }
      // Somewhere in the middle of whatever it does.
      if (lines > 60 + 37 * life) child.kill('SIGKILL');
    }
    // The write under way may be there or not.
    next += 1;
  }
  const db = await open({ name: 'killed', streams: true, path });
  const pipeline = db.pipeline('told');
  await settled(pipeline);
  await pipeline.pause();
  const [unread] = (await pipeline.status()).unread;
  assert.ok(unread.acknowledged > acknowledged);
  const rows = pipeline.rows();
  for (let left = unread.rows; left > 0; left--) {
    const { value } = await rows.next();
    assert.ok(value.position >= unread.acknowledged);
    assert.ok(!byPosition.has(value.position) || byPosition.get(value.position) === value.row.id);
    byPosition.set(value.position, value.row.id);
  }
  await rows.return();
  const stored = (await db.collection('numbers').query({ outputFields: ['id'] })).map(({ id }) => id).sort((a, b) => a - b);
  // What was acknowledged in a life that ended before it was printed was told then.
  const told = [...byPosition.values()].sort((a, b) => a - b);
  assert.deepEqual(told, stored);
  assert.deepEqual([...byPosition.keys()].sort((a, b) => a - b), stored.map((_, at) => at));
  await db.close();
});
