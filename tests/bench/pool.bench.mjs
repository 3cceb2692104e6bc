// Workers beside the engine, in Node and in Chromium: queries a second of a batch, and how long one query waits, over eight segments without
// workers, with one and with three. Seeded rows; each figure is the best of three rounds.

import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { Profile, serveFolder } from '../browser/harness.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const WORKERS = [0, 1, 3];
const BATCH_GAIN_MIN = 2;

/** The same text runs in Node and in a page. */
async function measure(open, workers) {
  const [segments, rows, dim] = [8, 17_000, 128];
  let state = 7;
  const next = () => ((state = (Math.imul(state ^ (state >>> 15), 2246822519) + 0x9e3779b9) >>> 0) >>> 8) / 2 ** 24 - 0.5;
  const centers = Array.from({ length: 200 }, () => Float32Array.from({ length: dim }, next));
  const vector = () => centers[Math.floor((next() + 0.5) * 200)].map((number) => number + 0.4 * next());
  const db = await open({ name: 'bench', storage: 'memory', workers });
  const notes = await db.createCollection('notes', {
    fields: { id: { type: 'int64', primaryKey: true }, v: { type: 'float_vector', dim, metric: 'L2', index: { type: 'HNSW', m: 16, efConstruction: 100 } } },
  });
  // Segments of more rows than are merged.
  for (let segment = 0; segment < segments; segment += 1) {
    for (let start = 0; start < rows; start += 1000) {
      await notes.insert(Array.from({ length: 1000 }, (_, at) => ({ id: segment * rows + start + at, v: vector() })));
    }
    await notes.flush();
  }
  for (let before = ''; ; ) {
    const stats = await db.stats();
    const now = JSON.stringify([stats.collections[0].rowsUnindexed, stats.pool?.segments, stats.pool?.bytes]);
    if (stats.collections[0].rowsUnindexed === 0 && (workers === 0 || stats.pool.segments > 0) && now === before) break;
    before = now;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  const queries = Array.from({ length: 1000 }, vector);
  let [rate, p50] = [0, Infinity];
  for (let round = 0; round < 3; round += 1) {
    let start = performance.now();
    await notes.search({ vectors: queries, limit: 10, outputFields: ['id'] });
    rate = Math.max(rate, queries.length / ((performance.now() - start) / 1000));
    const times = [];
    for (const query of queries.slice(0, 300)) {
      start = performance.now();
      await notes.search({ vector: query, limit: 10, outputFields: ['id'] });
      times.push(performance.now() - start);
    }
    p50 = Math.min(p50, times.sort((a, b) => a - b)[150]);
  }
  const { pool } = await db.stats();
  const memory = await db.memory();
  await db.close();
  return { rate, p50, pool_bytes: memory.pool, failures: pool?.failures ?? 0 };
}

async function chromium(workers) {
  const blank = (_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>bench</title>');
  const server = await serveFolder(root, { routes: { '/': blank } });
  const profile = await Profile.create();
  try {
    const page = await (await profile.start()).newPage();
    await page.goto(server.url);
    return await page.evaluate(async ([url, text, workers]) => {
      const { open } = await import(`${url}pkg/dist/browser.js`);
      return new Function(`return (${text})`)()(open, workers);
    }, [server.url, measure.toString(), workers]);
  } finally {
    await profile.remove();
    await server.close();
  }
}

export async function run({ log }) {
  const { open } = await import(pathToFileURL(join(root, 'pkg', 'dist', 'node.js')).href);
  const rows = [];
  for (const workers of WORKERS) rows.push({ name: `Node, ${workers} workers`, host: 'Node', workers, ...(await measure(open, workers)) });
  for (const workers of WORKERS) rows.push({ name: `Chromium, ${workers} workers`, host: 'Chromium', workers, ...(await chromium(workers)) });
  log('| 136,000 x 128 in 8 segments | queries/s, batch of 1,000 | p50 of one query, ms | bytes of copies |\n|---|---|---|---|');
  for (const { name, rate, p50, pool_bytes } of rows) log(`| ${name} | ${Math.round(rate)} | ${p50.toFixed(2)} | ${pool_bytes} |`);
  const targets = ['Node', 'Chromium'].map((host) => {
    const [none, , three] = rows.filter((row) => row.host === host);
    const value = Number((three.rate / none.rate).toFixed(2));
    return { name: `${host}, queries/s of a batch with 3 workers beside none`, value, limit: `at least ${BATCH_GAIN_MIN}`, met: value >= BATCH_GAIN_MIN };
  });
  return { rows, targets };
}
