// A database in one file: out of one, into another, whole or not at all.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import test from 'node:test';

import { open } from 'eddydb';

import { temporaryDirectory } from '../support/files.mjs';
import { makeRows, nearest, schema } from '../support/vectors.mjs';

test('what is exported is imported, with its index, and goes on', async (t) => {
  const rows = makeRows(600);
  const from = await open({ name: 'from' });
  t.after(() => from.close());
  const notes = await from.createCollection('notes', schema);
  await notes.insert(rows);
  await notes.delete({ keys: [5, 6] });
  await from.createCollection('empty', schema);
  const file = await from.exportFile();
  assert.ok(file instanceof Blob);
  // What is written afterwards is not in the file.
  await notes.insert(makeRows(10, { first: 1000 }));

  const path = temporaryDirectory('eddy-archive-');
  const into = await open({ name: 'into', path });
  assert.deepEqual((await into.importFile(file)).sort(), ['empty', 'notes']);
  const imported = into.collection('notes', schema);
  const expected = rows.filter(({ id }) => id !== 5 && id !== 6);
  assert.deepEqual((await imported.query()).map(({ id }) => id), expected.map(({ id }) => id));
  const { hits } = await imported.search({ vector: rows[42].embedding, limit: 5, exact: true });
  assert.deepEqual(hits.map(({ key }) => key), nearest(expected, rows[42].embedding, 5).map(({ key }) => key));
  await imported.upsert(makeRows(1, { first: 5 }));
  await assert.rejects(into.importFile(file), { kind: 'already_exists' });
  await into.close();
  const again = await open({ name: 'into', path });
  t.after(() => again.close());
  assert.equal(await again.collection('notes').count(), expected.length + 1);
  assert.deepEqual(await again.collections(), ['empty', 'notes']);
});

test('a file goes out by a stream, part after part', async (t) => {
  const db = await open({ name: 'streamed', path: temporaryDirectory('eddy-stream-') });
  t.after(() => db.close());
  await (await db.createCollection('notes', schema)).insert(makeRows(2_000));
  const parts = [];
  await db.exportTo(new WritableStream({ write: (part) => void parts.push(part) }));
  const whole = new Blob(parts);
  assert.ok(parts.length > 3);
  assert.deepEqual(new Uint8Array(await whole.arrayBuffer()), new Uint8Array(await (await db.exportFile()).arrayBuffer()));
  const into = await open({ name: 'into' });
  t.after(() => into.close());
  assert.deepEqual(await into.importFrom(whole.stream()), ['notes']);
  assert.equal(await into.collection('notes').count(), 2_000);
  // A stream that takes no more ends it, and the database goes on.
  const full = new WritableStream({ write: () => Promise.reject(new Error('no room')) });
  await assert.rejects(db.exportTo(full), /no room/);
  assert.equal(await db.collection('notes').count(), 2_000);
});

test('a stream that breaks leaves nothing behind', async (t) => {
  const from = await open({ name: 'from' });
  t.after(() => from.close());
  await (await from.createCollection('notes', schema)).insert(makeRows(2_000));
  const whole = new Uint8Array(await (await from.exportFile()).arrayBuffer());
  const path = temporaryDirectory('eddy-broken-');
  const into = await open({ name: 'into', path });
  let at = 0;
  const broken = new ReadableStream({
    pull(controller) {
      if (at > whole.length / 2) throw new Error('the line is down');
      controller.enqueue(whole.slice(at, (at += 10_000)));
    },
  });
  const before = readdirSync(path, { recursive: true }).length;
  await assert.rejects(into.importFrom(broken), /the line is down/);
  assert.ok(at > 20_000);
  assert.deepEqual(await into.collections(), []);
  assert.equal(readdirSync(path, { recursive: true }).length, before);
  // A stream is cancelled when it is no archive.
  let cancelled;
  const other = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(100)), cancel: (reason) => void (cancelled = reason) });
  await assert.rejects(into.importFrom(other), { kind: 'corrupt' });
  assert.equal(cancelled?.kind, 'corrupt');
  assert.deepEqual(await into.importFrom(new Blob([whole]).stream()), ['notes']);
  await into.close();
});

test('a file that was cut, changed, or is another one is refused, and nothing of it is imported', async (t) => {
  const from = await open({ name: 'from' });
  t.after(() => from.close());
  await (await from.createCollection('notes', schema)).insert(makeRows(50));
  const whole = new Uint8Array(await (await from.exportFile()).arrayBuffer());
  const into = await open({ name: 'into' });
  t.after(() => into.close());
  const changed = whole.slice();
  changed[whole.length >> 1] ^= 1;
  for (const bytes of [whole.slice(0, -1), whole.slice(0, whole.length >> 1), changed, new Uint8Array(0), Uint8Array.of(1, 2, 3)]) {
    await assert.rejects(into.importFile(bytes), { kind: 'corrupt' });
  }
  const later = whole.slice();
  later[8] = 9;
  await assert.rejects(into.importFile(later.buffer), { kind: 'unsupported' });
  assert.deepEqual(await into.collections(), []);
  assert.deepEqual(await into.importFile(whole.buffer), ['notes']);
});
