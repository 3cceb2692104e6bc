import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync, unlinkSync, writeFileSync } from 'node:fs';
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

test('a claim of a process that is gone is taken over; other files are no claims', { skip: process.platform === 'linux' ? false : 'asks /proc' }, (t) => {
  const path = temporaryDirectory('eddy-directory-');
  const first = NodeDirectory.open(path);
  const [own] = readdirSync(path);
  first.close();
  const [, pid, started, boot] = /^\.lock\.(\d+)-(\d+)-([0-9a-f]{16})-[0-9a-f]{16}$/.exec(own);
  assert.equal(Number(pid), process.pid);
  const token = '0'.repeat(16);
  for (const gone of [
    // 2^22 is past the largest process id of Linux; a restarted container may give our own id to a new process.
    `${2 ** 22 + 1}-${started}-${boot}-${token}`, `${pid}-${Number(started) + 1}-${boot}-${token}`, `${pid}-${started}-${'f'.repeat(16)}-${token}`,
  ]) {
    writeFileSync(join(path, `.lock.${gone}`), '');
    NodeDirectory.open(path).close();
    assert.deepEqual(readdirSync(path), [], gone);
  }
  writeFileSync(join(path, '.lock'), '');
  NodeDirectory.open(path).close();
});

test('a process that ended is gone before its parent asks', { skip: process.platform === 'linux' ? false : 'asks /proc' }, async (t) => {
  const path = temporaryDirectory('eddy-directory-');
  // A parent that never asks: the shell has become another program. Not before that its child ends, for the shell might ask.
  const script = '( until [ "$(cat /proc/$$/comm)" = sleep ]; do :; done ) & echo $!; exec sleep 1000';
  const parent = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => parent.kill('SIGKILL'));
  const pid = String((await once(parent.stdout, 'data'))[0]).trim();
  const fields = () => { const stat = readFileSync(`/proc/${pid}/stat`, 'utf8'); return stat.slice(stat.lastIndexOf(')') + 2).split(' '); };
  while (fields()[0] !== 'Z') await new Promise(setImmediate);
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').replace(/[^0-9a-f]/g, '').slice(0, 16);
  writeFileSync(join(path, `.lock.${pid}-${fields()[19]}-${boot}-${'0'.repeat(16)}`), '');
  NodeDirectory.open(path).close();
  assert.deepEqual(readdirSync(path), []);
});

test('of many that come at once one wins', async (t) => {
  const path = temporaryDirectory('eddy-directory-');
  const program = `
    import { NodeDirectory } from 'eddydb';
    process.stdin.once('data', () => {
      try { NodeDirectory.open(process.argv[1]); console.log('won'); } catch (error) { console.log(error.name); }
    });
    console.log('ready');`;
  const children = Array.from({ length: 6 }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', program, path], { cwd: new URL('.', import.meta.url), stdio: ['pipe', 'pipe', 'inherit'] }));
  t.after(() => children.forEach((child) => child.kill('SIGKILL')));
  const line = async (child) => String((await once(child.stdout, 'data'))[0]).trim();
  await Promise.all(children.map(line));
  const said = Promise.all(children.map(line));
  for (const child of children) child.stdin.write('go');
  const [first, ...rest] = (await said).sort().reverse();
  assert.equal(first, 'won');
  assert.deepEqual([...new Set(rest)], ['NoModificationAllowedError']);
});

test('an owner whose claim was taken over writes and acknowledges nothing more', async (t) => {
  const path = temporaryDirectory('eddy-directory-');
  const first = NodeDirectory.open(path);
  const handle = await (await first.getFileHandle('log', { create: true })).createSyncAccessHandle();
  handle.write(Uint8Array.of(1, 2, 3));
  handle.flush();
  handle.write(Uint8Array.of(4));
  // As another machine does on a network file system, where process ids mean nothing.
  unlinkSync(join(path, readdirSync(path).find((name) => name.startsWith('.lock.'))));
  const second = NodeDirectory.open(path);
  t.after(() => second.close());
  for (const change of [() => handle.flush(), () => handle.write(Uint8Array.of(5)), () => handle.truncate(0)]) {
    assert.throws(change, named('NoModificationAllowedError'));
  }
  await assert.rejects(first.removeEntry('other'), named('NoModificationAllowedError'));
  await assert.rejects(first.getFileHandle('new', { create: true }), named('NoModificationAllowedError'));
  const read = new Uint8Array(3);
  assert.equal(handle.read(read, { at: 0 }), 3);
  handle.close();
  first.close();
  assert.throws(() => NodeDirectory.open(path), named('NoModificationAllowedError'), 'the one that lost cannot give up the claim of the other');
});
