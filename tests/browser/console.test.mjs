// The console on a plain static host, in a real Chromium: searching, editing, the keyboard, the layout, and no network at all.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import test, { after, before } from 'node:test';

import { launch, picture, root, serveFolder, until } from './harness.mjs';

const dist = path.join(root, 'www', 'dist');
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let browser;
let host;
let context;
/** A page with the whole sample, that the tests of searching and editing share. */
let page;
const faults = [];

before(async () => {
  browser = await launch();
  // Not at the root: the page must work wherever it is put.
  host = await serveFolder(dist, { base: '/some/where/' });
  context = await browser.newContext({ viewport: { width: 1280, height: 860 }, permissions: ['clipboard-read', 'clipboard-write'] });
  page = await opened(context);
});
after(async () => {
  await browser?.close();
  await host?.close();
});

/** Opens the console and waits until every row of the sample is there. */
async function opened(context, url = host.url) {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('console', (message) => {
    // A plain host has no /health, and one that has stopped answers nothing: the browser notes both.
    if (message.type() === 'error' && !/404|ERR_CONNECTION_REFUSED/.test(message.text())) faults.push(message.text());
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(new URL(url).origin) && !request.url().startsWith('blob:')) faults.push(`a request to ${request.url()}`);
  });
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

/** Types a query and waits for what it finds. */
async function find(page, text) {
  await page.fill('#query', text);
  await settled(page, text);
}

/** Waits until the page shows the answer to what is in the search box: every tile is of this answer. */
async function settled(page, text) {
  await page.waitForFunction((text) => document.querySelector('#results')?.dataset.answers === text, text);
}

const glyphs = (page, count = 10) => page.$$eval('.tile', (tiles, count) => tiles.slice(0, count).map((tile) => tile.querySelector('.tile-glyph').dataset.symbol), count);
const names = (page) => page.$$eval('.tile .tile-name', (elements) => elements.map((element) => element.textContent));
const focused = (page) => page.evaluate(() => document.activeElement?.id);

async function reset(page) {
  await page.keyboard.press('Escape');
  await page.fill('#query', '');
  if (await page.isVisible('#clear')) await page.click('#clear');
  await page.waitForSelector('#start:not([hidden])');
}

test('a search finds by meaning', async () => {
  assert.equal(await focused(page), 'query', 'the search box has the focus when the page opens');
  await find(page, 'rain and storm');
  const found = await glyphs(page);
  for (const wanted of '⛈☔🌧') assert.ok(found.includes(wanted), `${wanted} is among the first ten: ${found.join(' ')}`);
  await find(page, 'currency of japan');
  assert.ok((await glyphs(page)).includes('¥'));
  await find(page, 'wild animals');
  assert.ok((await glyphs(page)).includes('🐘'));
  await find(page, 'happy face');
  assert.ok((await glyphs(page)).includes('😀'));
});

test('each result has a score, a bar and what it was matched by', async () => {
  await find(page, 'rain and storm');
  const tiles = await page.$$eval('.tile', (tiles) =>
    tiles.map((tile) => ({
      name: tile.querySelector('.tile-name').textContent,
      by: tile.querySelector('.tile-by').textContent,
      score: Number(tile.querySelector('.tile-score').textContent),
    })),
  );
  assert.equal(tiles.length, 60);
  for (const { name, by, score } of tiles) {
    assert.equal(by, /\b(rain|storm)\b/.test(name) ? 'meaning + name' : 'meaning', name);
    assert.ok(score > 0 && score <= 1.1, `${name}: ${score}`);
  }
  assert.deepEqual(tiles.map(({ score }) => score), tiles.map(({ score }) => score).sort((a, b) => b - a), 'the best is first');
});

test('words that nobody knows are named and left out; with none left, names are searched', async () => {
  await find(page, 'rain xyzzyq');
  assert.match(await page.textContent('#reading'), /unknown word: xyzzyq/);
  assert.ok((await glyphs(page)).includes('🌧'));
  await find(page, 'umbrel');
  assert.match(await page.textContent('#reading'), /unknown word: umbrel.*searching names/);
  assert.ok((await names(page)).every((name) => name.includes('umbrel')));
  await find(page, 'zzqxj');
  assert.match(await page.textContent('#notice'), /Nothing found/);
  await find(page, '☔');
  assert.deepEqual(await names(page), ['umbrella with rain drops']);
  await find(page, 'U+2614');
  assert.deepEqual(await names(page), ['umbrella with rain drops']);
});

