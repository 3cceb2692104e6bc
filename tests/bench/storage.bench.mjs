// Storage: how long the sample takes to fill a store with its index built, and to answer again after the store is opened, natively on
// files, in Node on files, in Chromium on OPFS; and natively durable writes beside bare ones, a large store, bytes on disk, merging, memory.

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

/** Fills a store with the sample and opens it again. The same text runs in Node and in a page. */
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
  await db.close();
  return { fill_seconds, open_seconds };
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
  const told = native(directory);
  const { writes, large, compaction, codecs } = told;
  const stores = [
    { name: 'native, files', ...told.sample },
    { name: 'Node, files', ...(await node(directory)) },
    { name: 'Chromium, OPFS', ...(await chromium()) },
  ];
  log('The sample, filled into a store with its index built, and opened again:\n');
  log('| | fill, s | open to first result, s | share |\n|---|---|---|---|');
  for (const { name, fill_seconds, open_seconds } of stores) {
    log(`| ${name} | ${fill_seconds.toFixed(2)} | ${open_seconds.toFixed(3)} | ${(open_seconds / fill_seconds).toFixed(3)} |`);
  }
  const round = (value) => Math.round(value).toLocaleString('en-US');
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
  const ofBare = {
    batches: writes.batch_rows_per_second / writes.bare_batch_rows_per_second,
    together: writes.writes_together_per_second / writes.bare_per_second,
  };
  log('\nNative durable writes of rows of 384 floats, beside bare appends and syncs of as many bytes:\n');
  log('| | rows/s | bare | share |\n|---|---|---|---|');
  log(`| batches of 1,000 | ${round(writes.batch_rows_per_second)} | ${round(writes.bare_batch_rows_per_second)} | ${ofBare.batches.toFixed(2)} |`);
  log(`| one by one | ${round(writes.writes_per_second)} | ${round(writes.bare_per_second)} | ${(writes.writes_per_second / writes.bare_per_second).toFixed(2)} |`);
  log(`| one by one, 64 writers | ${round(writes.writes_together_per_second)} | ${round(writes.bare_per_second)} | ${ofBare.together.toFixed(1)} |`);
  log(`\n${round(large.rows)} rows with their graph, native: open to first result ${large.open_seconds.toFixed(2)} s (${large.cold ? 'cold' : 'from the page cache'}); ` +
    `in memory ${megabytes(large.memory_bytes)}; with a limit of ${megabytes(large.limit_bytes)}: at most ${megabytes(large.limited_memory_bytes)}, a search ${large.limited_search_ms.toFixed(2)} ms`);
  log(`Bytes of the sample on disk, a row: ${Object.entries(codecs).map(([codec, bytes]) => `${codec} ${bytes.toFixed(0)}`).join(', ')}`);
  log(`${compaction.segments} segments of ${compaction.rows / compaction.segments} rows merged in ${compaction.seconds.toFixed(1)} s: ${megabytes(compaction.flushed_bytes)} logged, flushed and indexed, ` +
    `${megabytes(compaction.merged_bytes)} more by merging (amplification ${compaction.write_amplification.toFixed(2)}); search p99 ${compaction.p99_without_ms.toFixed(2)} ms before, ` +
    `${compaction.p99_with_ms.toFixed(2)} ms during it (at most ${compaction.max_with_ms.toFixed(1)}, of ${compaction.searches}), ${compaction.p99_after_ms.toFixed(2)} ms after`);

  const target = (name, value, limit, met) => ({ name, value: Number(value.toFixed(3)), limit, met });
  const targets = stores.map(({ name, fill_seconds, open_seconds }) => {
    const value = open_seconds / fill_seconds;
    return target(`open to first result against filling, ${name}`, value, `at most ${OPEN_TO_FILL_MAX}`, value <= OPEN_TO_FILL_MAX);
  });
  targets.push(
    target('durable batches of 1,000 rows, of bare', ofBare.batches, 'at least 0.5', ofBare.batches >= 0.5),
    target('single rows by 64 writers, of the bare rate', ofBare.together, 'at least 20', ofBare.together >= 20),
    target('open 63,166 rows to first result, native, s', large.open_seconds, 'at most 0.3', large.open_seconds <= 0.3),
    target('search p99 during merging, of that without', compaction.p99_with_ms / compaction.p99_without_ms, 'at most 2', compaction.p99_with_ms <= 2 * compaction.p99_without_ms),
    target('memory held, of the limit', large.limited_memory_bytes / large.limit_bytes, 'at most 1', large.limited_memory_bytes <= large.limit_bytes),
  );
  return { rows: [...stores, { name: 'native', writes, large, compaction, codecs }], targets };
}
