// What the browser tests share: a Chromium, profiles that can be killed, and a plain static host.

import { spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

/** The root of the repository. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

/** Where tests leave pictures and traces. */
export const results = path.join(root, 'test-results');

const executablePath = process.env.EDDY_CHROMIUM || '/usr/bin/chromium';

// A test browser needs no GPU, and must not talk to anybody but the test.
const flags = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A Chromium; each of its contexts is a profile in memory. */
export const launch = (options = {}) => chromium.launch({ executablePath, args: flags, ...options });

/**
 * A Chromium of its own with a profile on disk, which can be killed at any moment and started again.
 */
export class Profile {
  #directory;
  #child;
  #browser;

  static async create() {
    const profile = new Profile();
    profile.#directory = await mkdtemp(path.join(tmpdir(), 'eddy-profile-'));
    return profile;
  }

  /** Starts the browser and gives its one context. */
  async start() {
    const port = path.join(this.#directory, 'DevToolsActivePort');
    await rm(port, { force: true });
    // Detached: it leads a process group of its own, and dies whole.
    this.#child = spawn(executablePath, ['--headless', '--remote-debugging-port=0', `--user-data-dir=${this.#directory}`, ...flags, 'about:blank'], {
      detached: true,
      stdio: 'ignore',
    });
    const address = await until(async () => {
      const text = await readFile(port, 'utf8').catch(() => '');
      const [number, route] = text.split('\n');
      return number && route ? `ws://127.0.0.1:${number}${route}` : undefined;
    }, 'the browser to open its debugging port');
    this.#browser = await chromium.connectOverCDP(address);
    return this.#browser.contexts()[0];
  }

  /** The id of the group that all of its processes are in. */
  get group() {
    return this.#child?.pid;
  }

  /** Kills every process of the browser at once, as a power button would. */
  async kill() {
    const child = this.#child;
    if (!child) return;
    this.#child = undefined;
    const gone = new Promise((resolve) => (child.exitCode === null && child.signalCode === null ? child.once('exit', resolve) : resolve()));
    process.kill(-child.pid, 'SIGKILL');
    await gone;
    await this.#browser?.close().catch(() => {});
  }

  /** Kills the browser and removes the profile. */
  async remove() {
    await this.kill();
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** Asks until the answer is something, at most `ms` long. */
export async function until(ask, what, ms = 30_000) {
  const end = performance.now() + ms;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (performance.now() > end) throw new Error(`waited ${ms} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.css': 'text/css',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
  '.woff2': 'font/woff2',
  '.webmanifest': 'application/manifest+json',
};

/**
 * A plain static host for `folder` under `base`, with no header that a plain host would not send. `routes` maps a path to a function
 * of request and response.
 */
export async function serveFolder(folder, { base = '/', routes = {}, port = 0 } = {}) {
  const sockets = new Set();
  const server = http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://host');
    if (routes[pathname]) return routes[pathname](request, response);
    const relative = pathname.startsWith(base) ? decodeURIComponent(pathname.slice(base.length)) : undefined;
    const file = relative === undefined ? undefined : path.join(folder, relative === '' || relative.endsWith('/') ? `${relative}index.html` : relative);
    const found = file?.startsWith(path.resolve(folder)) && (await stat(file).catch(() => undefined));
    if (!found || !found.isFile()) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('not found');
      return;
    }
    response.writeHead(200, { 'content-type': types[path.extname(file)] ?? 'application/octet-stream', 'content-length': found.size });
    createReadStream(file).pipe(response);
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  const bound = server.address().port;
  return {
    port: bound,
    url: `http://127.0.0.1:${bound}${base}`,
    /** Stops at once: no new connection, and no old one. */
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A picture of the page in `test-results/`. */
export async function picture(page, name, options = {}) {
  await mkdir(results, { recursive: true });
  const file = path.join(results, `${name}.png`);
  await page.screenshot({ path: file, ...options });
  return file;
}
