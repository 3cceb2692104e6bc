// Streams: the queries of Nexmark through a job on one core, natively and in Node's WebAssembly; natively what it takes to follow a store by change streams and live queries;
// a pipeline that joins events with their nearest rows; events of which those are left out that are near to one before;
// searches while rows come.

import { spawnSync } from 'node:child_process';

import { instantiate, nativeProgram, wasmModule } from './search.mjs';

/** Events a second that a query is to take: those that look at each event alone, and those that keep state. */
const STATELESS_MIN = 1_000_000;
const WINDOWED_MIN = 300_000;
const STATELESS = ['q0', 'q1', 'q2'];
/** What is left of them in WebAssembly, and how many runs there are, of which the best counts. */
const WASM_SHARE_MIN = 1 / 3;
const WASM_RUNS = 3;
/** From a commit until a follower in the same process is told, in the median. */
const CHANGE_MS_MAX = 1;
/** By how much a write under live queries costs less than searching them anew. */
const LIVE_TIMES_MIN = 50;

/** All parts, or those that are named: `EDDY_BENCH_PARTS=nexmark,standing`. */
const parts = (process.env.EDDY_BENCH_PARTS ?? 'nexmark,changes,standing,nearest,dedupe,ingest').split(',');

const whole = (number) => Math.round(number).toLocaleString('en');

function tellNexmark({ events, queries }, log) {
  log(`Nexmark, ${whole(events)} events, one core; a person, 3 auctions and 46 bids of every 50`);
  log('query  events/s    rows in    rows out   state MB  checkpoint MB  checkpoint ms');
  for (const { query, events_per_second, rows_in, rows_out, state_bytes, checkpoint_bytes, checkpoint_ms } of queries) {
    const numbers = [
      whole(events_per_second).padStart(10),
      whole(rows_in).padStart(10),
      whole(rows_out).padStart(11),
      (state_bytes / 2 ** 20).toFixed(1).padStart(10),
      (checkpoint_bytes / 2 ** 20).toFixed(1).padStart(14),
      checkpoint_ms.toFixed(1).padStart(14),
    ];
    log(`${query.padEnd(5)} ${numbers.join(' ')}`);
  }
  return queries.map(({ query, events_per_second }) => {
    const limit = STATELESS.includes(query) ? STATELESS_MIN : WINDOWED_MIN;
    return { name: `Nexmark ${query}, events a second`, value: Math.round(events_per_second), limit, met: events_per_second >= limit };
  });
}

/** The same queries of the same events in WebAssembly, beside what they took natively. */
function tellNexmarkInWasm({ events, queries }, log) {
  const { bench_prepare: prepare, bench_run: runOnce } = instantiate(wasmModule('streams_wasm', 'eddydb_full'));
  log('');
  log(`the same in WebAssembly, Node ${process.version}`);
  log('query  events/s   of native');
  return queries.map(({ query, rows_out, events_per_second }, number) => {
    prepare(number);
    let seconds = Infinity;
    for (let run = 0; run < WASM_RUNS; run += 1) {
      const start = performance.now();
      const rows = runOnce();
      seconds = Math.min(seconds, (performance.now() - start) / 1000);
      if (rows !== rows_out) throw new Error(`${query}: ${rows} rows in WebAssembly, natively ${rows_out}`);
    }
    const share = events / seconds / events_per_second;
    log(`${query.padEnd(5)} ${whole(events / seconds).padStart(10)} ${share.toFixed(2).padStart(10)}`);
    return { query, events_per_second: events / seconds, share };
  });
}

