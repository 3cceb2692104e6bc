// The console's live view in a real Chromium: edits in one window move the views of two, windows close with what was done in them, and
// it goes on over reloads, the end of the window that feeds it, and the loss of the network.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import test, { after, before } from 'node:test';

import { launch, picture, root, serveFolder } from './harness.mjs';

const dist = path.join(root, 'www', 'dist');
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let browser;
let host;
const faults = [];

before(async () => {
  browser = await launch();
  host = await serveFolder(dist, { base: '/some/where/' });
});
after(async () => {
  await browser?.close();
  await host?.close();
});

/** Opens the console; `requests` has the files that it asked for. */
async function opened(context, url = host.url) {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.requests = [];
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error' && !/404|ERR_CONNECTION_REFUSED/.test(message.text())) faults.push(message.text());
  });
  page.on('request', (request) => page.requests.push(request.url()));
  // A worker's requests are the context's, not the page's.
  page.on('worker', (worker) => page.requests.push(worker.url()));
  await page.addInitScript(() => {
    globalThis.shifts = [];
    new PerformanceObserver((list) => {
      for (const { value, hadRecentInput, sources } of list.getEntries()) {
        if (!hadRecentInput) globalThis.shifts.push(`${value}: ${sources.map(({ node }) => node?.id || node?.className || node?.nodeName).join(', ')}`);
      }
    }).observe({ type: 'layout-shift', buffered: true });
  });
  await page.goto(url);
  await ready(page);
  return page;
}

const ready = (page) => page.waitForSelector('html[data-ready]', { state: 'attached', timeout: 120_000 });
const isLive = (page) => page.waitForSelector('#live[data-state=live]', { timeout: 120_000 });

async function openLive(page) {
  await page.focus('#theme');
  await page.keyboard.press('l');
  await isLive(page);
  await page.waitForFunction(() => document.querySelectorAll('.live-hit').length === 8);
}

/** Adds a symbol of one's own by the form, as a person does. */
async function add(page, symbol, name) {
  await page.focus('#theme');
  await page.keyboard.press('n');
  await page.waitForSelector('dialog[open]');
  await page.fill('#edit-glyph', symbol);
  await page.fill('#edit-name', name);
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog[open]', { state: 'detached' });
}

/** How many edits the windows that are shown have. */
const counted = (page) => page.$$eval('.live-window', (windows) => windows.reduce((sum, window) => sum + Number(window.dataset.edits), 0));
/** Waits until the windows that closed have so many edits in all; no more may come. */
async function counts(page, edits) {
  const sum = (edits) => [...document.querySelectorAll('.live-window')].reduce((sum, window) => sum + Number(window.dataset.edits), 0) >= edits;
  await page.waitForFunction(sum, edits);
  assert.equal(await counted(page), edits);
}
const first = (page, name) => page.waitForFunction((name) => document.querySelector('[data-live=answer]').firstElementChild?.dataset.name === name, name);
const tells = (page, op, name) =>
  page.waitForFunction(([op, name]) => [...document.querySelectorAll(`.live-edit[data-op=${op}]`)].some((edit) => edit.querySelector('.live-name').textContent === name), [op, name]);
const told = (page) => page.$$eval('.live-edit', (edits) => edits.map((edit) => `${edit.dataset.op} ${edit.querySelector('.live-name').textContent}`));

test('edits in one window move the views of two, and windows close with their numbers', async () => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
  const requests = [];
  context.on('request', (request) => requests.push(request.url()));
  const [a, b] = [await opened(context), await opened(context)];
  // The engine with streams is not part of the first visit.
  assert.ok(![...a.requests, ...b.requests, ...requests].some((url) => url.includes('eddydb_full')));
  for (const page of [a, b]) {
    await openLive(page);
    assert.match(page.url(), /#view=live$/);
    assert.equal(await page.getAttribute('#live-toggle', 'aria-pressed'), 'true');
    assert.equal(await page.isVisible('.work'), false);
  }
  await b.fill('#query', 'purple mountain');
  await b.waitForFunction(() => document.querySelector('[data-live=answer]').dataset.question === 'purple mountain');
  const watermark = () => a.textContent('[data-live=watermark]');
  const before = await watermark();

  await add(a, '⛰', 'purple mountain');
  for (const page of [a, b]) await tells(page, 'insert', 'purple mountain');
  await first(b, 'purple mountain');
  assert.match(await b.textContent('[data-live=differences]'), /1 entered, 1 left/);
  for (const page of [a, b]) await counts(page, 1);
  assert.notEqual(await watermark(), before);

  // In the other one, and taken away again: a search of the first window finds it, and deletes it.
  await add(b, '🌂', 'rain and storm');
  await first(a, 'rain and storm');
  for (const page of [a, b]) await counts(page, 2);
  await a.keyboard.press('Escape');
  await a.waitForSelector('#live', { state: 'hidden' });
  await a.fill('#query', 'purple mountain');
  await a.waitForFunction(() => document.querySelector('.tile-name')?.textContent === 'purple mountain');
  await a.click('.tile');
  await a.keyboard.press('Delete');
  await tells(b, 'delete', 'purple mountain');
  await b.waitForFunction(() => document.querySelector('[data-live=answer]').firstElementChild?.dataset.name !== 'purple mountain');
  await counts(b, 3);
  assert.equal(await b.evaluate(() => document.querySelectorAll('.live-hit').length), 8);

  // The window that fed the stream is closed: the other goes on, and no edit is lost or counted twice.
  await a.close();
  await add(b, '🍵', 'quiet evening');
  await tells(b, 'insert', 'quiet evening');
  await counts(b, 4);

  // A reload finds all of it again, from its disk.
  await b.reload();
  await ready(b);
  await isLive(b);
  await counts(b, 4);
  await b.waitForFunction(() => document.querySelector('[data-live=answer]').dataset.question === 'purple mountain');
  await add(b, '🍂', 'late autumn');
  await tells(b, 'insert', 'late autumn');
  await counts(b, 5);
  assert.deepEqual((await told(b)).filter((edit) => edit === 'insert late autumn'), ['insert late autumn']);
  await context.close();
});

