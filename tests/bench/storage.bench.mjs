// Storage: how long the sample takes to fill a store with its index built, and to answer again after the store is opened, natively on
// files, in Node on files, in Chromium on OPFS; durable writes beside bare ones and a large store, natively and in Chromium; and natively
// bytes on disk, merging, memory.

import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { Profile, serveFolder } from '../browser/harness.mjs';
import { nativeProgram } from './search.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const sample = join(root, 'www', 'sample', 'symbols.arrow');
const OPEN_TO_FILL_MAX = 0.1;
/** As many rows as the largest of the real sets has, and rows a batch. */
const ROWS = 63_166;
const BATCH = 1000;

/** What the native side tells of `directory`, which is empty; of one part of it when `part` names that, which may be of other rows. */
export function native(directory, part = [], input = sample) {
  const executable = nativeProgram('store_native');
  const done = spawnSync(executable, [input, directory, ...part], { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 2 ** 28 });
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

/**
 * Durable batches on OPFS beside bare appends and flushes of as many bytes, each half of them before and half after. Runs in a page; the
 * rows lie around a thousand centres, for an index over pure noise would be no index.
 */
async function fillLarge(open, rows, batch) {
  const dim = 384;
  let seed = 1;
  const random = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 31 - 1;
  };
  const centres = Array.from({ length: 1000 }, () => Float32Array.from({ length: dim }, random));
  const vector = () => {
    const centre = centres[Math.floor(((random() + 1) / 2) * centres.length)];
    const made = centre.map((x) => x + 0.5 * random());
    const length = Math.hypot(...made);
    return made.map((x) => x / length);
  };
  const bare = async (bytes, times) => {
    const text = `onmessage = async ({ data: { bytes, times } }) => {
      const root = await navigator.storage.getDirectory();
      const handle = await (await root.getFileHandle('bare', { create: true })).createSyncAccessHandle();
      const part = new Uint8Array(bytes).fill(7);
      const start = performance.now();
      for (let n = 0; n < times; n += 1) { handle.write(part, { at: n * bytes }); handle.flush(); }
      const seconds = (performance.now() - start) / 1000;
      handle.close();
      await root.removeEntry('bare');
      postMessage(times / seconds);
    };`;
    const worker = new Worker(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })));
    const rate = await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = reject;
      worker.postMessage({ bytes, times });
    });
    worker.terminate();
    return rate;
  };
  const db = await open({ name: 'large', storage: 'opfs' });
  const spec = (index) => ({ fields: { id: { type: 'int64', primaryKey: true }, embedding: { type: 'float_vector', dim, metric: 'IP', index } } });
  const flat = await db.createCollection('writes', spec({ type: 'FLAT' }));
  const batches = (count) => Array.from({ length: count }, (_, n) => Array.from({ length: batch }, (_, at) => ({ id: n * batch + at, embedding: vector() })));
  await flat.upsert(batches(1)[0]);
  const parts = batches(30);
  const bytes = batch * dim * 4;
  const before = await bare(bytes, 15);
  const start = performance.now();
  for (const part of parts) await flat.upsert(part);
  const batchesPerSecond = (parts.length * 1000) / (performance.now() - start);
  const after = await bare(bytes, 15);
  const large = await db.createCollection('rows', spec({ type: 'HNSW', m: 16, efConstruction: 100 }));
  for (let from = 0; from < rows; from += batch) {
    const count = Math.min(batch, rows - from);
    await large.upsert(Array.from({ length: count }, (_, at) => ({ id: from + at, embedding: vector() })));
  }
  while ((await large.stats()).rowsUnindexed > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  await db.flush();
  await db.close();
  return { batch_rows_per_second: batchesPerSecond * batch, bare_batch_rows_per_second: ((before + after) / 2) * batch };
}

/** Opens the large store in a page that has not had it open. */
async function openLarge(open) {
  const start = performance.now();
  const db = await open({ name: 'large', storage: 'opfs' });
  const { hits } = await db.collection('rows').search({ vector: new Float32Array(384).fill(0.05), limit: 10 });
  const seconds = (performance.now() - start) / 1000;
  if (hits.length !== 10) throw new Error(`${hits.length} hits`);
  await db.close();
  return seconds;
}

/** Whether the system forgot what it holds of files: for that one has to be root. */
function dropCaches() {
  try {
    spawnSync('sync');
    writeFileSync('/proc/sys/vm/drop_caches', '3');
    return true;
  } catch {
    return false;
  }
}

