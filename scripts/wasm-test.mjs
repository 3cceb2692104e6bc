// Runs the Rust tests of what only a browser has, in Chromium or in the Firefox that EDDY_FIREFOX names. Without arguments it is the whole command: it lets cargo build the tests
// and run them with this same script as the runner, which is given the program. In place of a WebDriver it speaks the DevTools
// protocol, which alone gives an origin of Chromium a quota that tests can exceed; Firefox takes a preference. The tests run in what they ask for, a dedicated
// worker; output and result are those of `cargo test`.
//
// EDDY_CHROMIUM names the browser, else it is /usr/bin/chromium.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';

import { buildSync } from 'esbuild';
import { chromium } from 'playwright-core';

import { startFirefox } from '../tests/support/firefox.mjs';
import { root } from './run.mjs';
import { findWasmBindgen } from './wasm.mjs';

/** What the origin may store: small enough to be filled in a moment, large enough for every other test. */
const QUOTA_BYTES = 64 * 1024 * 1024;
const LIMIT_SECONDS = 600;

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve, reject) => server.once('listening', resolve).once('error', reject));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Serves the test page; tells its address, or the exit code of a program that has no test for a browser. */
async function serve(args) {
  const address = `127.0.0.1:${await freePort()}`;
  const bindgen = findWasmBindgen();
  const runner = bindgen ? join(dirname(bindgen), 'wasm-bindgen-test-runner') : 'wasm-bindgen-test-runner';
  const env = { ...process.env, NO_HEADLESS: '1', WASM_BINDGEN_TEST_ADDRESS: address };
  const child = spawn(runner, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  const url = await new Promise((resolve, reject) => {
    const said = [];
    child.once('error', (error) => reject(new Error(`${runner} cannot be started: ${error.message}`)));
    child.once('exit', (code) => {
      if (code === 0 && said.length) console.log(said.join('\n'));
      resolve(code ?? 1);
    });
    lines.on('line', (line) => {
      said.push(line);
      const found = /http:\/\/[\d.]+:\d+/.exec(line);
      if (found) resolve(found[0]);
    });
  });
  return { url, stop: () => child.kill() };
}

const args = process.argv.slice(2);
if (!args[0]?.endsWith('.wasm')) {
  const tests = ['test', '--target', 'wasm32-unknown-unknown', '--no-default-features', '--features', 'wasm', '--test', 'storage_browser'];
  // The store of the package that the suite runs on too, as a script that ends with its class.
  const script = join(root, 'target', 'indexeddb.js');
  buildSync({ entryPoints: [join(root, 'pkg', 'src', 'indexeddb.ts')], outfile: script, bundle: true, format: 'iife', globalName: 'indexedDbModule', target: 'es2022' });
  const env = { ...process.env, EDDY_INDEXEDDB_SCRIPT: script, CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER: 'node scripts/wasm-test.mjs' };
  const cargo = spawn('cargo', [...tests, ...args], { cwd: root, env, stdio: 'inherit' });
  process.exit(await new Promise((resolve) => cargo.once('exit', (code) => resolve(code ?? 1)).once('error', () => resolve(1))));
}

const { url, stop } = await serve(args);
if (typeof url === 'number') process.exit(url);

/** A Chromium and its page, which is at `url`. */
async function inChromium(profile) {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.EDDY_CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const page = await context.newPage();
  const devtools = await context.newCDPSession(page);
  await page.goto(url, { waitUntil: 'commit' });
  // Only now: a navigation to another origin ends what an earlier session set.
  await devtools.send('Storage.overrideQuotaForOrigin', { origin: url, quotaSize: QUOTA_BYTES });
  return { browser: context, page };
}

/** The same in Firefox, where an origin may have a fifth of what all may, in KiB. */
async function inFirefox(profile) {
  const browser = await startFirefox(process.env.EDDY_FIREFOX, profile, { 'dom.quotaManager.temporaryStorage.fixedLimit': (5 * QUOTA_BYTES) / 1024 });
  const page = await browser.newPage();
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  return { browser, page };
}

let passed = false;
// A profile on disk: in a private one the file system of the origin is in memory.
const profile = mkdtempSync(join(tmpdir(), 'eddy-wasm-test-'));
const { browser, page } = await (process.env.EDDY_FIREFOX ? inFirefox(profile) : inChromium(profile));
try {
  page.on('pageerror', (error) => console.error(error));
  const read = () => page.evaluate(() => document.querySelector('#output')?.textContent ?? '');
  let [shown, quietSince, result] = [0, Date.now(), undefined];
  while (!result) {
    const output = await read();
    // What a failing test logged comes at once with the result, so lines are shown as they are finished.
    const end = output.lastIndexOf('\n') + 1;
    if (end > shown) {
      process.stdout.write(output.slice(shown, end));
      [shown, quietSince] = [end, Date.now()];
    }
    result = /^test result: .*$/m.exec(output);
    if (result) process.stdout.write(output.slice(shown));
    else if (Date.now() - quietSince > LIMIT_SECONDS * 1000) throw new Error(`nothing was said for ${LIMIT_SECONDS} s`);
    else await setTimeout(100);
  }
  passed = result[0].startsWith('test result: ok');
} finally {
  await browser.close();
  stop();
  rmSync(profile, { recursive: true, force: true });
}
process.exit(passed ? 0 : 1);
