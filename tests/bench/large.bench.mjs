// A million rows in a tab: built natively, downloaded with their indexes as one archive, opened, and searched, under a limit of memory.
// `EDDY_BENCH_ROWS` asks for fewer or more.

import { createReadStream, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Profile, serveFolder } from '../browser/harness.mjs';
import { native } from './storage.bench.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const ROWS = Number(process.env.EDDY_BENCH_ROWS ?? 1_000_000);
const LIMIT_BYTES = 330 * ROWS;
const MEMORY_MAX = 900e6;
const RECALL_MIN = 0.95;

/** What the processes of a group hold: of memory that several share each has its part. */
function groupBytes(group) {
  let [all, renderers] = [0, 0];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      if (Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2]) !== group) continue;
      const bytes = Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))[1]) * 1024;
      all += bytes;
      if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('--type=renderer')) renderers += bytes;
    } catch {
      // It has ended meanwhile.
    }
  }
  return { all, renderers };
}

async function download([url, limit]) {
  const { open } = await import(`${url}pkg/dist/browser.js`);
  const start = performance.now();
  const db = await open({ name: 'large', storage: 'opfs', memoryLimitBytes: limit });
  await db.importFrom((await fetch(`${url}rows.eddy`)).body);
  const { hits } = await db.collection('rows').search({ vector: new Float32Array(384).fill(0.05), limit: 10 });
  const seconds = (performance.now() - start) / 1000;
  if (hits.length !== 10) throw new Error(`${hits.length} hits`);
  await db.close();
  return seconds;
}

async function search([url, limit, queries, truth]) {
  const { open } = await import(`${url}pkg/dist/browser.js`);
  const start = performance.now();
  const db = await open({ name: 'large', storage: 'opfs', memoryLimitBytes: limit });
  const rows = db.collection('rows');
  await rows.search({ vector: Float32Array.from(queries[0]), limit: 10 });
  const open_seconds = (performance.now() - start) / 1000;
  const curve = [];
  for (const ef of [16, 32, 64, 128, 256]) {
    let found = 0;
    const times = [];
    for (const [at, query] of queries.entries()) {
      const vector = Float32Array.from(query);
      const begun = performance.now();
      const { hits } = await rows.search({ vector, limit: 10, ef });
      times.push(performance.now() - begun);
      found += hits.filter(({ key }) => truth[at].includes(key)).length;
    }
    times.sort((a, b) => a - b);
    curve.push({ ef, recall: found / (10 * queries.length), p50_ms: times[times.length >> 1], p99_ms: times[Math.floor(times.length * 0.99)] });
  }
  const told = { open_seconds, curve, memory: await db.memory(), rows: await rows.count() };
  await db.close();
  return told;
}

export async function run({ log, directory }) {
  const built = native(directory, [String(ROWS)]);
  log(`${built.rows} rows of 384 dimensions in ${built.segments} segments, ${(built.bytes / 1e9).toFixed(2)} GB with their indexes: built natively in ${built.seconds.toFixed(0)} s`);
  const blank = (_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>bench</title>');
  const archive = (_, response) => createReadStream(built.path).pipe(response.writeHead(200, { 'content-length': built.bytes }));
  const server = await serveFolder(root, { routes: { '/': blank, '/rows.eddy': archive } });
  const profile = await Profile.create();
  let most = { all: 0, renderers: 0 };
  let watch;
  const watched = async (context, work, ...rest) => {
    most = { all: 0, renderers: 0 };
    watch = setInterval(() => {
      const { all, renderers } = groupBytes(profile.group);
      most = { all: Math.max(most.all, all), renderers: Math.max(most.renderers, renderers) };
    }, 100);
    const page = await context.newPage();
    await page.goto(server.url);
    const told = await page.evaluate(work, rest);
    clearInterval(watch);
    await page.close();
    return { told, ...most };
  };
  try {
    const context = await profile.start();
    const downloaded = await watched(context, download, server.url, LIMIT_BYTES);
    log(`Chromium downloads, imports and answers in ${downloaded.told.toFixed(1)} s: at most ${(downloaded.renderers / 1e6).toFixed(0)} MB in the page's processes, ${(downloaded.all / 1e6).toFixed(0)} MB in all of the browser's`);
    await profile.kill();
    const again = await profile.start();
    const searched = await watched(again, search, server.url, LIMIT_BYTES, built.queries, built.truth);
    const { open_seconds, curve, memory } = searched.told;
    log(`opens and answers in ${open_seconds.toFixed(2)} s; holds ${JSON.stringify(memory)}; at most ${(searched.renderers / 1e6).toFixed(0)} MB in the page's processes, ${(searched.all / 1e6).toFixed(0)} MB in all of the browser's`);
    log('ef | recall@10 | p50 ms | p99 ms');
    for (const { ef, recall, p50_ms, p99_ms } of curve) log(`${ef} | ${recall.toFixed(4)} | ${p50_ms.toFixed(2)} | ${p99_ms.toFixed(2)}`);
    const reached = curve.find(({ recall }) => recall >= RECALL_MIN);
    const bytes = Math.max(downloaded.all, searched.all);
    return {
      rows: [{ ...built, queries: undefined, truth: undefined, path: undefined, downloaded, searched }],
      targets: [
        { name: `recall of a search among ${ROWS} rows in Chromium`, value: (reached ?? curve.at(-1)).recall.toFixed(4), limit: `at least ${RECALL_MIN}`, met: reached !== undefined },
        { name: 'memory of all of the browser meanwhile', value: `${(bytes / 1e6).toFixed(0)} MB`, limit: 'at most 900 MB', met: bytes <= MEMORY_MAX },
      ],
    };
  } finally {
    clearInterval(watch);
    await profile.remove();
    await server.close();
  }
}