async function chromium() {
  const blank = (_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>bench</title>');
  const server = await serveFolder(root, { routes: { '/': blank } });
  // A profile on disk: that of a private window is in memory.
  const profile = await Profile.create();
  try {
    const context = await profile.start();
    let page = await context.newPage();
    await page.goto(server.url);
    const filled = await page.evaluate(async ([url, text]) => {
      const { open } = await import(`${url}pkg/dist/browser.js`);
      const bytes = new Uint8Array(await (await fetch(`${url}www/sample/symbols.arrow`)).arrayBuffer());
      const measure = new Function(`return (${text})`)();
      return measure(open, { name: 'bench', storage: 'opfs' }, bytes);
    }, [server.url, measure.toString()]);
    const inPage = (work, ...rest) => page.evaluate(async ([url, text, rest]) => {
      const { open } = await import(`${url}pkg/dist/browser.js`);
      return new Function(`return (${text})`)()(open, ...rest);
    }, [server.url, work.toString(), rest]);
    const writes = await inPage(fillLarge, ROWS, BATCH);
    await page.close();
    const cold = dropCaches();
    page = await context.newPage();
    await page.goto(server.url);
    return { ...filled, writes, large: { rows: ROWS, cold, open_seconds: await inPage(openLarge) } };
  } finally {
    await profile.remove();
    await server.close();
  }
}

export async function run({ log, directory }) {
  const told = native(directory);
  const { writes, large, compaction, codecs } = told;
  const { writes: pageWrites, large: pageLarge, ...page } = await chromium();
  const stores = [
    { name: 'native, files', ...told.sample },
    { name: 'Node, files', ...(await node(directory)) },
    { name: 'Chromium, OPFS', ...page },
  ];
  log('The sample, filled into a store with its index built, and opened again:\n');
  log('| | fill, s | open to first result, s | share |\n|---|---|---|---|');
  for (const { name, fill_seconds, open_seconds } of stores) {
    log(`| ${name} | ${fill_seconds.toFixed(2)} | ${open_seconds.toFixed(3)} | ${(open_seconds / fill_seconds).toFixed(3)} |`);
  }
  const round = (value) => Math.round(value).toLocaleString('en-US');
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
  const ofBare = {
    pageBatches: pageWrites.batch_rows_per_second / pageWrites.bare_batch_rows_per_second,
    batches: writes.batch_rows_per_second / writes.bare_batch_rows_per_second,
    together: writes.writes_together_per_second / writes.bare_beside_together_per_second,
  };
  log('\nDurable writes of rows of 384 floats, natively on files but for the last line, beside bare appends and syncs of as many bytes:\n');
  log('| | rows/s | bare | share |\n|---|---|---|---|');
  log(`| batches of 1,000 | ${round(writes.batch_rows_per_second)} | ${round(writes.bare_batch_rows_per_second)} | ${ofBare.batches.toFixed(2)} |`);
  log(`| one by one | ${round(writes.writes_per_second)} | ${round(writes.bare_per_second)} | ${(writes.writes_per_second / writes.bare_per_second).toFixed(2)} |`);
  log(`| one by one, 64 writers | ${round(writes.writes_together_per_second)} | ${round(writes.bare_beside_together_per_second)} | ${ofBare.together.toFixed(1)} |`);
  log(`| batches of 1,000, Chromium on OPFS | ${round(pageWrites.batch_rows_per_second)} | ${round(pageWrites.bare_batch_rows_per_second)} | ${ofBare.pageBatches.toFixed(2)} |`);
  const cold = (large) => (large.cold ? 'cold' : 'from the page cache');
  log(`\n${round(large.rows)} rows with their graph, native: open to first result ${large.open_seconds.toFixed(2)} s (${cold(large)}), in Chromium ${pageLarge.open_seconds.toFixed(2)} s (${cold(pageLarge)}); ` +
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
    target('durable batches of 1,000 rows on OPFS, of bare', ofBare.pageBatches, 'at least 0.5', ofBare.pageBatches >= 0.5),
    target('single rows by 64 writers, of the bare rate', ofBare.together, 'at least 20', ofBare.together >= 20),
    target('open 63,166 rows to first result, native, s', large.open_seconds, 'at most 0.3', large.open_seconds <= 0.3),
    target('open 63,166 rows to first result, Chromium, s', pageLarge.open_seconds, 'at most 1', pageLarge.open_seconds <= 1),
    target('search p99 during merging, of that without', compaction.p99_with_ms / compaction.p99_without_ms, 'at most 2', compaction.p99_with_ms <= 2 * compaction.p99_without_ms),
    target('memory held, of the limit', large.limited_memory_bytes / large.limit_bytes, 'at most 1', large.limited_memory_bytes <= large.limit_bytes),
  );
  return { rows: [...stores, { name: 'native', writes, large, compaction, codecs }, { name: 'page', writes: pageWrites, large: pageLarge }], targets };
}