test('what is stirred comes and goes, and nothing of it stays', async () => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
  const page = await opened(context);
  await openLive(page);
  await page.keyboard.press('s');
  await page.waitForFunction(() => Number(document.querySelector('[data-live=rate]').textContent) > 0);
  await page.waitForFunction(() => !document.querySelector('.live-head .primary').disabled);
  // Twelve come, and twelve go.
  await counts(page, 24);
  await page.waitForFunction(() => document.querySelector('.chip:nth-child(2)').textContent === 'Yours0');

  // A window that is closed in mid-stir leaves some, which the next one that looks takes away.
  await page.keyboard.press('s');
  await page.waitForFunction(() => document.querySelector('.chip:nth-child(2)').textContent !== 'Yours0');
  await page.close();
  const again = await opened(context, `${host.url}#view=live`);
  await isLive(again);
  await again.waitForFunction(() => document.querySelector('.chip:nth-child(2)').textContent === 'Yours0');
  await context.close();
});

test('the live view opens without a network once it was looked at', async () => {
  const plain = await serveFolder(dist, { base: '/eddy/' });
  const context = await browser.newContext();
  const page = await opened(context, plain.url);
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.reload();
  await ready(page);
  await openLive(page);
  await page.evaluate(async () => {
    const kept = async () => (await Promise.all((await caches.keys()).map(async (name) => (await (await caches.open(name)).keys()).map(({ url }) => url)))).flat();
    while (!(await kept()).some((url) => url.includes('eddydb_full'))) await new Promise((resolve) => setTimeout(resolve, 50));
  });
  await plain.close();
  await page.reload();
  await ready(page);
  await isLive(page);
  await add(page, '🏝', 'quiet island');
  await tells(page, 'insert', 'quiet island');
  await counts(page, 1);
  await context.close();
});

test('a browser that cannot load the engine with streams is told why, and can try again', async () => {
  const context = await browser.newContext({ serviceWorkers: 'block' });
  await context.route('**/eddydb_full*', (route) => route.abort());
  const page = await opened(context);
  await page.click('#live-toggle');
  await page.waitForSelector('#live[data-state=failed] .notice:has-text("Try again")');
  faults.splice(0, faults.length, ...faults.filter((fault) => !/ERR_FAILED/.test(fault)));
  await context.unroute('**/eddydb_full*');
  await page.click('#live .notice button');
  await isLive(page);
  await page.waitForFunction(() => document.querySelectorAll('.live-hit').length === 8);
  await page.click('#live-toggle');
  await page.waitForSelector('#live', { state: 'hidden' });
  assert.equal(await page.isVisible('#start'), true);
  await context.close();
});

for (const [name, options] of [
  ['desktop-light', { viewport: { width: 1280, height: 860 }, colorScheme: 'light' }],
  ['desktop-dark', { viewport: { width: 1280, height: 860 }, colorScheme: 'dark' }],
  ['phone-light', { viewport: { width: 360, height: 740 }, colorScheme: 'light', deviceScaleFactor: 2, isMobile: true, hasTouch: true }],
  ['phone-dark', { viewport: { width: 360, height: 740 }, colorScheme: 'dark', deviceScaleFactor: 2, isMobile: true, hasTouch: true }],
]) {
  test(`it fits, shifts nothing and has no accessibility violations: ${name}`, async () => {
    const context = await browser.newContext({ ...options, reducedMotion: 'reduce' });
    const page = await opened(context);
    await openLive(page);
    await page.keyboard.press('s');
    await page.waitForSelector('.live-window');
    await page.waitForFunction(() => document.querySelectorAll('.live-edit').length >= 12);
    await page.evaluate(() => document.fonts.ready);
    await picture(page, `console-live-${name}`);
    await page.evaluate(`${axe}; undefined`);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`), []);
    assert.deepEqual(await page.evaluate(() => globalThis.shifts), []);
    const { width } = options.viewport;
    assert.ok(await page.evaluate((width) => document.documentElement.scrollWidth <= width, width), 'nothing is wider than the screen');
    const moving = await page.evaluate(() => document.getAnimations().filter(({ playState }) => playState === 'running').length);
    assert.equal(moving, 0, 'nothing moves for whoever wants that');
    await context.close();
  });
}

test('nothing went wrong unseen', () => {
  assert.deepEqual(faults, []);
});
