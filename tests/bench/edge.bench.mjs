// The edge worker in workerd, over HTTP on loopback: how long a search takes beside requests that do nothing, how long the first answer of a stored
// database takes (after the runtime was started, after the object was evicted, after it closed the database), and what is deployed.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { direction, nearest, random } from '../support/vectors.mjs';
import { Edge } from '../support/workerd.mjs';
import { root } from './search.mjs';

const DIM = 384;
const ROWS = 20_000;
const BATCH = 500;
const SEARCHES = 1_000;
const ROUNDS = 5;
/** Longer than the runtime keeps an object that nobody calls. */
const EVICTED_AFTER_MS = 14_000;
/** Longer than the worker keeps a database open that nobody uses. */
const CLOSED_AFTER_MS = 3_500;
/** Enough for all vectors, which by default are partly read from storage. */
const ROOMY_BYTES = 96 * 1024 * 1024;
const SCRIPT_BYTES_MAX = 3_000_000;

const rowsUrl = '/databases/bench/collections/rows';
const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    embedding: { type: 'float_vector', dim: DIM, metric: 'IP', index: { type: 'HNSW', m: 16, efConstruction: 200 } },
  },
};

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const percentile = (values, share) => values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))];

/** Vectors of length one around a thousand centres, for an index over pure noise would be no index. */
function vectors() {
  const next = random(1);
  const centres = Array.from({ length: 1000 }, () => direction(next, DIM));
  return () => {
    const centre = centres[Math.floor(next() * centres.length)];
    const made = centre.map((x) => x + (0.5 / Math.sqrt(DIM)) * (next() * 2 - 1));
    const length = Math.hypot(...made);
    return made.map((x) => x / length);
  };
}

async function ask(edge, method, path, body) {
  const answer = await edge.ask(method, path, body);
  if (answer.status !== 200) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return answer.body;
}

async function timed(work) {
  const start = performance.now();
  const value = await work();
  return [performance.now() - start, value];
}

const search = (edge, vector, more = {}) => ask(edge, 'POST', `${rowsUrl}/search`, { vector, limit: 10, outputFields: ['id'], ...more });

async function fill(edge, rows) {
  await ask(edge, 'PUT', rowsUrl, schema);
  for (let from = 0; from < rows.length; from += BATCH) await ask(edge, 'POST', `${rowsUrl}/insert`, { rows: rows.slice(from, from + BATCH) });
  while ((await ask(edge, 'GET', rowsUrl)).stats.rowsUnindexed > 0) await sleep(50);
}

/** Searches in turn with what asks nothing of the worker, and what asks nothing of the database. */
async function latency(edge, queries) {
  const asked = {
    health: () => ask(edge, 'GET', '/health'),
    object: () => ask(edge, 'GET', '/databases/bench/object'),
    search: (query) => search(edge, query),
  };
  const took = { health: [], object: [], search: [] };
  for (const [at, query] of queries.entries()) {
    for (const [name, call] of Object.entries(asked)) {
      const [ms] = await timed(() => call(query));
      // What runs for the first time is compiled meanwhile.
      if (at >= queries.length / 10) took[name].push(ms);
    }
  }
  return took;
}

/** Times of the first answers after `lose`, round by round; `isLost` tells from what the object says before and after whether it was. */
async function firsts(edge, query, lose, isLost) {
  const took = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const before = await ask(edge, 'GET', '/databases/bench/object');
    const lost = await lose();
    const [ms, { hits }] = await timed(() => search(edge, query));
    if (hits.length !== 10) throw new Error(`${hits.length} hits`);
    const after = await ask(edge, 'GET', '/databases/bench/object');
    if (!isLost(before, after)) throw new Error(`the object was not lost: ${JSON.stringify([before, after])}`);
    took.push({ ms, ...lost });
  }
  return took;
}

function weigh() {
  const parts = ['index.js', 'eddydb.wasm'].map((name) => readFileSync(join(root, 'worker', 'dist', name)));
  const [bytes, gzip] = [(part) => part.length, (part) => gzipSync(part, { level: 9 }).length].map((of) => parts.reduce((total, part) => total + of(part), 0));
  return { name: 'script', bytes, gzip };
}

export async function run({ log }) {
  const ends = [];
  try {
    return await measure(await Edge.start({ after: (end) => ends.push(end) }), log);
  } finally {
    for (const end of ends) await end();
  }
}

