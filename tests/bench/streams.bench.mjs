// Streams, natively: the queries of Nexmark through a job on one core; what it takes to follow a store by change streams and live queries;
// a pipeline that joins events with their nearest rows; events of which those are left out that are near to one before.

import { spawnSync } from 'node:child_process';

import { nativeProgram } from './search.mjs';

/** Events a second that a query is to take: those that look at each event alone, and those that keep state. */
const STATELESS_MIN = 1_000_000;
const WINDOWED_MIN = 300_000;
const STATELESS = ['q0', 'q1', 'q2'];
/** From a commit until a follower in the same process is told, in the median. */
const CHANGE_MS_MAX = 1;
/** By how much a write under live queries costs less than searching them anew. */
const LIVE_TIMES_MIN = 50;

/** All parts, or those that are named: `EDDY_BENCH_PARTS=nexmark,standing`. */
const parts = (process.env.EDDY_BENCH_PARTS ?? 'nexmark,changes,standing,nearest,dedupe').split(',');

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

export async function run({ log, directory }) {
  const options = { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 2 ** 24 };
  const done = spawnSync(nativeProgram('streams_native'), [directory, ...parts], options);
  if (done.status !== 0) throw new Error('the native bench of streams failed');
  const told = JSON.parse(done.stdout);
  const targets = [];
  const { nexmark, changes, standing, nearest, dedupe } = told;
  if (nexmark) targets.push(...tellNexmark(nexmark, log));
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
  const others = Object.entries({ changes, standing, nearest, dedupe }).filter(([, part]) => part);
  const rows = [...(nexmark?.queries ?? []).map((query) => ({ name: query.query, ...query })), ...others.map(([name, part]) => ({ name, ...part }))];
  return { rows, targets };
}
