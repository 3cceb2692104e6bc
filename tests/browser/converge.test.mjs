// Two people, one server. One goes offline, edits, loses the browser to a SIGKILL, comes back and goes online; meanwhile the other
// edits, and the server dies too. In the end all three have the same rows.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import test from 'node:test';

import { eddyProgram } from '../../scripts/native.mjs';
import { Profile, picture, root, until } from './harness.mjs';

/** `eddy serve` with the console and the sample; may be killed and started again on the same data and port. */
class Server {
  #binary;
  #child;
  #directory;
  #port;

  static async create() {
    const server = new Server();
    server.#binary = eddyProgram();
    server.#directory = await mkdtemp(path.join(tmpdir(), 'eddy-server-'));
    server.#port = await freePort();
    await server.start();
    return server;
  }

  get url() {
    return `http://127.0.0.1:${this.#port}/`;
  }

  async start() {
    const samples = ['symbols', 'words'].flatMap((name) => ['--sample', path.join(root, 'www', 'sample', `${name}.arrow`)]);
    this.#child = spawn(this.#binary, ['serve', '--data', this.#directory, '--listen', `127.0.0.1:${this.#port}`, '--console', path.join(root, 'www', 'dist'), ...samples], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, RUST_LOG: 'warn' },
    });
    for await (const line of createInterface({ input: this.#child.stdout })) if (line.startsWith('listening on ')) return;
    throw new Error('the server ended before it listened');
  }

  async kill() {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await gone;
  }

  /** The rows that people added, by id. */
  async own() {
    const response = await fetch(new URL('api/collections/symbols/query', this.url), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ filter: 'category == "Own"', outputFields: ['id', 'symbol', 'name'] }),
    });
    assert.equal(response.status, 200);
    return asMap((await response.json()).rows);
  }

  async count() {
    const response = await fetch(new URL('api/collections/symbols/count', this.url), { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' });
    return (await response.json()).count;
  }

  async remove() {
    await this.kill();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

const asMap = (rows) => Object.fromEntries(rows.map(({ id, symbol, name }) => [id, `${symbol} ${name}`]).sort(([a], [b]) => (a < b ? -1 : 1)));

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function open(profile, url) {
  const context = await profile.start();
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(60_000);
  await page.setViewportSize({ width: 1280, height: 860 });
  await page.goto(url);
  await page.waitForSelector('html[data-ready]', { state: 'attached', timeout: 120_000 });
  return page;
}

const state = (page, wanted) => page.waitForSelector(`#sync[data-state="${wanted}"]`);
const pending = (page, count) => page.waitForFunction((count) => document.querySelector('#sync').getAttribute('aria-label').includes(`${count} pending`), count);
const settled = async (page) => {
  await state(page, 'live');
  await page.waitForFunction(() => !document.querySelector('#sync').getAttribute('aria-label').includes('pending'));
};

async function add(page, symbol, name) {
  await page.click('#new');
  await page.fill('#edit-glyph', symbol);
  await page.fill('#edit-name', name);
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('dialog[open]', { state: 'detached' });
}

/** Looks at the user's own symbols: id to symbol and name. */
async function own(page) {
  return asMap(
    await page.$$eval('.tile', (tiles) => tiles.map((tile) => ({ id: Number(tile.dataset.id), symbol: tile.querySelector('.tile-glyph').dataset.symbol, name: tile.querySelector('.tile-name').textContent }))),
  );
}

async function showOwn(page) {
  await page.goto(`${page.url().split('#')[0]}#in=own`);
  await page.waitForSelector('.chip[aria-pressed=true]:has-text("Yours")');
}

async function choose(page, name) {
  await page.click(`.tile:has(.tile-name:text-is("${name}"))`);
}

async function rename(page, from, to) {
  await choose(page, from);
  await page.keyboard.press('e');
  await page.fill('#edit-name', to);
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('dialog[open]', { state: 'detached' });
  await page.waitForSelector(`.tile-name:text-is("${to}")`);
}

const shows = (page, names) =>
  page.waitForFunction((names) => [...document.querySelectorAll('.tile-name')].map((element) => element.textContent).sort().join('|') === [...names].sort().join('|'), names);

test('two profiles and a server converge, whoever is killed', async (t) => {
  const server = await Server.create();
  t.after(() => server.remove());
  const [ann, bob] = [await Profile.create(), await Profile.create()];
  t.after(() => Promise.all([ann.remove(), bob.remove()]));

  let annPage = await open(ann, server.url);
  const bobPage = await open(bob, server.url);
  await settled(annPage);
  await settled(bobPage);
  // All three have loaded the same sample: nothing went over the wire, and nothing doubled.
  assert.equal(await server.count(), 8116);

  await showOwn(annPage);
  await showOwn(bobPage);
  await add(annPage, '🛶', 'quiet lake');
  await showOwn(annPage);
  await shows(bobPage, ['quiet lake']);
  await picture(bobPage, 'converge-live');

  // Ann goes offline and works on.
  await annPage.click('#online');
  await state(annPage, 'offline');
  await add(annPage, '🏕', 'forest camp');
  await pending(annPage, 1);
  await showOwn(annPage);
  await shows(annPage, ['quiet lake', 'forest camp']);
  await rename(annPage, 'quiet lake', 'silver lake');
  await pending(annPage, 2);
  assert.deepEqual(Object.values(await own(bobPage)), ['🛶 quiet lake'], 'nothing leaves while she is offline');
  await picture(annPage, 'converge-offline');

  // The browser dies where it stands.
  await ann.kill();

  // Bob edits too, and the server dies in the middle and comes back.
  await add(bobPage, '🚂', 'night train');
  await settled(bobPage);
  await server.kill();
  await state(bobPage, 'offline').catch(() => state(bobPage, 'connecting'));
  await add(bobPage, '🎻', 'slow waltz');
  await pending(bobPage, 1);
  await server.start();
  await settled(bobPage);
  await until(async () => Object.keys(await server.own()).length === 3, 'the server to have what Bob wrote');

  // Ann is back, still offline, with all that she wrote; then she goes online.
  annPage = await open(ann, server.url);
  await state(annPage, 'offline');
  await pending(annPage, 2);
  await showOwn(annPage);
  await shows(annPage, ['silver lake', 'forest camp']);
  await annPage.click('#online');
  await settled(annPage);

  const everything = ['silver lake', 'forest camp', 'night train', 'slow waltz'];
  await shows(annPage, everything);
  await showOwn(bobPage);
  await shows(bobPage, everything);
  const truth = await server.own();
  assert.deepEqual(Object.values(truth).sort(), ['🎻 slow waltz', '🏕 forest camp', '🚂 night train', '🛶 silver lake'].sort());
  assert.deepEqual(await own(annPage), truth);
  assert.deepEqual(await own(bobPage), truth);

  // A delete travels as well.
  await choose(bobPage, 'night train');
  await bobPage.keyboard.press('Delete');
  await shows(annPage, everything.filter((name) => name !== 'night train'));
  await until(async () => Object.keys(await server.own()).length === 3, 'the server to have the delete');
  assert.equal(await server.count(), 8116 + 3);
  await picture(annPage, 'converge-desktop');
  await annPage.setViewportSize({ width: 390, height: 844 });
  await picture(annPage, 'converge-phone');
});
