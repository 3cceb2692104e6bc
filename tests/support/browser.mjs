// A static file server and a browser for tests: Chromium, or the Firefox that EDDY_FIREFOX names.

import { spawn } from 'node:child_process';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

import { temporaryDirectory } from './files.mjs';
import { launchFirefox } from './firefox.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const executablePath = process.env.EDDY_CHROMIUM || '/usr/bin/chromium';

/** The Firefox that the tests run in, if they do. */
export const firefox = process.env.EDDY_FIREFOX;

const flags = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

const types = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm', '.json': 'application/json' };

const page = `<!doctype html><meta charset="utf-8"><title>eddydb</title><link rel="icon" href="data:,">
<script type="importmap">{ "imports": { "eddydb": "/pkg/dist/browser.js", "eddydb/plan": "/pkg/dist/plan.js" } }</script>
<script type="module">
  import * as eddydb from 'eddydb';
  import * as vectors from '/tests/support/vectors.mjs';
  Object.assign(window, { eddydb, vectors });
</script>`;

/**
 * Serves the repository's files as a plain static host does: no special headers. `/` is a page that has the package as `eddydb` and the test
 * rows as `vectors`. `change(path, text)` may answer another text for a script.
 */
export async function serveFiles(t, { directory = root, index = page, change, wasmType = 'application/wasm' } = {}) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    if (pathname === '/') {
      response.writeHead(200, { 'content-type': 'text/html' }).end(index);
      return;
    }
    const file = normalize(join(directory, pathname));
    if (!file.startsWith(directory) || !existsSync(file) || !statSync(file).isFile()) {
      response.writeHead(404).end();
      return;
    }
    const type = extname(file) === '.wasm' ? wasmType : types[extname(file)];
    const changed = change?.(pathname, file);
    response.writeHead(200, type ? { 'content-type': type } : {});
    if (changed === undefined) createReadStream(file).pipe(response);
    else response.end(changed);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://localhost:${server.address().port}/`;
}

/** A browser on a profile of its own, in a process group that can be killed whole. */
export async function launch(t, profile = temporaryDirectory('eddy-browser-')) {
  if (firefox) return launchFirefox(t, firefox, profile);
  const child = spawn(executablePath, [...flags, '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const kill = () => {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It is gone already.
    }
  };
  process.once('exit', kill);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const address = await new Promise((resolve, reject) => {
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
      const found = /DevTools listening on (ws:\S+)/.exec(text);
      if (found) resolve(found[1]);
    });
    child.once('exit', () => reject(new Error(`Chromium ended at once:\n${text}`)));
  });
  child.stderr.on('data', () => {});
  const browser = await chromium.connectOverCDP(address);
  const [context] = browser.contexts();
  const stop = async () => {
    kill();
    await ended;
    await browser.close().catch(() => {});
    process.off('exit', kill);
  };
  t.after(stop);
  return { browser, context, kill: stop, profile };
}

/** A new page at `url`, whose errors and console messages fail the test unless `quiet` is false. */
export async function openPage(t, context, url, { noise = [] } = {}) {
  const opened = await context.newPage();
  opened.on('console', (message) => noise.push(`${message.type()}: ${message.text()}`));
  opened.on('pageerror', (error) => noise.push(`error: ${error.message}`));
  await opened.goto(url);
  await opened.waitForFunction(() => 'eddydb' in window);
  return Object.assign(opened, { noise });
}