test('whatever is typed is text, in the page and in the filter', async () => {
  for (const text of ['<img src=x onerror=alert(1)>', '" or id > 0 or name like "%', "%' \\", '\u0000\uFFFF', 'a'.repeat(2000)]) {
    await find(page, text);
    assert.equal(await page.$('#reading img, #results img, #notice img'), null);
  }
  assert.doesNotMatch((await page.textContent('#notice')) ?? '', /filter|invalid/i);
});

test('chips narrow the search to categories, with their counts', async () => {
  await reset(page);
  const chips = await page.$$eval('.chip', (chips) => chips.map((chip) => chip.textContent));
  assert.deepEqual(chips.slice(0, 4), ['All8,116', 'Yours0', 'Pictures5,425', 'Mathematics925']);
  await find(page, 'arrow');
  await page.click('.chip:has-text("Currency")');
  await page.click('.chip:has-text("Dashes")');
  await page.waitForFunction(() => document.querySelectorAll('.tile').length > 0 && !document.querySelector('.tile-name').textContent.includes('arrow'));
  assert.equal(await page.$$eval('.chip[aria-pressed=true]', (chips) => chips.map((chip) => chip.firstChild.textContent).join()), 'Currency,Dashes');
  assert.match(page.url(), /#q=arrow&in=currency%2Cdashes$/);
  const codes = await page.$$eval('.tile', (tiles) => tiles.map((tile) => tile.querySelector('.tile-glyph').dataset.symbol));
  assert.ok(codes.every((glyph) => /[\p{Sc}\p{Pd}]/u.test(glyph)), codes.join(' '));
  await page.click('.chip:has-text("All")');
  await page.waitForFunction(() => document.querySelector('.tile-name').textContent.includes('arrow'));
});

test('the address holds the search, and the back button works', async () => {
  await page.goto(`${host.url}#q=fire&in=pictures`);
  await page.reload();
  await ready(page);
  await settled(page, 'fire');
  assert.ok((await glyphs(page)).includes('🔥'));
  assert.equal(await page.getAttribute('.chip:has-text("Pictures")', 'aria-pressed'), 'true');
  await page.click('.tile:nth-child(1)');
  await page.keyboard.press('m');
  await page.waitForSelector('#like:not([hidden])');
  assert.match(page.url(), /#like=\d+/);
  await page.goBack();
  await page.waitForSelector('#like', { state: 'hidden' });
});

test('everything works from the keyboard', async () => {
  await reset(page);
  await page.focus('#theme');
  await page.keyboard.press('/');
  assert.equal(await focused(page), 'query');
  await page.keyboard.type('chess');
  await settled(page, 'chess');
  const [first, second] = await glyphs(page, 2);
  await page.keyboard.press('Enter');
  await page.waitForSelector('.toast:has-text("copied")');
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), first, 'Enter in the search box copies the first');

  await page.keyboard.press('ArrowDown');
  const start = await focused(page);
  assert.match(start, /^symbol-/);
  await page.keyboard.press('ArrowRight');
  assert.notEqual(await focused(page), start);
  assert.equal(await page.$eval('[aria-selected=true] .tile-glyph', (glyph) => glyph.dataset.symbol), second);
  await page.keyboard.press('Enter');
  await until(async () => (await page.evaluate(() => navigator.clipboard.readText())) === second, 'the second to be copied');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('Home');
  assert.equal(await focused(page), start);
  await page.keyboard.press('ArrowUp');
  assert.equal(await focused(page), 'query', 'above the first row is the search box');

  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('?');
  await page.waitForSelector('dialog[open]');
  await page.keyboard.press('Escape');
  await page.waitForSelector('dialog[open]', { state: 'detached' });
  await page.keyboard.press('Escape');
  await page.waitForSelector('#start:not([hidden])');
  assert.equal(await page.inputValue('#query'), '');
});

test('m finds more like a symbol', async () => {
  await find(page, 'chess');
  await page.click('.tile:nth-child(1)');
  const id = await page.getAttribute('.tile:nth-child(1)', 'data-id');
  await page.keyboard.press('m');
  await page.waitForSelector('#like:not([hidden])');
  await page.waitForFunction((id) => document.querySelector('.tile') && !document.querySelector(`.tile[data-id="${id}"]`), id);
  assert.ok((await names(page)).slice(0, 10).filter((name) => name.includes('chess')).length >= 5, 'chess pieces are like chess pieces');
  assert.equal(await page.$$eval('.near-one', (near) => near.length), 6, 'the panel shows neighbours');
  await page.click('#like');
  await page.waitForSelector('#like', { state: 'hidden' });
});

