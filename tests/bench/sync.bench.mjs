// Sync: the first sync of a page beside a bare download and beside inserting the rows there, how long a write takes from one browser to
// another, many replicas on one hub, and a long queue of writes made offline; there the hub is `eddy serve` with its data on disk, on loopback. Then
// what it takes to bring a hub what it lost when it was restored from a backup, within one process.
//
// `EDDY_BENCH_PARTS` names some of the parts: first, latency, fan-out, queue, reconcile.

import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Profile } from '../browser/harness.mjs';
import { Server } from '../support/server.mjs';
import { root, syncProgram } from './search.mjs';

const DIM = 384;
const ROWS = 20_000;
const ROUNDS = 3;
const WRITES = 500;
const WRITE_EVERY_MS = 20;
const REPLICAS = 1_000;
const RATE = 200;
const SECONDS = 15;
const QUEUE = 100_000;
const HELD = 1_000_000;
/** At the hub; as much is missing at the client. */
const LOST = 500;

/** How a page makes rows: vectors around a thousand centres, seeded, for an index over pure noise would be no index. */
function makeVectors(dim) {
  let seed = 1;
  const random = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 31 - 1;
  };
  const centres = Array.from({ length: 1000 }, () => Float32Array.from({ length: dim }, random));
  return () => {
    const centre = centres[Math.floor(((random() + 1) / 2) * centres.length)];
    const made = centre.map((x) => x + 0.5 * random());
    const length = Math.hypot(...made);
    return made.map((x) => x / length);
  };
}

const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    embedding: { type: 'float_vector', dim: DIM, metric: 'IP', index: { type: 'HNSW', m: 16, efConstruction: 200 } },
  },
};

/** What the pages have in common; runs there. */
function tools() {
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const until = (sync, wanted) =>
    new Promise((resolve) => {
      const look = (status) => wanted(status) && resolve(status);
      sync.onStatus(look);
      look(sync.status);
    });
  const settled = ({ state, pending, lastSyncedAt, download }) => state === 'live' && pending === 0 && lastSyncedAt !== undefined && download === undefined;
  return { sleep, until, settled };
}

/** Inserts and indexes the rows in the page, then sends them to the hub. */
async function fill({ open, tools, vectors, hub, rows, schema }) {
  const { sleep, until, settled } = tools;
  const batches = Array.from({ length: rows / 1000 }, (_, n) => Array.from({ length: 1000 }, (_, at) => ({ id: n * 1000 + at, embedding: vectors() })));
  const db = await open({ name: 'filled', storage: 'opfs' });
  const start = performance.now();
  const collection = await db.createCollection('rows', schema);
  for (const batch of batches) await collection.insert(batch);
  while ((await collection.stats()).rowsUnindexed > 0) await sleep(5);
  const seconds = (performance.now() - start) / 1000;
  const begun = performance.now();
  const sync = db.sync({ url: hub, collections: ['rows'] });
  await until(sync, settled);
  const upload_seconds = (performance.now() - begun) / 1000;
  await sync.stop();
  await db.close();
  return { seconds, upload_seconds };
}

/** Brings all rows from the hub into a new store of the page. */
async function firstSync({ open, tools, hub, rows, name }) {
  const { sleep, until, settled } = tools;
  const vector = new Float32Array(384).fill(0.05);
  const db = await open({ name, storage: 'opfs' });
  let bytes = 0;
  const start = performance.now();
  const sync = db.sync({ url: hub, collections: ['rows'] });
  sync.onStatus(({ download }) => (bytes = Math.max(bytes, download?.total ?? 0)));
  const whole = until(sync, settled).then(() => performance.now() - start);
  let first;
  for (;;) {
    try {
      if ((await db.collection('rows').search({ vector, limit: 10, outputFields: ['id'] })).hits.length === 10) break;
    } catch (error) {
      // The collection has not come yet.
      if (error.kind !== 'not_found') throw error;
    }
    await sleep(5);
  }
  first = performance.now() - start;
  const complete = await whole;
  const { rowsUnindexed } = await db.collection('rows').stats();
  const count = await db.collection('rows').count();
  if (count !== rows || rowsUnindexed !== 0) throw new Error(`${count} rows, ${rowsUnindexed} of them without index; ${rows} expected`);
  const { hits } = await db.collection('rows').search({ vector, limit: 10 });
  if (hits.length !== 10) throw new Error(`${hits.length} hits`);
  await sync.stop();
  await db.close();
  return { first_seconds: first / 1000, complete_seconds: complete / 1000, bytes };
}

