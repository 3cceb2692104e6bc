// One directory, processes of Node and native ones: at most one of them has it, whatever kind came first and however it ended.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { before } from 'node:test';
import { fileURLToPath } from 'node:url';

import { open } from 'eddydb';

import { eddyProgram } from '../../scripts/native.mjs';
import { temporaryDirectory } from '../support/files.mjs';
import { makeRows, schema } from '../support/vectors.mjs';

const writer = fileURLToPath(new URL('../support/writer.mjs', import.meta.url));
let eddy;

before(() => {
  eddy = eddyProgram();
});

const info = (path) => {
  const { status, stdout, stderr } = spawnSync(eddy, ['info', '--data', path, '--json'], { encoding: 'utf8' });
  return status === 0 ? JSON.parse(stdout) : stderr;
};

/** A native process that has the directory open. */
async function serve(t, path) {
  const child = spawn(eddy, ['serve', '--data', path, '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  for await (const line of createInterface({ input: child.stdout })) {
    const address = /listening on (http:\S+)/.exec(line)?.[1];
    if (address) return { child, address };
  }
  throw new Error('the server ended');
}

test('a native process keeps one of Node out, and gives way when it is killed', async (t) => {
  const path = temporaryDirectory('eddy-owners-');
  const { child } = await serve(t, path);
  await assert.rejects(open({ name: 'node', path }), (error) => error.kind === 'locked' && error.message.includes(`process ${child.pid}`));
  child.kill('SIGKILL');
  await once(child, 'exit');
  const db = await open({ name: 'node', path });
  await db.close();
  assert.deepEqual(readdirSync(path).filter((name) => name.startsWith('.lock')), []);
});

test('a process of Node keeps a native one out, and gives way when it is killed: nothing acknowledged is lost either way', async (t) => {
  const path = temporaryDirectory('eddy-owners-');
  let rows = 0;
  for (let round = 0; round < 3; round++) {
    const child = spawn(process.execPath, [writer, path, String(rows)], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => child.kill('SIGKILL'));
    const ended = once(child, 'exit');
    let lines = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      rows = Number(line);
      if (++lines === 4) assert.match(info(path), new RegExp(`locked: .*process ${child.pid}`));
      if (lines === 8 + round) child.kill('SIGKILL');
    }
    // Its pipe closes a little before it is gone.
    assert.deepEqual(await ended, [null, 'SIGKILL'], 'the writer ended by itself');
    // Whatever was under way when it died is there wholly or not at all.
    const { child: server, address } = await serve(t, path);
    await assert.rejects(open({ name: 'node', path }), { kind: 'locked' });
    const answer = await fetch(`${address}/api/collections/notes/count`, { method: 'POST', body: '{}' });
    const { count } = await answer.json();
    assert.ok(count >= rows, `${count} rows of ${rows} acknowledged ones`);
    rows = count;
    server.kill('SIGKILL');
    await once(server, 'exit');
  }
  const db = await open({ name: 'node', path });
  t.after(() => db.close());
  assert.equal(await db.collection('notes').count(), rows);
});

test('an owner that lost the directory without noticing acknowledges nothing more, and spoils nothing', async (t) => {
  const path = temporaryDirectory('eddy-owners-');
  const lost = await open({ name: 'lost', path });
  const notes = await lost.createCollection('notes', schema);
  await notes.insert(makeRows(10));
  // What a network file system does to a machine that slept: another one is let in.
  unlinkSync(join(path, readdirSync(path).find((name) => name.startsWith('.lock.'))));
  const { child, address } = await serve(t, path);
  const rows = makeRows(5, { first: 100 }).map((row) => ({ ...row, embedding: [...row.embedding] }));
  const post = (body) => fetch(`${address}/api/collections/notes/upsert`, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
  const written = await post({ rows });
  assert.equal(written.status, 200, await written.text());
  await assert.rejects(notes.insert(makeRows(5, { first: 10 })), { kind: 'locked' });
  await assert.rejects(notes.flush(), { kind: 'locked' });
  await lost.close().catch(() => {});
  child.kill('SIGKILL');
  await once(child, 'exit');
  const db = await open({ name: 'node', path });
  t.after(() => db.close());
  const ids = (await db.collection('notes').query({ outputFields: ['id'] })).map(({ id }) => id);
  assert.deepEqual(ids, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 101, 102, 103, 104]);
});
