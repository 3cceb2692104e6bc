// The scripts on machines that lack something: they say what, and how to get it. And they leave no process behind.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const least = /^rust-version = "(.*)"$/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))[1];

/** Runs the set-up, allowed to look only, on a machine whose PATH has just `programs` (name to shell script). */
function setUp(programs, env = {}) {
  const home = mkdtempSync(join(tmpdir(), 'eddy-bare-'));
  try {
    for (const [name, script] of Object.entries(programs)) {
      writeFileSync(join(home, name), `#!/bin/sh\n${script}\n`);
      chmodSync(join(home, name), 0o755);
    }
    mkdirSync(join(home, 'lib'));
    writeFileSync(join(home, 'lib', 'libstd-1.rlib'), '');
    return spawnSync(process.execPath, ['scripts/setup.mjs'], {
      cwd: root,
      encoding: 'utf8',
      env: { PATH: home, HOME: home, XDG_CACHE_HOME: join(home, 'cache'), EDDY_INSTALL: 'never', ...env },
    });
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

function refused({ status, stderr, stdout }, ...words) {
  assert.equal(status, 1, stderr);
  assert.equal(stdout, '');
  for (const word of words) assert.ok(stderr.includes(word), `${JSON.stringify(word)} is not in:\n${stderr}`);
  assert.doesNotMatch(stderr, /^\s+at /m, 'a message is no stack trace');
}

const rustc = (libraries) => `case "$1" in --version) echo "rustc ${least}.0 (0 2025-01-01)";; --print) echo "${libraries}";; esac`;
const unix = { skip: process.platform === 'win32' && 'there are no shell scripts' };

test('without Rust', unix, () => {
  refused(setUp({}), `Rust ${least} or newer is needed`, 'https://rustup.rs', 'apt-get install');
});

test('with an old Rust', unix, () => {
  refused(setUp({ cargo: '', rustc: 'echo "rustc 1.60.0 (0 2022-01-01)"', cc: '' }), `Rust ${least} or newer`, 'is 1.60.0', 'rustup update');
});

test('without a C compiler', unix, () => {
  refused(setUp({ cargo: 'echo 1', rustc: rustc('$HOME/lib') }), 'A C compiler (cc) is needed', 'apt-get install gcc');
});

test('without the standard library for WebAssembly', unix, () => {
  refused(setUp({ cargo: 'echo 1', rustc: rustc('$HOME/nowhere'), cc: '' }), 'rustup target add wasm32-unknown-unknown', 'rust-web-src');
});

test('without the right wasm-bindgen', unix, () => {
  const version = /name = "wasm-bindgen"\nversion = "(.*)"/.exec(readFileSync(join(root, 'Cargo.lock'), 'utf8'))[1];
  const other = 'echo "wasm-bindgen 0.2.1"';
  const told = setUp({ cargo: 'echo 1', rustc: rustc('$HOME/lib'), cc: '', 'wasm-bindgen': other });
  refused(told, `cargo install wasm-bindgen-cli --version ${version} --locked --root`);
});

test('with a browser that is not there', unix, () => {
  const version = /name = "wasm-bindgen"\nversion = "(.*)"/.exec(readFileSync(join(root, 'Cargo.lock'), 'utf8'))[1];
  const programs = { cargo: 'echo 1', rustc: rustc('$HOME/lib'), cc: '', 'wasm-bindgen': `echo "wasm-bindgen ${version}"` };
  refused(setUp(programs, { EDDY_CHROMIUM: '/nowhere/chromium' }), 'EDDY_CHROMIUM is /nowhere/chromium');
});

test('a phase that is not there', () => {
  const told = spawnSync(process.execPath, ['scripts/test.mjs', 'brwser'], { cwd: root, encoding: 'utf8' });
  refused(told, 'no such phase: brwser', 'browser');
});

const alive = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

async function until(condition) {
  for (const end = Date.now() + 10_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 10))) if (condition()) return;
  assert.fail(`${condition} did not come true within 10 s`);
}

/** A script that starts a program, which starts another. */
const family = `
  import { main, must } from './scripts/run.mjs';
  const grandchild = "console.log(process.pid); setInterval(() => {}, 1000)";
  await main(() => must(process.execPath, ['-e', 'require("child_process").spawn(process.execPath, ["-e", ' + JSON.stringify(grandchild) + '], { stdio: "inherit" })']));
`;

test('a signal ends a script with all that it started', { skip: process.platform === 'win32' && 'there are no signals' }, async () => {
  for (const [signal, code] of [['SIGTERM', 143], ['SIGINT', 130], ['SIGHUP', 129]]) {
    const script = spawn(process.execPath, ['--input-type=module', '-e', family], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(createInterface({ input: script.stdout }), 'line');
    assert.ok(alive(Number(line)));
    const ended = once(script, 'exit');
    script.kill(signal);
    assert.deepEqual(await ended, [code, null]);
    await until(() => !alive(Number(line)));
  }
});