/** Fetches as many bytes and keeps none of them. */
async function bare({ url }) {
  const start = performance.now();
  const { byteLength } = await (await fetch(url, { cache: 'no-store' })).arrayBuffer();
  return { seconds: (performance.now() - start) / 1000, bytes: byteLength };
}

/** The page's clock, in milliseconds since 1970 as the page has it. */
const clock = () => performance.timeOrigin + performance.now();

/** Joins the hub, and notes when each row that others write is told of here. */
async function listen({ open, tools, hub, schema }) {
  const db = await open({ name: 'latency', storage: 'opfs' });
  const collection = await db.createCollection('notes', schema, { ifNotExists: true });
  const sync = db.sync({ url: hub, collections: ['notes'] });
  await tools.until(sync, tools.settled);
  window.arrived = [];
  const stream = await collection.changes({ outputFields: ['id'] });
  (async () => {
    for await (const { changes } of stream) {
      const now = performance.timeOrigin + performance.now();
      for (const { key, after } of changes) if (after !== undefined) window.arrived.push([key, now]);
    }
  })();
}

/** Joins the hub, and writes rows at even times; tells when each was begun and how long its acknowledgement took. */
async function write({ open, tools, vectors, hub, schema, writes, every }) {
  const db = await open({ name: 'latency', storage: 'opfs' });
  const collection = await db.createCollection('notes', schema, { ifNotExists: true });
  const sync = db.sync({ url: hub, collections: ['notes'] });
  await tools.until(sync, tools.settled);
  const rows = Array.from({ length: writes }, (_, id) => ({ id, embedding: vectors() }));
  const begun = performance.now();
  const sent = [];
  for (const [at, row] of rows.entries()) {
    await tools.sleep(Math.max(0, begun + at * every - performance.now()));
    const start = performance.now();
    await collection.insert([row]);
    sent.push([row.id, performance.timeOrigin + start, performance.now() - start]);
  }
  return sent;
}

/** Runs one of the functions above in a page. */
const inPage = (page, work, given = {}) =>
  page.evaluate(
    async ([text, toolsText, vectorsText, given]) => {
      const of = (text) => new Function(`return (${text})`)();
      const { open } = await import('/pkg/dist/browser.js');
      return of(text)({ open, tools: of(toolsText)(), vectors: of(vectorsText)(384), ...given });
    },
    [work.toString(), tools.toString(), makeVectors.toString(), given],
  );

/** How far a page's clock is before this process's, and by how much that may be wrong. */
async function offset(page) {
  let best = { rtt: Infinity, ahead: 0 };
  for (let n = 0; n < 100; n += 1) {
    const asked = clock();
    const there = await page.evaluate(clock);
    const now = clock();
    if (now - asked < best.rtt) best = { rtt: now - asked, ahead: there - (asked + now) / 2 };
  }
  return { ahead: best.ahead, within: best.rtt / 2 };
}

const percentile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];

/** A hub that also serves the package's pages and a file of any length, from `site`. */
async function startHub(directory) {
  const site = join(directory, 'site');
  mkdirSync(site, { recursive: true });
  rmSync(join(site, 'pkg'), { force: true });
  symlinkSync(join(root, 'pkg'), join(site, 'pkg'));
  writeFileSync(join(site, 'index.html'), '<!doctype html><link rel="icon" href="data:,"><title>bench</title>');
  const server = await Server.start({ profile: 'release', more: ['--console', site] });
  // Images are not compressed on the way.
  return Object.assign(server, { site, bare: (bytes) => writeFileSync(join(site, 'bare.png'), Buffer.alloc(bytes, 'as many bytes')) });
}

async function withPage(hub, work) {
  const profile = await Profile.create();
  try {
    const page = await (await profile.start()).newPage();
    await page.goto(hub.url);
    return await work(page);
  } finally {
    await profile.remove();
  }
}

async function first(directory) {
  const hub = await startHub(directory);
  try {
    const filled = await withPage(hub, (page) => inPage(page, fill, { hub: hub.sync, rows: ROWS, schema }));
    await hub.post('/api/flush');
    while ((await hub.get('/api/collections/rows')).rowsUnindexed !== 0) await new Promise((resolve) => setTimeout(resolve, 20));
    await hub.post('/api/flush');
    return await withPage(hub, async (page) => {
      // Tells how many bytes there are, and has everything loaded that the first one loads.
      const { bytes } = await inPage(page, firstSync, { hub: hub.sync, rows: ROWS, name: 'warm' });
      hub.bare(bytes);
      const rounds = [];
      for (let round = 0; round < ROUNDS; round += 1) {
        const before = await inPage(page, bare, { url: '/bare.png' });
        const told = await inPage(page, firstSync, { hub: hub.sync, rows: ROWS, name: `round-${round}` });
        const after = await inPage(page, bare, { url: '/bare.png' });
        if (before.bytes !== bytes || told.bytes !== bytes) throw new Error(`${before.bytes} and ${told.bytes} bytes; ${bytes} expected`);
        rounds.push({ ...told, bare_seconds: (before.seconds + after.seconds) / 2 });
      }
      const middle = rounds.toSorted((a, b) => a.complete_seconds / a.bare_seconds - b.complete_seconds / b.bare_seconds)[Math.floor(ROUNDS / 2)];
      return { insert_seconds: filled.seconds, upload_seconds: filled.upload_seconds, bytes, rounds, middle };
    });
  } finally {
    await hub.remove();
  }
}

