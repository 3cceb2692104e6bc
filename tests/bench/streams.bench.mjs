// Streams: the queries of Nexmark, events a second through a job on one core, natively.

import { spawnSync } from 'node:child_process';

import { nativeProgram } from './search.mjs';

/** Events a second that a query is to take: those that look at each event alone, and those that keep state. */
const STATELESS_MIN = 1_000_000;
const WINDOWED_MIN = 300_000;
const STATELESS = ['q0', 'q1', 'q2'];

export async function run({ log }) {
  const done = spawnSync(nativeProgram('streams_native'), { stdio: ['ignore', 'pipe', 'ignore'], encoding: 'utf8', maxBuffer: 2 ** 24 });
  if (done.status !== 0) throw new Error('the native bench of streams failed');
  const { events, queries } = JSON.parse(done.stdout);
  log(`Nexmark, ${events.toLocaleString('en')} events, one core; a person, 3 auctions and 46 bids of every 50`);
  log('query  events/s    rows in    rows out   state MB  checkpoint MB  checkpoint ms');
  for (const { query, events_per_second, rows_in, rows_out, state_bytes, checkpoint_bytes, checkpoint_ms } of queries) {
    const numbers = [
      Math.round(events_per_second).toLocaleString('en').padStart(10),
      rows_in.toLocaleString('en').padStart(10),
      rows_out.toLocaleString('en').padStart(11),
      (state_bytes / 2 ** 20).toFixed(1).padStart(10),
      (checkpoint_bytes / 2 ** 20).toFixed(1).padStart(14),
      checkpoint_ms.toFixed(1).padStart(14),
    ];
    log(`${query.padEnd(5)} ${numbers.join(' ')}`);
  }
  const targets = queries.map(({ query, events_per_second }) => {
    const limit = STATELESS.includes(query) ? STATELESS_MIN : WINDOWED_MIN;
    return { name: `Nexmark ${query}, events a second`, value: Math.round(events_per_second), limit, met: events_per_second >= limit };
  });
  return { rows: queries.map((query) => ({ name: query.query, ...query })), targets };
}
