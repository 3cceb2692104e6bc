import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { open } from 'eddydb';

import { temporaryDirectory } from '../support/files.mjs';
import { makeRows, nearest, product, schema } from '../support/vectors.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const writer = fileURLToPath(new URL('../support/writer.mjs', import.meta.url));

function files(path) {
  return readdirSync(path, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

test('what was written is there after closing and opening, flushed or not', async (t) => {
  const path = temporaryDirectory('eddy-files-');
  const rows = makeRows(500);
  for (const [from, to, flush] of [[0, 200, false], [200, 400, true], [400, 500, false]]) {
    const db = await open({ name: 'files', path });
    const notes = await db.createCollection('notes', schema, { ifNotExists: true });
    assert.equal(await notes.count(), from);
    await notes.insert(rows.slice(from, to));
    if (flush) await notes.flush();
    await db.close();
  }
  const db = await open({ name: 'files', storage: 'files', path });
  t.after(() => db.close());
  const notes = db.collection('notes');
  assert.deepEqual((await notes.query()).map(({ id, title }) => ({ id, title })), rows.map(({ id, title }) => ({ id, title })));
  const { embedding } = rows[321];
  const { hits } = await notes.search({ vector: embedding, limit: 5, exact: true });
  assert.deepEqual(hits.map((hit) => hit.key), nearest(rows, embedding, 5).map((hit) => hit.key));
  assert.ok(Math.abs(hits[0].score - product(embedding, embedding)) < 1e-5);
});

test('a process that ends without closing loses nothing acknowledged, and is not kept alive by an idle database', (t) => {
  const path = temporaryDirectory('eddy-files-');
  const program = `
    import { open } from 'eddydb';
    const db = await open({ name: 'left', path: ${JSON.stringify(path)} });
    const c = await db.createCollection('c', { fields: { id: { type: 'int64', primaryKey: true }, v: { type: 'float_vector', dim: 1 } } }, { ifNotExists: true });
    console.log(await c.count());
    await c.upsert([{ id: 1, v: [1] }]);`;
  for (const expected of ['0', '1']) {
    const ended = spawnSync(process.execPath, ['--input-type=module', '-e', program], { cwd: here, encoding: 'utf8', timeout: 60_000 });
    assert.equal(ended.stderr, '');
    assert.equal(ended.stdout.trim(), expected);
    assert.equal(ended.status, 0);
  }
});

test('a second process on the same directory is told so, and gets in when the first is gone', async (t) => {
  const path = temporaryDirectory('eddy-files-');
  const first = await open({ name: 'one', path });
  const program = `
    import { open } from 'eddydb';
    try { const db = await open({ name: 'two', path: ${JSON.stringify(path)} }); await db.close(); console.log('open'); }
    catch (error) { console.log(error.name, error.kind, error.message); }`;
  const second = () => spawnSync(process.execPath, ['--input-type=module', '-e', program], { cwd: here, encoding: 'utf8', timeout: 60_000 }).stdout.trim();
  assert.match(second(), new RegExp(`^EddyError locked .*process ${process.pid}`));
  await assert.rejects(open({ name: 'again', path }), { kind: 'locked' });
  await first.close();
  assert.equal(second(), 'open');
});

test('killed in mid-write, again and again: every acknowledged row is there, and no other', async (t) => {
  const path = temporaryDirectory('eddy-files-');
  let total = 0;
  for (let round = 0; round < 4; round++) {
    const child = spawn(process.execPath, [writer, path, String(total)], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => child.kill('SIGKILL'));
    const ended = once(child, 'exit');
    let acknowledged = total;
    let batches = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      acknowledged = Number(line);
      // At another point of its work each time.
      if (++batches === 5 + round * 17) child.kill('SIGKILL');
    }
    assert.deepEqual(await ended, [null, 'SIGKILL'], 'the writer ended by itself');
    const db = await open({ name: 'killed', path });
    const notes = db.collection('notes', schema);
    const rows = await notes.query({ outputFields: ['*'] });
    // The batch under way may be there too, but then wholly: its size follows from the rows before it.
    assert.ok(rows.length >= acknowledged, `${rows.length} rows of ${acknowledged} acknowledged ones`);
    assert.deepEqual(rows.map((row) => row.id), rows.map((_, index) => index));
    let end = total;
    for (let size = 1; end < rows.length; size = (size % 40) + 1) {
      for (const row of makeRows(size, { first: end })) {
        assert.deepEqual([...rows[row.id].embedding], [...row.embedding]);
        assert.equal(rows[row.id].title, row.title);
      }
      end += size;
    }
    assert.equal(end, rows.length, 'a batch is there in part');
    total = rows.length;
    await db.close();
  }
});

test('a file that lost its end or had a byte flipped is corrupt, and the error names it', async (t) => {
  const path = temporaryDirectory('eddy-files-');
  const db = await open({ name: 'damage', path });
  const notes = await db.createCollection('notes', schema);
  await notes.insert(makeRows(300));
  await notes.flush();
  await db.close();
  const largest = files(path).sort((a, b) => statSync(b).size - statSync(a).size)[0];
  const sound = readFileSync(largest);
  const flipped = Buffer.from(sound);
  flipped[sound.length >> 1] ^= 0x10;
  for (const damage of [() => writeFileSync(largest, flipped), () => truncateSync(largest, sound.length - 9)]) {
    damage();
    await assert.rejects(
      async () => {
        const opened = await open({ name: 'damage', path });
        try {
          await opened.collection('notes').query({ outputFields: ['*'] });
        } finally {
          await opened.close();
        }
      },
      (error) => {
        assert.equal(error.kind, 'corrupt', error.message);
        assert.match(error.message, /\w+[./]\w+/);
        return true;
      },
    );
  }
  writeFileSync(largest, sound);
  const again = await open({ name: 'damage', path });
  assert.equal(await again.collection('notes').count(), 300);
  await again.close();
});

test('a full disk is storage_full, and everything acknowledged stays', { skip: process.platform === 'win32' ? 'needs a shell with ulimit' : false }, async (t) => {
  const path = temporaryDirectory('eddy-files-');
  // A limit on the size of a file stands for a full disk: the write that would pass it fails in the same place.
  const program = `
    import { open } from 'eddydb';
    import { makeRows, schema } from '../support/vectors.mjs';
    const db = await open({ name: 'full', path: ${JSON.stringify(path)} });
    const notes = await db.createCollection('notes', schema);
    let first = 0;
    try { for (;;) { await notes.insert(makeRows(100, { first })); first += 100; } }
    catch (error) { console.log(error.kind, first, await notes.count()); }
    process.exit();`;
  const shell = `trap '' XFSZ; ulimit -f 512; exec "$0" "$@"`;
  const child = spawn('sh', ['-c', shell, process.execPath, '--input-type=module', '-e', program], { cwd: here, stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = [];
  for await (const line of createInterface({ input: child.stdout })) lines.push(line);
  if (child.exitCode === null) await once(child, 'exit');
  const [kind, written, counted] = lines[0].split(' ');
  assert.equal(kind, 'storage_full');
  assert.equal(counted, written);
  assert.ok(Number(written) > 0);
  const db = await open({ name: 'full', path });
  t.after(() => db.close());
  assert.equal(await db.collection('notes').count(), Number(written));
  await db.collection('notes').insert(makeRows(100, { first: Number(written) }));
});