async function latency(directory) {
  const hub = await startHub(directory);
  try {
    return await withPage(hub, (reader) =>
      withPage(hub, async (writer) => {
        await inPage(reader, listen, { hub: hub.sync, schema });
        const before = [await offset(writer), await offset(reader)];
        const sent = await inPage(writer, write, { hub: hub.sync, schema, writes: WRITES, every: WRITE_EVERY_MS });
        await reader.waitForFunction((count) => window.arrived.length >= count, WRITES, { timeout: 60_000 });
        const after = [await offset(writer), await offset(reader)];
        const arrived = new Map(await reader.evaluate(() => window.arrived));
        if (arrived.size !== WRITES) throw new Error(`${arrived.size} rows arrived; ${WRITES} expected`);
        const ahead = (at) => (before[at].ahead + after[at].ahead) / 2;
        const took = sent.map(([id, begun]) => arrived.get(id) - ahead(1) - (begun - ahead(0))).sort((a, b) => a - b);
        const acknowledged = sent.map(([, , ms]) => ms).sort((a, b) => a - b);
        const moved = Math.max(...[0, 1].map((at) => Math.abs(before[at].ahead - after[at].ahead)));
        return {
          writes: WRITES, p50_ms: percentile(took, 0.5), p90_ms: percentile(took, 0.9), p99_ms: percentile(took, 0.99), max_ms: took.at(-1),
          written_p50_ms: percentile(acknowledged, 0.5),
          clocks_within_ms: before[0].within + before[1].within + moved,
        };
      }),
    );
  } finally {
    await hub.remove();
  }
}

function native(...args) {
  const done = spawnSync(syncProgram(), args.map(String), { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });
  if (done.status !== 0) throw new Error(`the native sync bench failed: ${args.join(' ')}`);
  return JSON.parse(done.stdout);
}

async function withHub(work) {
  const hub = await Server.start({ profile: 'release' });
  try {
    return await work(hub);
  } finally {
    await hub.remove();
  }
}

const fanOut = () => withHub((hub) => native('fan-out', hub.sync, hub.process, REPLICAS, RATE, SECONDS));

const queue = (directory) =>
  withHub(async (hub) => {
    const told = native('queue', hub.sync, hub.process, QUEUE, join(directory, 'queue'));
    const { count } = await hub.post('/api/collections/rows/count');
    if (count !== QUEUE) throw new Error(`${count} rows at the hub; ${QUEUE} expected`);
    return told;
  });

const reconcile = (directory) => native('reconcile', HELD, LOST, join(directory, 'reconcile'));

/** By name, in this order; each gives what `run` tells of it. */
const parts = { first, latency, 'fan-out': fanOut, queue, reconcile };