test('a symbol of one’s own is added, found, renamed, deleted and brought back', async () => {
  await reset(page);
  await page.focus('#theme');
  await page.keyboard.press('n');
  await page.waitForSelector('dialog[open]');
  await page.fill('#edit-glyph', '🦩');
  await page.fill('#edit-name', 'zzqxj');
  await page.waitForFunction(() => document.querySelector('#edit-hint').textContent.startsWith('None of these words'));
  await page.fill('#edit-name', 'secret garden <b>party</b>');
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog[open]', { state: 'detached' });
  await page.waitForFunction(() => document.querySelector('.tile-name')?.textContent === 'secret garden <b>party</b>');
  const id = Number(await page.getAttribute('.tile', 'data-id'));
  assert.ok(id > 0x10ffff && Number.isSafeInteger(id), `${id} is no code point`);
  await page.waitForFunction(() => document.querySelector('.chip:nth-child(2)').textContent === 'Yours1');

  await page.click('.tile');
  await page.keyboard.press('e');
  await page.waitForSelector('dialog[open]');
  assert.equal(await page.inputValue('#edit-glyph'), '🦩');
  await page.fill('#edit-name', 'summer wedding');
  await page.click('dialog button[type=submit]');
  await page.waitForSelector('dialog[open]', { state: 'detached' });
  await find(page, 'summer wedding');
  assert.equal((await names(page))[0], 'summer wedding');
  assert.equal(await page.getAttribute('.tile', 'data-id'), String(id), 'renaming keeps the row');

  await page.click('.tile');
  await page.keyboard.press('Delete');
  await page.waitForFunction((id) => !document.querySelector(`.tile[data-id="${id}"]`), id);
  await page.waitForSelector('.toast button');
  await page.keyboard.press('u');
  await page.waitForFunction((id) => document.querySelector('.tile')?.dataset.id === String(id), id);

  await page.reload();
  await ready(page);
  await find(page, 'summer wedding');
  assert.equal((await names(page))[0], 'summer wedding', 'it is on disk');
  await page.click('.tile');
  await page.keyboard.press('Delete');
  await page.waitForFunction(() => document.querySelector('.chip:nth-child(2)').textContent === 'Yours0');
});

test('symbols of the standard cannot be deleted or renamed, only named anew', async () => {
  await find(page, 'fire');
  await page.click('.tile');
  await page.keyboard.press('Delete');
  await page.waitForSelector('.toast:has-text("your own")');
  assert.equal((await names(page))[0], 'fire');
  await page.keyboard.press('e');
  await page.waitForSelector('dialog[open]:has-text("Name it yourself")');
  await page.keyboard.press('Escape');
  await page.waitForSelector('dialog[open]', { state: 'detached' });
});

test('a change in one tab shows in the other', async () => {
  const other = await opened(context);
  await find(other, 'purple mountain');
  await find(page, 'purple mountain');
  await other.focus('#theme');
  await other.keyboard.press('n');
  await other.fill('#edit-glyph', '⛰');
  await other.fill('#edit-name', 'purple mountain');
  await other.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('.tile-name')?.textContent === 'purple mountain');
  await page.click('.tile');
  await page.keyboard.press('Delete');
  await other.waitForFunction(() => document.querySelector('.tile-name')?.textContent !== 'purple mountain');
  await other.close();
});

test('a plain host means this device only', async () => {
  assert.equal(await page.textContent('#sync'), 'This device only');
  await page.click('#sync');
  await page.waitForSelector('#sync-panel:popover-open:has-text("stays in this browser")');
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => !document.querySelector(':popover-open'));
  await page.waitForFunction(() => /8,116 \+ 9,198.*MB/.test(document.querySelector('#status').textContent));
});