export async function run({ log, directory }) {
  const options = { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 2 ** 24 };
  const done = spawnSync(nativeProgram('streams_native'), [directory, ...parts], options);
  if (done.status !== 0) throw new Error('the native bench of streams failed');
  const told = JSON.parse(done.stdout);
  const targets = [];
  const { nexmark, changes, standing, nearest, dedupe, ingest } = told;
  let inWasm = [];
  if (nexmark) {
    targets.push(...tellNexmark(nexmark, log));
    inWasm = tellNexmarkInWasm(nexmark, log);
    const [least] = inWasm.toSorted((a, b) => a.share - b.share);
    const { query, share } = least;
    targets.push({ name: `Nexmark in WebAssembly, share of native (least, ${query})`, value: Number(share.toFixed(2)), limit: Number(WASM_SHARE_MIN.toFixed(2)), met: share >= WASM_SHARE_MIN });
  }
  if (changes) {
    log(`change stream, ${whole(changes.writes)} writes of a row: from the commit p50 ${changes.from_commit_p50_ms.toFixed(3)} ms, p99 ${changes.from_commit_p99_ms.toFixed(3)} ms; ` +
      `from the call, with its sync, p50 ${changes.from_call_p50_ms.toFixed(2)} ms, p99 ${changes.from_call_p99_ms.toFixed(2)} ms`);
    const value = changes.from_commit_p50_ms;
    targets.push({ name: 'change stream, ms from commit to follower, p50', value, limit: CHANGE_MS_MAX, met: value <= CHANGE_MS_MAX });
  }
  if (standing) {
    log(`${whole(standing.queries)} live queries over ${whole(standing.rows)} rows of 384 floats: ${standing.update_ms.toFixed(2)} ms a written row, one search ` +
      `${standing.search_ms.toFixed(2)} ms, all of them ${whole(standing.times_cheaper)} times; exact ${standing.exact.toFixed(3)}; added in ${standing.added_seconds.toFixed(1)} s`);
    targets.push({ name: 'live queries, times cheaper than searching', value: Math.round(standing.times_cheaper), limit: LIVE_TIMES_MIN, met: standing.times_cheaper >= LIVE_TIMES_MIN });
    targets.push({ name: 'live queries, share that is exact', value: standing.exact, limit: 1, met: standing.exact === 1 });
  }
  if (nearest) {
    log(`join with the 10 nearest of ${whole(nearest.rows)} rows: ${whole(nearest.events_per_second)} events/s (${whole(nearest.events)} events, ${whole(nearest.joined)} rows out)`);
  }
  if (dedupe) {
    log(`dedupe by vectors of 384 floats, ${whole(dedupe.kept)} kept: ${whole(dedupe.events_per_second)} events/s (${whole(dedupe.events)} events, ${whole(dedupe.told)} rows out)`);
  }
  if (ingest) {
    log(`searches while ${whole(ingest.rows_per_second)} rows/s come to ${whole(ingest.rows)}: p50 ${ingest.p50_ms.toFixed(2)} ms, p99 ${ingest.p99_ms.toFixed(2)} ms; at rest ` +
      `${ingest.at_rest_p50_ms.toFixed(2)} and ${ingest.at_rest_p99_ms.toFixed(2)} ms; found as soon as written ${ingest.found_at_once.toFixed(3)}`);
    log('policy        rows/s   p50 ms   p99 ms  at rest p50, p99 ms  segments  merges  written again');
    for (const by of ingest.policies) {
      const numbers = [
        whole(by.rows_per_second).padStart(8),
        by.p50_ms.toFixed(2).padStart(8),
        by.p99_ms.toFixed(2).padStart(8),
        `${by.at_rest_p50_ms.toFixed(2)}, ${by.at_rest_p99_ms.toFixed(2)}`.padStart(20),
        String(by.segments).padStart(9),
        String(by.merges).padStart(7),
        `${by.write_amplification.toFixed(2)} times`.padStart(14),
      ];
      log(`${by.policy.padEnd(12)}${numbers.join(' ')}`);
    }
    targets.push({ name: 'share of rows found as soon as their write is acknowledged', value: ingest.found_at_once, limit: 1, met: ingest.found_at_once === 1 });
  }
  const others = Object.entries({ changes, standing, nearest, dedupe, ingest }).filter(([, part]) => part);
  const wasm = inWasm.map((query) => ({ name: `${query.query} in WebAssembly`, ...query }));
  const rows = [...(nexmark?.queries ?? []).map((query) => ({ name: query.query, ...query })), ...wasm, ...others.map(([name, part]) => ({ name, ...part }))];
  rows.push(...(ingest?.policies ?? []).map((by) => ({ name: `ingest, ${by.policy}`, ...by })));
  return { rows, targets };
}