export async function run({ log, directory }) {
  const chosen = process.env.EDDY_BENCH_PARTS?.split(',') ?? Object.keys(parts);
  const rows = [];
  const targets = [];
  const target = (name, value, limit, met) => targets.push({ name, value: Number(value.toFixed(2)), limit, met });
  const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;
  for (const name of chosen) {
    if (!Object.hasOwn(parts, name)) throw new Error(`no part ${name}; there are ${Object.keys(parts).join(', ')}`);
    const told = await parts[name](directory);
    rows.push({ name, ...told });
    if (name === 'first') {
      const { bytes, insert_seconds, upload_seconds, rounds, middle } = told;
      log(`${ROWS} rows of ${DIM} dimensions with their index, ${(bytes / 1e6).toFixed(1)} MB, into Chromium on OPFS; inserted and indexed there in ${insert_seconds.toFixed(2)} s, sent to the hub in ${upload_seconds.toFixed(2)} s`);
      log('| first result, s | complete, s | bare download, s | complete / bare | inserting / complete |\n|---|---|---|---|---|');
      for (const { first_seconds, complete_seconds, bare_seconds } of rounds) {
        log(`| ${first_seconds.toFixed(3)} | ${complete_seconds.toFixed(3)} | ${bare_seconds.toFixed(3)} | ${(complete_seconds / bare_seconds).toFixed(2)} | ${(insert_seconds / complete_seconds).toFixed(1)} |`);
      }
      const ofBare = middle.complete_seconds / middle.bare_seconds;
      const faster = insert_seconds / middle.complete_seconds;
      target('first sync in Chromium, of the bare download', ofBare, 'at most 2', ofBare <= 2);
      target('first sync in Chromium, times faster than inserting', faster, 'at least 10', faster >= 10);
    } else if (name === 'latency') {
      const { p50_ms, p90_ms, p99_ms, max_ms, written_p50_ms, clocks_within_ms } = told;
      log(`\nA write in one Chromium until another is told of it, ${WRITES} writes: p50 ${p50_ms.toFixed(1)} ms, p90 ${p90_ms.toFixed(1)}, p99 ${p99_ms.toFixed(1)}, at most ${max_ms.toFixed(1)}; ` +
        `written where it was made: p50 ${written_p50_ms.toFixed(1)} ms; the clocks agree within ${clocks_within_ms.toFixed(2)} ms`);
      target('write to visible in another browser, p50, ms', p50_ms, 'at most 15', p50_ms <= 15);
      target('write to visible in another browser, p99, ms', p99_ms, 'at most 60', p99_ms <= 60);
    } else if (name === 'fan-out') {
      const { replicas, stores, delivered, expected, latency, latency_of_stores, connect_seconds, rows_per_pull, rows_per_second, hub_processors } = told;
      log(`\n${replicas} replicas (${stores} of them stores) on one hub, connected in ${connect_seconds.toFixed(2)} s; ${rows_per_second.toFixed(0)} writes/s for ${SECONDS} s: ${delivered} of ${expected} delivered, ${rows_per_pull.toFixed(2)} rows a pull`);
      log('| until visible, ms | p50 | p90 | p99 | at most |\n|---|---|---|---|---|');
      for (const [name, { p50_ms, p90_ms, p99_ms, max_ms }] of [['replicas', latency], ['stores', latency_of_stores]]) {
        log(`| ${name} | ${p50_ms.toFixed(1)} | ${p90_ms.toFixed(1)} | ${p99_ms.toFixed(1)} | ${max_ms.toFixed(1)} |`);
      }
      log(`memory of the hub's process a connection: ${kilobytes(told.bytes_per_connection_idle)} idle, ${kilobytes(told.bytes_per_connection_busy)} at the end of the writes, with the rows; ${hub_processors.toFixed(2)} processors busy in it`);
      target(`rows delivered to ${replicas} replicas, of all`, delivered / expected, 'exactly 1', delivered === expected);
    } else if (name === 'queue') {
      const { seconds, rows_per_second, gap_p50_ms, gap_p99_ms, gap_longest_ms, gap_longest_after_rows, acknowledgements, hub_processors } = told;
      log(`\n${QUEUE} writes made offline, drained in ${seconds.toFixed(2)} s, ${Math.round(rows_per_second).toLocaleString('en-US')} rows/s; ${acknowledgements} acknowledgements seen, between them p50 ${gap_p50_ms.toFixed(1)} ms, ` +
        `p99 ${gap_p99_ms.toFixed(1)}, at most ${gap_longest_ms.toFixed(1)} (after ${gap_longest_after_rows} rows); ${hub_processors.toFixed(2)} processors busy in the hub`);
      target('longest wait between acknowledgements of a queue, ms', gap_longest_ms, 'at most 1,000', gap_longest_ms <= 1_000);
    } else if (name === 'reconcile') {
      const { differing, seconds, frames, bytes_beyond_rows, bytes_to_find, bytes_of_rows, equal_bytes, equal_seconds, scattered_bytes_to_find } = told;
      log(`\n${HELD} rows, of which ${differing} differ: half of them a hub has lost, half the client has missed since, each half written at one time. Found and brought in ${seconds.toFixed(2)} s and ${frames} frames: for each ` +
        `${bytes_beyond_rows.toFixed(1)} bytes beyond its own ${bytes_of_rows.toFixed(0)}, ${bytes_to_find.toFixed(1)} of these to find it (scattered over all: ${scattered_bytes_to_find.toFixed(1)}). Without a difference ${equal_bytes} bytes, ${equal_seconds.toFixed(2)} s`);
      target('bytes a row that differs, beyond the row, of a million rows', bytes_beyond_rows, 'at most 64', bytes_beyond_rows <= 64);
    }
  }
  return { rows, targets };
}
