// What is done to collections as a whole, and to keys: aliases, made keys, added fields.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

import { open } from 'eddydb';

async function directory(t) {
  const path = await mkdtemp(join(tmpdir(), 'eddy-manage-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

const schema = { fields: { id: { type: 'int64', primaryKey: true }, word: { type: 'varchar' } } };

test('aliases name collections, survive a restart, and move', async (t) => {
  const path = await directory(t);
  let db = await open({ name: 'aliases', path });
  const blue = await db.createCollection('blue', schema);
  const green = await db.createCollection('green', schema);
  await blue.insert([{ id: 1, word: 'blue' }]);
  await green.insert([{ id: 1, word: 'green' }]);
  await db.createAlias('live', 'blue');
  const live = db.collection('live');
  assert.deepEqual(await live.get([1]), [{ id: 1, word: 'blue' }]);
  assert.deepEqual(await db.aliases(), { live: 'blue' });
  assert.deepEqual(await db.collections(), ['blue', 'green']);
  await db.close();

  db = await open({ name: 'aliases', path });
  const again = db.collection('live');
  assert.equal((await again.get([1]))[0].word, 'blue');
  await db.alterAlias('live', 'green');
  assert.equal((await again.get([1]))[0].word, 'green');
  await again.insert([{ id: 2, word: 'more' }]);
  assert.equal(await db.collection('green').count(), 2);
  for (const [what, kind, message] of [
    [() => db.createAlias('live', 'blue'), 'already_exists', /live/],
    [() => db.createAlias('blue', 'green'), 'already_exists', /is a collection/],
    [() => db.createAlias('a b', 'green'), 'invalid_argument', /a b/],
    [() => db.createAlias('other', 'red'), 'not_found', /red/],
    [() => db.alterAlias('other', 'green'), 'not_found', /other/],
    [() => db.alterAlias('blue', 'green'), 'already_exists', /is a collection/],
    [() => db.dropAlias('other'), 'not_found', /other/],
    [() => db.dropAlias('blue'), 'already_exists', /is a collection/],
    [() => db.dropCollection('live'), 'invalid_argument', /alias of collection "green"/],
    [() => db.createCollection('live', schema), 'already_exists', /live/],
  ]) {
    await assert.rejects(what, (error) => error.kind === kind && message.test(error.message) || assert.fail(`${error.kind}: ${error.message}`));
  }
  await db.createAlias('second', 'green');
  await db.dropCollection('green');
  assert.deepEqual(await db.aliases(), {});
  await assert.rejects(again.count(), { kind: 'not_found' });
  await db.createAlias('live', 'blue');
  await db.dropAlias('live');
  await assert.rejects(again.count(), { kind: 'not_found' });
  await db.close();
});

test('keys are made for rows that lack them', async (t) => {
  const db = await open({ name: 'keys', storage: 'memory' });
  t.after(() => db.close());
  const words = await db.createCollection('words', {
    fields: { id: { type: 'varchar', maxLength: 26, primaryKey: true, autoId: true }, word: { type: 'varchar' } },
  });
  const { keys } = await words.insert([{ word: 'a' }, { word: 'b' }, { id: 'own', word: 'c' }]);
  assert.match(keys[0], /^[0-9A-Z]{26}$/);
  assert.ok(keys[0] < keys[1] && keys[2] === 'own');
  assert.deepEqual((await words.get(keys)).map((row) => row.word), ['a', 'b', 'c']);
  const { keys: later } = await words.insert(Array.from({ length: 500 }, () => ({ word: 'x' })));
  assert.equal(new Set([...keys, ...later]).size, 503);
  assert.equal((await words.schema()).fields.id.autoId, true);

  const big = await open({ name: 'big', storage: 'memory', bigint: true });
  t.after(() => big.close());
  const numbers = await big.createCollection('numbers', { fields: { id: { type: 'int64', primaryKey: true, autoId: true }, n: { type: 'int8' } } });
  const written = await numbers.insert([{ n: 1 }, { n: 2 }, { id: 3n, n: 3 }]);
  assert.ok(written.keys.every((key) => typeof key === 'bigint' && key > 0n));
  assert.deepEqual((await numbers.get(written.keys)).map((row) => row.n), [1, 2, 3]);
  assert.equal((await numbers.upsert([{ id: written.keys[0], n: 7 }])).count, 1);
  assert.equal(await numbers.count(), 3);
  const plain = await big.createCollection('plain', { fields: { id: { type: 'int64', primaryKey: true } } });
  assert.equal((await plain.insert([{ id: 1n }])).keys, undefined);
  await assert.rejects(plain.insert([{}]), { kind: 'invalid_argument', message: /row 0.*id.*missing/ });

  for (const [fields, message] of [
    [{ id: { type: 'varchar', maxLength: 25, primaryKey: true, autoId: true } }, /maxLength is 25.*26/],
    [{ id: { type: 'int64', primaryKey: true }, n: { type: 'int64', autoId: true } }, /"n".*primary key/],
  ]) {
    await assert.rejects(big.createCollection('bad', { fields }), { kind: 'invalid_argument', message });
  }
});

test('fields are added to a collection that lives', async (t) => {
  const path = await directory(t);
  let db = await open({ name: 'fields', path });
  let words = await db.createCollection('words', schema);
  await words.insert([{ id: 1, word: 'flushed' }]);
  await words.flush();
  await words.insert([{ id: 2, word: 'logged' }]);
  const wide = await words.addField('rank', { type: 'int32', default: 7 });
  await words.addField('tags', { type: 'array', elementType: 'varchar', nullable: true });
  await words.addField('v', { type: 'float_vector', dim: 2, metric: 'L2', nullable: true });
  await wide.insert([{ id: 3, word: 'new', rank: 1, tags: ['a'], v: [1, 1] }, { id: 4, word: 'newer' }]);
  const expected = [
    { id: 1, word: 'flushed', rank: 7, tags: null, v: null },
    { id: 2, word: 'logged', rank: 7, tags: null, v: null },
    { id: 3, word: 'new', rank: 1, tags: ['a'], v: new Float32Array([1, 1]) },
    { id: 4, word: 'newer', rank: 7, tags: null, v: null },
  ];
  const check = async () => {
    assert.deepEqual(await words.query({ outputFields: ['*'] }), expected);
    assert.deepEqual((await words.query({ filter: 'rank == 7 and tags is null', outputFields: ['id'] })).map((row) => row.id), [1, 2, 4]);
    assert.deepEqual((await words.search({ vector: [1, 2] })).hits.map(({ key, score }) => [key, score]), [[3, 1]]);
    assert.deepEqual(Object.keys((await words.schema()).fields), ['id', 'word', 'rank', 'tags', 'v']);
  };
  await check();
  // The first time from a segment without them, a log of both kinds; then from segments of both kinds.
  for (const flush of [false, true, true]) {
    await db.close();
    db = await open({ name: 'fields', path });
    words = db.collection('words');
    await check();
    if (flush) await words.flush();
  }
  for (const [name, field, message] of [
    ['rank', { type: 'int8', nullable: true }, /"rank" occurs twice/],
    ['more', { type: 'int8' }, /"more".*nullable or has a default/],
    ['more', { type: 'float_vector', dim: 2, default: [1, 2] }, /"more".*is nullable/],
    ['more', { type: 'int8', default: 300 }, /300 is out of range/],
    ['more', { type: 'int64', primaryKey: true }, /keys from the start/],
    ['no spaces', { type: 'int8', nullable: true }, /no spaces/],
  ]) {
    await assert.rejects(words.addField(name, field), (error) => error.kind === 'invalid_argument' && message.test(error.message) || assert.fail(`${error.kind}: ${error.message}`));
  }
  await check();
  await db.close();
});

test('writers go on while fields are added', async (t) => {
  const db = await open({ name: 'writers', storage: 'memory' });
  t.after(() => db.close());
  const words = await db.createCollection('words', schema);
  const writes = [];
  for (let id = 0; id < 60; id++) {
    writes.push(words.insert([{ id, word: `word ${id}` }]));
    if (id % 20 === 10) writes.push(words.addField(`n${id}`, { type: 'int8', default: 1 }));
  }
  await Promise.all(writes);
  assert.equal(await words.count({ filter: 'n10 == 1 and n30 == 1 and n50 == 1' }), 60);
});

test('rows expire', async (t) => {
  const db = await open({ name: 'ttl', storage: 'memory' });
  t.after(() => db.close());
  const words = await db.createCollection('words', { ...schema, ttlSeconds: 3600 });
  assert.equal((await words.schema()).ttlSeconds, 3600);
  await words.insert([{ id: 1, word: 'a' }]);
  assert.equal(await words.count(), 1);
  await words.setTtl(1);
  const deadline = Date.now() + 20_000;
  while ((await words.count()) > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual([await words.count(), await words.get([1]), await words.query()], [0, [], []]);
  await words.setTtl(null);
  assert.equal((await words.schema()).ttlSeconds, undefined);
  await words.upsert([{ id: 1, word: 'again' }]);
  assert.deepEqual(await words.query(), [{ id: 1, word: 'again' }]);
  for (const seconds of [0, -1, 0.5, 1e12]) await assert.rejects(words.setTtl(seconds), { kind: 'invalid_argument', message: /ttlSeconds/ });
});

// Leaving out what is usual had made the schema of a collection differ from its own.
test('a collection that is there is taken with the schema that made it', async (t) => {
  const db = await open({ name: 'again', storage: 'memory' });
  t.after(() => db.close());
  const fields = { ...schema.fields, v: { type: 'float_vector', dim: 2 }, bits: { type: 'binary_vector', dim: 8, metric: 'JACCARD' } };
  const made = { fields, dynamic: true, ttlSeconds: 60 };
  await db.createCollection('words', made);
  await db.createCollection('words', made, { ifNotExists: true });
  const other = { ...made, fields: { ...fields, bits: { type: 'binary_vector', dim: 8 } } };
  await assert.rejects(db.createCollection('words', other, { ifNotExists: true }), { kind: 'already_exists', message: /another schema/ });
});

test('options of a collection are kept, changed and refused', async (t) => {
  const path = await directory(t);
  let db = await open({ name: 'options', path, codec: 'gzip' });
  const plain = await db.createCollection('plain', schema);
  assert.deepEqual(await plain.options(), {});
  const words = await db.createCollection('words', schema, { codec: 'snappy', seal: { rows: 50, idleMs: 2_000 } });
  assert.deepEqual(await words.options(), { codec: 'snappy', seal: { rows: 50, idleMs: 2_000 } });
  await words.insert(Array.from({ length: 60 }, (_, id) => ({ id, word: `word ${id % 3}` })));
  // Background work seals and flushes what is full.
  const flushed = async () => (await words.stats()).states.flushed;
  for (const until = Date.now() + 20_000; (await flushed()) < 1; ) {
    assert.ok(Date.now() < until, 'a full segment is flushed');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await words.setOptions({ codec: 'none' });
  assert.deepEqual(await words.options(), { codec: 'none' });
  for (const [options, message] of [
    [{ seal: { rows: 0 } }, /seal.rows 0; expected at least 1/],
    [{ seal: { ageMs: 10 } }, /seal.ageMs 10/],
    [{ codec: 'brotli' }, /brotli/],
    [{ mergePolicy: 'tiered' }, /tiered.*hierarchical.*sequential.*parallel/],
    [{ rows: 5 }, /rows/],
  ]) {
    const refused = (error) => error.kind === 'invalid_argument' && message.test(error.message) || assert.fail(`${error.kind}: ${error.message}`);
    await assert.rejects(() => words.setOptions(options), refused);
    await assert.rejects(() => db.createCollection('other', schema, options), refused);
  }
  await db.close();
  db = await open({ name: 'options', path });
  assert.deepEqual(await db.collection('words').options(), { codec: 'none' });
  assert.equal(await db.collection('words').count({ filter: "word == 'word 1'" }), 20);
  await db.close();
});

test('segments are merged as the database or the collection says', async (t) => {
  const path = await directory(t);
  let db = await open({ name: 'policies', path, mergePolicy: 'sequential' });
  /** Waits until so many merges have left so many segments: background work does them. */
  const merged = async (rows, count, segments) => {
    const isDone = ({ merges, states }) => merges.finished >= count && states.flushed === segments;
    for (const until = Date.now() + 20_000; !isDone(await rows.stats()); ) {
      assert.ok(Date.now() < until, `${rows.name}: ${JSON.stringify(await rows.stats())}, and ${count} merges expected`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const told = {};
  for (const [name, options, merges] of [['one', {}, 1], ['some', { mergePolicy: 'hierarchical' }, 0], ['beside', { mergePolicy: 'parallel' }, 0]]) {
    const rows = await db.createCollection(name, schema, options);
    assert.deepEqual((await rows.stats()).merges, { finished: 0, rows: 0, rowsFlushed: 0, writeAmplification: 0 });
    for (let part = 0; part < 3; part += 1) {
      await rows.insert(Array.from({ length: 10 }, (_, at) => ({ id: part * 10 + at, word: 'x' })));
      await rows.flush();
      await merged(rows, part * merges, merges > 0 ? 1 : part + 1);
    }
    const stats = await rows.stats();
    told[name] = [stats.mergePolicy, stats.merges.finished, stats.merges.rows, stats.states.flushed + stats.states.compacting];
    assert.equal(stats.merges.rowsFlushed, 30);
    assert.equal(stats.merges.writeAmplification, stats.merges.rows / 30);
  }
  // Three segments of ten rows: the second goes into the first, and the third into what these became.
  assert.deepEqual(told, { one: ['sequential', 2, 50, 1], some: ['hierarchical', 0, 0, 3], beside: ['parallel', 0, 0, 3] });
  // On a living collection, durably; counts stay.
  const some = db.collection('some');
  await some.setOptions({ mergePolicy: 'sequential' });
  await merged(some, 1, 1);
  await db.close();
  db = await open({ name: 'policies', path });
  assert.deepEqual(await db.collection('some').options(), { mergePolicy: 'sequential' });
  const of = async (name) => {
    const { mergePolicy, merges, states } = await db.collection(name).stats();
    return [mergePolicy, merges.finished, merges.rows, states.flushed];
  };
  assert.deepEqual(await of('one'), ['hierarchical', 2, 50, 1]);
  assert.deepEqual(await of('some'), ['sequential', 1, 30, 1]);
  assert.equal(await db.collection('some').count(), 30);
  await db.close();
});