for (const scheme of ['light', 'dark']) {
  test(`no accessibility violations in ${scheme}`, async () => {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
    const check = async (where) => {
      await page.evaluate(`${axe}; undefined`);
      const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
      const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`);
      assert.deepEqual(told, [], where);
    };
    await reset(page);
    await check('start');
    await find(page, 'rain and xyzzyq');
    await page.click('.tile:nth-child(2)');
    await check('results');
    await page.keyboard.press('m');
    await page.waitForSelector('#like:not([hidden])');
    await check('more like this');
    await page.keyboard.press('n');
    await page.waitForSelector('dialog[open]');
    await check('the form');
    await page.keyboard.press('Escape');
    await page.waitForSelector('dialog[open]', { state: 'detached' });
    await page.click('#sync');
    await page.waitForSelector('#sync-panel:popover-open');
    await check('the sync panel');
    await page.keyboard.press('Escape');
    await reset(page);
    await find(page, 'zzqxj');
    await check('nothing found');
    await page.emulateMedia({ colorScheme: null, reducedMotion: null });
  });
}

test('nothing ever shifts, from an empty disk to the last result', async () => {
  for (const viewport of [{ width: 1280, height: 860 }, { width: 390, height: 844 }]) {
    const fresh = await browser.newContext({ viewport });
    const visitor = await opened(fresh);
    await visitor.locator('#query').pressSequentially('rain and storm', { delay: 30 });
    await settled(visitor, 'rain and storm');
    await visitor.click('.tile:nth-child(3)');
    await visitor.waitForFunction(() => document.querySelectorAll('.near-one').length === 6);
    await visitor.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 600))));
    assert.deepEqual(await visitor.evaluate(() => globalThis.shifts), [], JSON.stringify(viewport));
    await fresh.close();
  }
});

test('nothing is wider than a narrow phone', async () => {
  const narrow = await browser.newContext({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  const phone = await opened(narrow);
  const fits = () => phone.evaluate(() => document.documentElement.scrollWidth <= 360 && document.body.scrollWidth <= 360);
  assert.ok(await fits(), 'start');
  await find(phone, 'rain and storm');
  assert.ok(await fits(), 'results');
  await phone.tap('.tile:nth-child(2)');
  await phone.waitForSelector('#specimen.open');
  assert.ok(await fits(), 'sheet');
  await phone.tap('.sheet-close');
  await phone.waitForSelector('#specimen:not(.open)', { state: 'attached' });
  await phone.tap('#new');
  await phone.waitForSelector('dialog[open]');
  assert.ok(await fits(), 'form');
  await narrow.close();
});

test('pictures of the page', async () => {
  for (const [name, options] of [
    ['desktop-light', { viewport: { width: 1280, height: 860 }, colorScheme: 'light' }],
    ['desktop-dark', { viewport: { width: 1280, height: 860 }, colorScheme: 'dark' }],
    ['phone-light', { viewport: { width: 390, height: 844 }, colorScheme: 'light', deviceScaleFactor: 2, isMobile: true, hasTouch: true }],
    ['phone-dark', { viewport: { width: 390, height: 844 }, colorScheme: 'dark', deviceScaleFactor: 2, isMobile: true, hasTouch: true }],
  ]) {
    const looking = await browser.newContext({ ...options, reducedMotion: 'reduce' });
    const view = await opened(looking);
    await view.waitForFunction(() => document.querySelectorAll('.example-glyphs .glyph').length >= 40);
    await view.evaluate(() => document.fonts.ready);
    await picture(view, `console-${name}-start`);
    await find(view, 'rain and storm');
    await view.evaluate(() => document.fonts.ready);
    await picture(view, `console-${name}`);
    await looking.close();
  }
});

test('after the first visit the page opens without a network, with all that was kept', async () => {
  const plain = await serveFolder(dist, { base: '/eddy/' });
  const visitor = await browser.newContext();
  const first = await opened(visitor, plain.url);
  await first.evaluate(() => navigator.serviceWorker.ready);
  // The worker has what it needs when it is active; the rest (glyph fonts) is kept when there is time.
  await first.focus('#theme');
  await first.keyboard.press('n');
  await first.fill('#edit-glyph', '🏝');
  await first.fill('#edit-name', 'quiet island');
  await first.keyboard.press('Enter');
  await first.waitForSelector('dialog[open]', { state: 'detached' });
  await first.close();
  await plain.close();
  const again = await opened(visitor, plain.url);
  await find(again, 'rain and storm');
  assert.ok((await glyphs(again)).includes('⛈'));
  await find(again, 'quiet island');
  assert.equal((await names(again))[0], 'quiet island');
  await again.reload();
  await ready(again);
  await visitor.close();
});

test('nothing went wrong unseen', () => {
  assert.deepEqual(faults, []);
});
