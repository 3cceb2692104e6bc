import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';

import { NodeDirectory } from 'eddydb';

import { temporaryDirectory } from '../support/files.mjs';

const named = (name) => (error) => error.name === name;

test('files: written at any place, read back, cut, and listed', async (t) => {
  const root = NodeDirectory.open(join(temporaryDirectory('eddy-directory-'), 'made', 'on', 'the', 'way'));
  t.after(() => root.close());
  const file = await root.getFileHandle('log', { create: true });
  const handle = await file.createSyncAccessHandle();
  assert.equal(handle.write(Uint8Array.of(1, 2, 3)), 3);
  assert.equal(handle.write(Uint8Array.of(4)), 1);
  assert.equal(handle.write(Uint8Array.of(9, 9), { at: 6 }), 2);
  handle.flush();
  assert.equal(handle.getSize(), 8);
  const buffer = new Uint8Array(10);
  assert.equal(handle.read(buffer, { at: 1 }), 7);
  assert.deepEqual([...buffer], [2, 3, 4, 0, 0, 9, 9, 0, 0, 0]);
  handle.truncate(2);
  assert.equal(handle.getSize(), 2);
  assert.equal(handle.read(buffer, { at: 5 }), 0);
  await assert.rejects(file.createSyncAccessHandle(), named('NoModificationAllowedError'));
  await assert.rejects(root.removeEntry('log'), named('NoModificationAllowedError'));
  handle.close();
  handle.close();
  assert.throws(() => handle.getSize(), named('InvalidStateError'));
  const again = await (await root.getFileHandle('log')).createSyncAccessHandle();
  assert.equal(again.getSize(), 2);
  again.close();

  const inner = await root.getDirectoryHandle('inner', { create: true });
  await inner.getFileHandle('a', { create: true });
  const names = [];
  for await (const [name, { kind }] of root.entries()) names.push([name, kind]);
  assert.deepEqual(names.sort(), [['inner', 'directory'], ['log', 'file']]);
  await assert.rejects(root.removeEntry('inner'), (error) => error.name !== 'NotFoundError');
  await root.removeEntry('inner', { recursive: true });
  await root.removeEntry('log');
  await assert.rejects(root.getFileHandle('log'), named('NotFoundError'));
  await assert.rejects(root.removeEntry('log'), named('NotFoundError'));
});

test('names are those of entries, never paths', async (t) => {
  const root = NodeDirectory.open(temporaryDirectory('eddy-directory-'));
  t.after(() => root.close());
  for (const name of ['', '.', '..', 'a/b', 'a\\b', '.lock', '.lock.1', 'a\0b']) {
    await assert.rejects(root.getFileHandle(name, { create: true }), TypeError, JSON.stringify(name));
  }
  await root.getDirectoryHandle('directory', { create: true });
  await assert.rejects(root.getFileHandle('directory'), named('TypeMismatchError'));
  await root.getFileHandle('file', { create: true });
  await assert.rejects(root.getDirectoryHandle('file'), named('TypeMismatchError'));
});

test('one owner at a time, in one process', (t) => {
  const path = temporaryDirectory('eddy-directory-');
  const first = NodeDirectory.open(path);
  assert.throws(() => NodeDirectory.open(path), named('NoModificationAllowedError'));
  first.close();
  const second = NodeDirectory.open(path);
  // Closing the first again must not give up the lock of the second.
  first.close();
  assert.throws(() => NodeDirectory.open(path), named('NoModificationAllowedError'));
  second.close();
  assert.deepEqual(readdirSync(path), []);
});

test('one owner at a time, among processes; a killed one leaves nothing behind', async (t) => {
  const path = temporaryDirectory('eddy-directory-');
  const program = `import { NodeDirectory } from 'eddydb'; NodeDirectory.open(process.argv[1]); console.log('open'); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, path], { cwd: new URL('.', import.meta.url), stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  assert.throws(
    () => NodeDirectory.open(path),
    (error) => error.name === 'NoModificationAllowedError' && error.message.includes(`process ${child.pid}`),
  );
  child.kill('SIGKILL');
  await once(child, 'exit');
  const taken = NodeDirectory.open(path);
  taken.close();
  assert.deepEqual(readdirSync(path), []);
});

test('a lock of a process that is gone, or torn, is taken over', (t) => {
  const path = temporaryDirectory('eddy-directory-');
  const lock = join(path, '.lock');
  // 2^22 is past the largest process id of Linux; a restarted container may give our own id to a new process.
  for (const text of [JSON.stringify({ pid: 2 ** 22 + 1, started: 'x' }), '', '{"pid": 1', JSON.stringify({ pid: process.pid, started: 'long ago' })]) {
    if (process.platform !== 'linux' && text.includes('long ago')) continue;
    writeFileSync(lock, text);
    NodeDirectory.open(path).close();
    assert.deepEqual(readdirSync(path), [], text);
  }
});
