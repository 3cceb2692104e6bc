// The store: how fast small writes are acknowledged, beside a bare append and sync; how long the sample takes to fill a store with its
// index built, and to answer again after the store is opened. Natively on files, in Node on files, in Chromium on OPFS.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { launch, serveFolder } from '../browser/harness.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const sample = join(root, 'www', 'sample', 'symbols.arrow');
const OPEN_TO_FILL_MAX = 0.1;

function native(directory) {
  const built = spawnSync('cargo', ['build', '--release', '--example', 'search_native', '--example', 'store_native', '--message-format=json'], {
    cwd: root, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 2 ** 28,
  });
  if (built.status !== 0) throw new Error('cargo build --example store_native failed');
  const messages = built.stdout.trim().split('\n').map((line) => JSON.parse(line));
  const { executable } = messages.findLast(({ reason, target }) => reason === 'compiler-artifact' && target.name === 'store_native');
  const done = spawnSync(executable, [sample, directory], { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });
  if (done.status !== 0) throw new Error('the native store bench failed');
  return JSON.parse(done.stdout);
}

/** Fills a store with the sample, opens it again, and writes to it. The same text runs in Node and in a page. */
async function measure(open, options, bytes) {
  const seconds = async (work) => {
    const start = performance.now();
    await work();
    return (performance.now() - start) / 1000;
  };
  const query = { vector: new Float32Array(384).fill(0.05), limit: 10 };
  const fill_seconds = await seconds(async () => {
    const db = await open(options);
    const symbols = await db.loadDataset('symbols', bytes);
    while ((await symbols.stats()).rowsUnindexed > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    await db.close();
  });
  let db;
  const open_seconds = await seconds(async () => {
    db = await open(options);
    const { hits } = await db.collection('symbols').search(query);
    if (hits.length !== 10) throw new Error(`${hits.length} hits`);
  });
  const symbols = db.collection('symbols');
  const [template] = await symbols.get([0x2614], { outputFields: ['*'] });
  const rate = async (count, together) => count / await seconds(async () => {
    for (let at = 0; at < count; at += together) {
      await Promise.all(Array.from({ length: together }, (_, index) => symbols.upsert([{ ...template, id: 0x200000 + at + index }])));
    }
  });
  const writes_per_second = await rate(300, 1);
  const writes_together_per_second = await rate(500, 50);
  await db.close();
  return { fill_seconds, open_seconds, writes_per_second, writes_together_per_second };
}

async function node(directory) {
  const { open } = await import(pathToFileURL(join(root, 'pkg', 'dist', 'node.js')).href);
  return measure(open, { name: 'bench', storage: 'files', path: join(directory, 'node') }, new Uint8Array(readFileSync(sample)));
}

async function chromium() {
  const blank = (_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>bench</title>');
  const server = await serveFolder(root, { routes: { '/': blank } });
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(server.url);
    return await page.evaluate(async ([url, text]) => {
      const { open } = await import(`${url}pkg/dist/browser.js`);
      const bytes = new Uint8Array(await (await fetch(`${url}www/sample/symbols.arrow`)).arrayBuffer());
      const measure = new Function(`return (${text})`)();
      return measure(open, { name: 'bench', storage: 'opfs' }, bytes);
    }, [server.url, measure.toString()]);
  } finally {
    await browser.close();
    await server.close();
  }
}

export async function run({ log, directory }) {
  const rows = [
    { name: 'native, files', ...native(directory) },
    { name: 'Node, files', ...(await node(directory)) },
    { name: 'Chromium, OPFS', ...(await chromium()) },
  ];
  const bare = rows[0].bare_per_second;
  log(`Bare append and sync of ${rows[0].frame_bytes} bytes, in the same run: ${bare.toFixed(0)} a second.`);
  log('| | fill with the sample and build its index, s | open to first result, s | share | writes a second, one by one | share of bare | 50 at a time |\n|---|---|---|---|---|---|---|');
  for (const { name, fill_seconds, open_seconds, writes_per_second, writes_together_per_second } of rows) {
    log(`| ${name} | ${fill_seconds.toFixed(2)} | ${open_seconds.toFixed(3)} | ${(open_seconds / fill_seconds).toFixed(3)} | ${writes_per_second.toFixed(0)} | ${(writes_per_second / bare).toFixed(2)} | ${writes_together_per_second.toFixed(0)} |`);
  }
  const targets = rows.map(({ name, fill_seconds, open_seconds }) => {
    const value = Number((open_seconds / fill_seconds).toFixed(3));
    return { name: `open to first result against filling, ${name}`, value, limit: `at most ${OPEN_TO_FILL_MAX}`, met: value <= OPEN_TO_FILL_MAX };
  });
  return { rows, targets };
}