async function measure(edge, log) {
  const next = vectors();
  const rows = Array.from({ length: ROWS }, (_, id) => ({ id, embedding: next() }));
  const queries = Array.from({ length: SEARCHES }, next);
  const [filled_ms] = await timed(() => fill(edge, rows));

  const took = await latency(edge, queries);
  await edge.kill();
  await edge.restart({ MEMORY_LIMIT_BYTES: String(ROOMY_BYTES) });
  took.roomy = (await latency(edge, queries)).search;
  await edge.kill();
  await edge.restart({});
  let found = 0;
  for (const query of queries.slice(0, 100)) {
    const expected = new Set(nearest(rows, query, 10).map(({ key }) => key));
    found += (await search(edge, query)).hits.filter(({ key }) => expected.has(key)).length;
  }
  const recall = found / 1000;
  const told = Object.fromEntries(Object.entries(took).map(([name, times]) => [name, { p50_ms: percentile(times, 0.5), p99_ms: percentile(times, 0.99) }]));
  log(`${ROWS} rows of ${DIM} dimensions with their index, inserted over HTTP and indexed in ${(filled_ms / 1000).toFixed(1)} s; recall@10 ${recall.toFixed(3)}`);
  log('| a request, ms | p50 | p99 | of one to the object that does nothing |\n|---|---|---|---|');
  const words = { health: 'answered by the worker', object: 'answered by the object', search: 'search, limit 10', roomy: 'the same with 96 MiB of memory' };
  for (const [name, { p50_ms, p99_ms }] of Object.entries(told)) {
    log(`| ${words[name]} | ${p50_ms.toFixed(2)} | ${p99_ms.toFixed(2)} | ${(p50_ms / told.object.p50_ms).toFixed(2)} |`);
  }

  const warm = told.search.p50_ms;
  const restart = async () => {
    await sleep(CLOSED_AFTER_MS);
    await edge.kill();
    const [listening_ms] = await timed(() => edge.restart());
    const [health_ms] = await timed(() => ask(edge, 'GET', '/health'));
    return { started_ms: listening_ms + health_ms };
  };
  const isAnother = (before, after) => before.life !== after.life;
  const starts = {
    spawned: await firsts(edge, queries[0], restart, isAnother),
    evicted: await firsts(edge, queries[0], () => sleep(EVICTED_AFTER_MS), isAnother),
    closed: await firsts(edge, queries[0], () => sleep(CLOSED_AFTER_MS), (before, after) => before.life === after.life && after.opened > before.opened),
  };
  const of = { spawned: 'the runtime was started', evicted: 'the object was evicted', closed: 'the database was closed' };
  log('\n| first search after | ms, least | median | most | of a warm search |\n|---|---|---|---|---|');
  const firstRows = Object.entries(starts).map(([name, rounds]) => {
    const times = rounds.map(({ ms }) => ms);
    const [least_ms, median_ms, most_ms] = [Math.min(...times), percentile(times, 0.5), Math.max(...times)];
    log(`| ${of[name]} | ${least_ms.toFixed(0)} | ${median_ms.toFixed(0)} | ${most_ms.toFixed(0)} | ${(median_ms / warm).toFixed(0)} |`);
    return { name: `first search, ${name}`, least_ms, median_ms, most_ms, rounds };
  });
  const started_ms = percentile(starts.spawned.map(({ started_ms }) => started_ms), 0.5);
  log(`The runtime itself answers ${started_ms.toFixed(0)} ms after its start, and has compiled the WebAssembly by then.`);

  const script = weigh();
  log(`\nWhat is deployed: ${script.bytes} bytes, ${script.gzip} of gzip`);
  const target = (name, value, limit, met) => ({ name, value: Number(value.toFixed(2)), limit, met });
  const evicted = firstRows.find(({ name }) => name.endsWith('evicted')).median_ms;
  return {
    rows: [...Object.entries(told).map(([name, times]) => ({ name, ...times })), ...firstRows, { name: 'fill', seconds: filled_ms / 1000, recall, started_ms }, script],
    targets: [
      target('search at the edge with all vectors in memory, p50, of a request that does nothing', told.roomy.p50_ms / told.object.p50_ms, 'at most 3', told.roomy.p50_ms / told.object.p50_ms <= 3),
      target('first search after the object was evicted, ms', evicted, 'at most 500', evicted <= 500),
      target('the worker, bytes of gzip', script.gzip, `at most ${SCRIPT_BYTES_MAX}`, script.gzip <= SCRIPT_BYTES_MAX),
    ],
  };
}
