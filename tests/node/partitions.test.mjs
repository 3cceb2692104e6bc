// Partitions of a collection: by name, and by the values of a field.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

import { open } from 'eddydb';

const schema = { fields: { id: { type: 'int64', primaryKey: true }, v: { type: 'float_vector', dim: 2 } } };

test('rows are written, found and deleted in partitions, and stay there', async (t) => {
  const path = await mkdtemp(join(tmpdir(), 'eddy-partitions-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  let db = await open({ name: 'partitions', path });
  let notes = await db.createCollection('notes', schema);
  await notes.createPartition('blue');
  await notes.createPartition('red');
  const row = (id) => ({ id, v: [id, 1] });
  await notes.insert([row(1)]);
  await notes.insert([row(2), row(3)], { partition: 'blue' });
  await notes.insert([{ ...row(4), $partition: 'red' }]);
  await notes.upsert([row(3)], { partition: 'red' });
  await notes.batch([{ insert: [row(5)] }, { delete: { keys: [1] } }], { partition: 'red' });
  for (const round of ['as written', 'after a restart']) {
    assert.deepEqual(await notes.partitions(), ['_default', 'blue', 'red'], round);
    assert.deepEqual((await notes.stats()).partitions, { _default: 1, blue: 1, red: 3 });
    assert.equal(await notes.count({ partitions: ['red'], filter: 'id > 3' }), 2);
    assert.deepEqual(await notes.get([1, 2, 3], { partitions: ['red', '_default'], outputFields: ['id', '$partition'] }), [
      { id: 1, $partition: '_default' },
      { id: 3, $partition: 'red' },
    ]);
    const hits = await notes.search({ vector: [0, 1], partitions: ['blue'] });
    assert.deepEqual(hits.hits.map((hit) => hit.key), [2]);
    const snapshot = await notes.snapshot();
    assert.equal((await snapshot.query({ partitions: ['red'] })).length, 3);
    await snapshot.release();
    await db.close();
    db = await open({ name: 'partitions', path });
    // The same schema as ever, though rows have partitions by now.
    notes = await db.createCollection('notes', schema, { ifNotExists: true });
  }
  assert.equal((await notes.delete({ filter: 'id > 0' }, { partition: 'blue' })).count, 1);
  assert.equal((await notes.delete({ keys: [1, 4] }, { partition: 'red' })).count, 1);
  await notes.dropPartition('red');
  assert.deepEqual((await notes.query()).map((row) => row.id), [1]);
  for (const [what, kind, message] of [
    [() => notes.createPartition('blue'), 'already_exists', /blue/],
    [() => notes.createPartition('a-b'), 'invalid_argument', /a-b/],
    [() => notes.createPartition(1), 'invalid_argument', /text expected/],
    [() => notes.dropPartition('red'), 'not_found', /_default, blue/],
    [() => notes.dropPartition('_default'), 'invalid_argument', /always there/],
    [() => notes.insert([row(9)], { partition: 'red' }), 'not_found', /red/],
    [() => notes.insert([{ ...row(9), $partition: 'red' }]), 'not_found', /red/],
    [() => notes.query({ partitions: ['red'] }), 'not_found', /red/],
    [() => notes.count({ partitions: 'red' }), 'invalid_argument', /array/],
    [() => notes.count({ partitions: [1] }), 'invalid_argument', /text expected/],
  ]) {
    await assert.rejects(what, (error) => error.kind === kind && message.test(error.message) || assert.fail(`${error.kind}: ${error.message}`));
  }
  await db.close();
});

test('a partition key assigns rows to partitions', async (t) => {
  const db = await open({ name: 'keys', storage: 'memory' });
  t.after(() => db.close());
  const notes = await db.createCollection('notes', {
    fields: { ...schema.fields, tenant: { type: 'varchar', partitionKey: true } },
    numPartitions: 4,
  });
  assert.deepEqual(await notes.partitions(), ['_default_0', '_default_1', '_default_2', '_default_3']);
  await notes.insert(Array.from({ length: 40 }, (_, id) => ({ id, v: [id, 1], tenant: `tenant ${id % 10}` })));
  assert.equal(await notes.count({ filter: 'tenant in ["tenant 3", "tenant 4"]' }), 8);
  const { hits } = await notes.search({ vector: [0, 1], filter: 'tenant == "tenant 3"', outputFields: ['tenant', '$partition'] });
  assert.equal(hits.length, 4);
  assert.equal(new Set(hits.map((hit) => hit.row.$partition)).size, 1);
  const { fields, numPartitions } = await notes.schema();
  assert.deepEqual([fields.tenant.partitionKey, numPartitions], [true, 4]);
  await assert.rejects(notes.insert([{ id: 99, v: [0, 0], tenant: 'x' }], { partition: '_default_1' }), { kind: 'invalid_argument' });
  await assert.rejects(notes.query({ partitions: ['_default_1'] }), { kind: 'invalid_argument' });
  await assert.rejects(notes.createPartition('a'), { kind: 'invalid_argument' });
  for (const [wrong, message] of [
    [{ fields: { ...schema.fields, n: { type: 'double', partitionKey: true } } }, /int64 or varchar/],
    [{ ...schema, numPartitions: 3 }, /numPartitions/],
  ]) {
    await assert.rejects(db.createCollection('wrong', wrong), { kind: 'invalid_argument', message });
  }
});
