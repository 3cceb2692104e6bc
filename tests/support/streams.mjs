// The stream suite as data, run through the package wherever an engine lives: Node, a browser's worker, workerd. Nothing here is of one host.

import { bool, count, countWindow, double, global, max, session, sliding, source, sum, tumbling } from 'eddydb/plan';

import { zones } from './zones.mjs';

const second = 1_000_000;

const events = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    key: { type: 'varchar' },
    value: { type: 'int64' },
    at: { type: 'timestamp' },
  },
};
/** Rows of Flink's tests: key, value, milliseconds. */
const rowsOf = (list) => list.map(([key, value, ms], id) => ({ id, key, value, at: ms * 1000 }));
/** Later than all, so that every window closes: its own stays open. */
const end = ['end', 0, 10_000_000];

const outOfOrder = [
  ['key2', 1, 3999], ['key2', 1, 3000], ['key1', 1, 20], ['key1', 1, 0], ['key1', 1, 999], ['key2', 1, 1998], ['key2', 1, 1999], ['key2', 1, 1000],
];
const input = (delayMs) => source('events', { key: 'varchar', value: 'int64', at: 'timestamp' }, { time: 'at', delayMs });
const summed = (window, delayMs = 20_000) => input(delayMs).keyBy('key').window(window).aggregate({ sum: sum('value') }).sink({ collection: 'out' });
const shown = (row) => `${row.key} ${row.sum} ${row.window_start / 1000}..${row.window_end / 1000}`;

/**
 * What Flink's published tests expect of its window operator (apache/flink, `WindowOperatorTest`), as `src/stream/tests/flink.rs` has them
 * step by step; here each runs to its end, through a collection.
 */
export const flink = [
  {
    name: 'testTumblingEventTimeWindows',
    plan: () => summed(tumbling(3000)),
    batches: [[...outOfOrder, end]],
    expected: ['key1 3 0..3000', 'key2 2 3000..6000', 'key2 3 0..3000'],
  },
  {
    name: 'testSlidingEventTimeWindows',
    plan: () => summed(sliding(3000, 1000)),
    batches: [[...outOfOrder, end]],
    expected: [
      'key1 3 -1000..2000', 'key1 3 -2000..1000', 'key1 3 0..3000', 'key2 2 2000..5000', 'key2 2 3000..6000', 'key2 3 -1000..2000', 'key2 3 0..3000',
      'key2 5 1000..4000',
    ],
  },
  {
    name: 'testSessionWindows',
    plan: () => summed(session(3000)),
    batches: [
      [['key2', 1, 0], ['key2', 2, 1000], ['key2', 3, 2500], ['key1', 1, 10], ['key1', 2, 1000]],
      [['key1', 3, 2500], ['key2', 4, 5501], ['key2', 5, 6000], ['key2', 5, 6000], ['key2', 6, 6050]],
      [['key2', 10, 15_000], end],
    ],
    expected: ['key1 6 10..5500', 'key2 10 15000..18000', 'key2 20 5501..9050', 'key2 6 0..5500'],
  },
  {
    name: 'testDropDueToLatenessTumbling',
    plan: () => summed(tumbling(2000), 0),
    // One transaction after the other: the time has come as far as the latest row.
    batches: [[['key2', 1, 1000]], [['key2', 1, 1980]], [['key2', 1, 2001]], [['key2', 1, 1998]], [end]],
    stepwise: true,
    expected: ['key2 1 2000..4000', 'key2 2 0..2000'],
  },
  {
    name: 'testCountTrigger',
    plan: () => input(20_000).keyBy('key').window(countWindow(4)).aggregate({ sum: sum('value') }).sink({ collection: 'out' }),
    batches: [outOfOrder, [['key1', 1, 10_999], ['key2', 1, 1000], ['key2', 5, 1000], ['key2', 1, 1000], ['key2', 1, 1000]]],
    shown: (row) => `${row.key} ${row.sum}`,
    expected: ['key1 4', 'key2 4', 'key2 8'],
  },
  {
    name: 'testDeltaEvictorEvictAfter',
    plan: () =>
      input(20_000).keyBy('key').window(global())
        .aggregate({ sum: sum('value') }, { early: { count: 2 }, output: 'retracting', keep: { delta: 'last_value - value', threshold: 2, after: true } })
        .sink({ collection: 'out', keys: ['key'] }),
    batches: [
      [['key2', 1, 3000], ['key2', 4, 3999], ['key1', 1, 20], ['key1', 1, 0], ['key1', 5, 999], ['key2', 5, 1998], ['key2', 6, 1999], ['key2', 1, 1000]],
      [['key1', 9, 10_999], ['key2', 10, 1000]],
    ],
    shown: (row) => `${row.key} ${row.sum}`,
    expected: ['key1 16', 'key2 22'],
  },
];

const streams = `
  CREATE STREAM bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, \`dateTime\` TIMESTAMP NOT NULL,
    extra VARCHAR NOT NULL, WATERMARK FOR \`dateTime\` AS \`dateTime\` - INTERVAL '1000' SECOND);
  CREATE STREAM auction (id BIGINT NOT NULL, seller BIGINT NOT NULL, category BIGINT NOT NULL, \`dateTime\` TIMESTAMP NOT NULL,
    expires TIMESTAMP NOT NULL, WATERMARK FOR \`dateTime\` AS \`dateTime\` - INTERVAL '1000' SECOND);
  CREATE STREAM person (id BIGINT NOT NULL, name VARCHAR NOT NULL, city VARCHAR NOT NULL, state VARCHAR NOT NULL, \`dateTime\` TIMESTAMP NOT NULL,
    WATERMARK FOR \`dateTime\` AS \`dateTime\` - INTERVAL '1000' SECOND);`;
const row = { row: { type: 'int64', primaryKey: true } };
const [integer, time, text] = [{ type: 'int64' }, { type: 'timestamp' }, { type: 'varchar' }];
const tables = {
  bid: { fields: { ...row, auction: integer, bidder: integer, price: integer, dateTime: time, extra: text } },
  auction: { fields: { ...row, id: integer, seller: integer, category: integer, dateTime: time, expires: time } },
  person: { fields: { ...row, id: integer, name: text, city: text, state: text, dateTime: time } },
};

const tumble = (at) => Math.floor(at / (10 * second)) * 10 * second;
const grouped = (rows, key) => {
  const groups = new Map();
  for (const one of rows) groups.set(key(one), [...(groups.get(key(one)) ?? []), one]);
  return groups;
};

/**
 * Queries of Nexmark as they are written for Flink (https://github.com/nexmark/nexmark, as `src/stream/sql/nexmark.rs` has them), against
 * programs that look at all events at once.
 */
export const nexmark = [
  {
    name: 'q0',
    sql: 'SELECT auction, bidder, price, `dateTime`, extra FROM bid',
    expected: ({ bids }) => bids.map(({ auction, bidder, price, dateTime, extra }) => [auction, bidder, price, dateTime, extra]),
  },
  {
    name: 'q1',
    sql: 'SELECT auction, bidder, 0.908 * price as price, `dateTime`, extra FROM bid',
    expected: ({ bids }) => bids.map(({ auction, bidder, price, dateTime, extra }) => [auction, bidder, 0.908 * price, dateTime, extra]),
  },
  {
    name: 'q2',
    sql: 'SELECT auction, price FROM bid WHERE MOD(auction, 3) = 0',
    expected: ({ bids }) => bids.filter(({ auction }) => auction % 3 === 0).map(({ auction, price }) => [auction, price]),
  },
  {
    name: 'q3',
    sql: `SELECT P.name, P.city, P.state, A.id FROM auction AS A INNER JOIN person AS P on A.seller = P.id
      WHERE A.category = 10 and (P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA')`,
    expected: ({ auctions, people }) =>
      auctions.filter(({ category }) => category === 10).flatMap((auction) =>
        people.filter(({ id, state }) => id === auction.seller && ['OR', 'ID', 'CA'].includes(state)).map((person) => [person.name, person.city, person.state, auction.id])),
  },
  {
    name: 'q4',
    sql: `SELECT Q.category, AVG(Q.final) FROM (
        SELECT MAX(B.price) AS final, A.category FROM auction A, bid B
        WHERE A.id = B.auction AND B.\`dateTime\` BETWEEN A.\`dateTime\` AND A.expires GROUP BY A.id, A.category
      ) Q GROUP BY Q.category`,
    byCategory: true,
    expected: ({ bids, auctions }) => {
      const finals = auctions.flatMap(({ id, category, dateTime, expires }) => {
        const prices = bids.filter((bid) => bid.auction === id && dateTime <= bid.dateTime && bid.dateTime <= expires).map(({ price }) => price);
        return prices.length ? [{ category, price: Math.max(...prices) }] : [];
      });
      return [...grouped(finals, ({ category }) => category)].map(([category, all]) => [category, all.reduce((total, { price }) => total + price, 0) / all.length]);
    },
  },
  {
    name: 'q5',
    sql: `SELECT AuctionBids.auction, AuctionBids.num FROM (
        SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
        FROM TABLE(HOP(TABLE bid, DESCRIPTOR(\`dateTime\`), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end
      ) AS AuctionBids JOIN (
        SELECT max(CountBids.num) AS maxn, CountBids.starttime, CountBids.endtime FROM (
          SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
          FROM TABLE(HOP(TABLE bid, DESCRIPTOR(\`dateTime\`), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end
        ) AS CountBids GROUP BY CountBids.starttime, CountBids.endtime
      ) AS MaxBids ON AuctionBids.starttime = MaxBids.starttime AND AuctionBids.endtime = MaxBids.endtime AND AuctionBids.num >= MaxBids.maxn`,
    expected: ({ bids }) => {
      const inWindows = bids.flatMap((bid) => [0, 1, 2, 3, 4].map((back) => ({ ...bid, start: (Math.floor(bid.dateTime / (2 * second)) - back) * 2 * second })));
      return [...grouped(inWindows, ({ start }) => start).values()].flatMap((all) => {
        const counts = [...grouped(all, ({ auction }) => auction)].map(([auction, of]) => [auction, of.length]);
        const most = Math.max(...counts.map(([, num]) => num));
        return counts.filter(([, num]) => num === most);
      });
    },
  },
  {
    name: 'q7',
    sql: `SELECT B.auction, B.price, B.bidder, B.\`dateTime\`, B.extra from bid B JOIN (
        SELECT MAX(price) AS maxprice, window_end as \`dateTime\`
        FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(\`dateTime\`), INTERVAL '10' SECOND)) GROUP BY window_start, window_end
      ) B1 ON B.price = B1.maxprice WHERE B.\`dateTime\` BETWEEN B1.\`dateTime\` - INTERVAL '10' SECOND AND B1.\`dateTime\``,
    expected: ({ bids }) => {
      const best = [...grouped(bids, ({ dateTime }) => tumble(dateTime))].map(([start, all]) => ({ end: start + 10 * second, price: Math.max(...all.map(({ price }) => price)) }));
      return bids.flatMap(({ auction, price, bidder, dateTime, extra }) =>
        best.filter((one) => one.price === price && one.end - 10 * second <= dateTime && dateTime <= one.end).map(() => [auction, price, bidder, dateTime, extra]));
    },
  },
  {
    name: 'q8',
    sql: `SELECT P.id, P.name, P.starttime FROM (
        SELECT id, name, window_start AS starttime, window_end AS endtime
        FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(\`dateTime\`), INTERVAL '10' SECOND)) GROUP BY id, name, window_start, window_end
      ) P JOIN (
        SELECT seller, window_start AS starttime, window_end AS endtime
        FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(\`dateTime\`), INTERVAL '10' SECOND)) GROUP BY seller, window_start, window_end
      ) A ON P.id = A.seller AND P.starttime = A.starttime AND P.endtime = A.endtime`,
    expected: ({ auctions, people }) =>
      people.filter(({ id, dateTime }) => auctions.some((one) => one.seller === id && tumble(one.dateTime) === tumble(dateTime)))
        .map(({ id, name, dateTime }) => [id, name, tumble(dateTime)]),
  },
  {
    name: 'q11',
    sql: `SELECT B.bidder, count(*) as bid_count, SESSION_START(B.\`dateTime\`, INTERVAL '10' SECOND) as starttime,
        SESSION_END(B.\`dateTime\`, INTERVAL '10' SECOND) as endtime
      FROM bid B GROUP BY B.bidder, SESSION(B.\`dateTime\`, INTERVAL '10' SECOND)`,
    expected: ({ bids }) =>
      [...grouped(bids, ({ bidder }) => bidder)].flatMap(([bidder, all]) => {
        const sessions = [];
        for (const at of all.map(({ dateTime }) => dateTime).sort((a, b) => a - b)) {
          const open = sessions.at(-1);
          if (open && at <= open[3]) {
            open[3] = at + 10 * second;
            open[1] += 1;
          } else sessions.push([bidder, 1, at, at + 10 * second]);
        }
        return sessions;
      }),
  },
];

/** Numbers that a seed gives again. */
function random(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    return ((state ^ (state >>> 13)) >>> 0) % below;
  };
}

function nexmarkEvents(seed) {
  const next = random(seed);
  const bids = Array.from({ length: 60 }, (_, id) => ({
    row: id, auction: 1 + next(6), bidder: 1 + next(4), price: 1 + next(9), dateTime: next(90) * second, extra: `e${id}`,
  }));
  const auctions = Array.from({ length: 8 }, (_, id) => {
    const from = next(60);
    return { row: id, id: id + 1, seller: 1 + next(5), category: 9 + next(3), dateTime: from * second, expires: (from + next(40)) * second };
  });
  const people = Array.from({ length: 5 }, (_, id) => ({
    row: id, id: id + 1, name: `p${id}`, city: 'c', state: ['OR', 'CA', 'NY'][next(3)], dateTime: next(60) * second,
  }));
  return { bids, auctions, people };
}

const pauseMs = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until a pipeline has read all that is there. */
export async function settled(pipeline) {
  for (;;) {
    const { state, reason, sources } = await pipeline.status();
    if (state !== 'active' || reason) throw new Error(`pipeline ${pipeline.name} is ${state}: ${reason}`);
    if (sources.length > 0 && sources.every(({ behind, seeding }) => behind === 0 && !seeding)) return;
    await pauseMs(2);
  }
}

/** All rows that wait for the application: those that were told, without those that were taken back. */
async function told(pipeline) {
  const { unread } = await pipeline.status();
  const left = unread[0].rows;
  const rows = pipeline.rows();
  const found = [];
  while (found.length < left) found.push((await rows.next()).value);
  await rows.acknowledge();
  await rows.return();
  return found;
}

const same = (what, found, expected) => {
  const [left, right] = [found, expected].map((list) => JSON.stringify([...list].sort()));
  if (left !== right) throw new Error(`${what}: expected ${right}, got ${left}`);
};

async function runFlink(db, { name, plan, batches, stepwise, expected, shown: show = shown }) {
  const collection = await db.createCollection('events', events);
  const pipeline = await db.createPipeline(name, { plan: plan() });
  let id = 0;
  for (const batch of batches) {
    await collection.insert(rowsOf(batch).map((one) => ({ ...one, id: id++ })));
    if (stepwise) await settled(pipeline);
  }
  await settled(pipeline);
  await pipeline.pause();
  const rows = await db.collection('out').query({ outputFields: ['*'] });
  same(name, rows.map(show), expected);
  await pipeline.drop();
  for (const one of ['events', 'out']) await db.dropCollection(one);
}

async function runNexmark(db, { name, sql, byCategory, expected }, seed) {
  const all = nexmarkEvents(seed);
  // Some are there before the pipeline is, some come later; one of each comes last, so that all windows close.
  const last = {
    bid: { row: -1, auction: -1, bidder: -1, price: -1, dateTime: 1_000_000 * second, extra: '' },
    auction: { row: -1, id: -1, seller: -2, category: -1, dateTime: 1_000_000 * second, expires: 1_000_000 * second },
    person: { row: -1, id: -1, name: '', city: '', state: '', dateTime: 1_000_000 * second },
  };
  const rows = { bid: all.bids, auction: all.auctions, person: all.people };
  const collections = {};
  for (const [table, schema] of Object.entries(tables)) {
    collections[table] = await db.createCollection(table, schema);
    await collections[table].insert(rows[table].slice(0, 3));
  }
  const pipeline = await db.createPipeline(name, { sql: streams + sql });
  for (const [table, list] of Object.entries(rows)) await collections[table].insert([...list.slice(3), last[table]]);
  await settled(pipeline);
  await pipeline.pause();
  const found = new Map();
  for (const { row: one, takenBack } of await told(pipeline)) {
    const id = byCategory ? String(one.category) : JSON.stringify(one);
    if (byCategory) found.set(id, [one, 1]);
    else found.set(id, [one, (found.get(id)?.[1] ?? 0) + (takenBack ? -1 : 1)]);
  }
  // A message has its fields by the alphabet, not in the plan's order: rows are compared as sets of values.
  const listed = (values) => JSON.stringify(values.map((value) => JSON.stringify(value)).sort());
  const flush = (one) => [one.auction, one.id, one.bidder, one.category].some((value) => value < 0);
  const got = [...found.values()].filter(([one]) => !flush(one)).flatMap(([one, times]) => Array.from({ length: times }, () => listed(Object.values(one))));
  same(`${name}, seed ${seed}`, got, expected(all).map(listed));
  await pipeline.drop();
  for (const table of Object.keys(tables)) await db.dropCollection(table);
}

/** Functions of the application, of which some throw and some hang; what becomes of their rows. */
async function runFunctions(db) {
  const collection = await db.createCollection('events', events);
  const plan = source('events', { id: 'int64', key: 'varchar' })
    .call('words', { word: 'varchar', length: 'int64' })
    .sink({ collection: 'words' });
  const pipeline = await db.createPipeline('words', { plan, options: { deadLetters: 'dead', checkpointIntervalMs: 0 } });
  await collection.insert([{ id: 1, key: 'one two', value: 0, at: 0 }]);
  // It waits for its function.
  for (;;) {
    const { state, reason } = await pipeline.status();
    if (state !== 'active') throw new Error(`${state}: ${reason}`);
    if (reason?.[0] === 'unavailable' && reason[1].includes('"words"')) break;
    await pauseMs(2);
  }
  await db.setFunction(
    'words',
    ({ key }) => {
      if (key === 'throws') throw new Error('it threw');
      if (key === 'hangs') return new Promise(() => {});
      if (key === 'wrong') return [{ word: 5 }];
      if (key === 'text') return 'text';
      return key.split(' ').map((word) => ({ word, length: word.length }));
    },
    { timeoutMs: 50 },
  );
  await collection.insert(['throws', 'hangs', 'wrong', 'text', 'three'].map((key, at) => ({ id: at + 2, key, value: 0, at: 0 })));
  while ((await db.collection('words').count().catch(() => 0)) < 3 || (await db.collection('dead').count()) < 4) await pauseMs(5);
  same('words', (await db.collection('words').query({ outputFields: ['*'] })).map(({ word, length }) => `${word} ${length}`), ['one 3', 'two 3', 'three 5']);
  const reasons = (await db.collection('dead').query({ outputFields: ['*'] })).map(({ reason }) => reason);
  for (const part of ['it threw', 'no answer in 50 ms', '"word"', 'rows are objects, got string']) {
    if (!reasons.some((reason) => reason.includes(part))) throw new Error(`no dead letter says ${part}: ${reasons.join('; ')}`);
  }
  await db.removeFunction('words');
  await pipeline.drop();
  for (const one of ['events', 'words', 'dead']) await db.dropCollection(one);
}

/** The builder's operators beside windows, and queries in SQL. */
async function runBuilt(db) {
  const collection = await db.createCollection('events', events);
  const typed = source('events', { id: 'int64', key: 'varchar', value: 'int64', at: 'timestamp' }, { time: 'at' });
  const built = typed
    .filter('value > 1')
    .map({ id: 'id', key: 'key', half: double('value / 2.0') });
  const byKey = typed.keyBy('key').reduce({ rows: count(), most: max('value') });
  const plan = built.sink({ collection: 'halves', keys: ['id'] }).and(byKey.sink({ collection: 'latest', keys: ['key'] })).and(typed.distinct('key').sink({ name: 'new' }));
  const pipeline = await db.createPipeline('built', { plan });
  await collection.insert(rowsOf([['a', 1, 0], ['b', 4, 10], ['a', 3, 20]]));
  await settled(pipeline);
  await pipeline.pause();
  const all = async (name) => (await db.collection(name).query({ outputFields: ['*'] })).map((one) => JSON.stringify(one));
  same('map and filter', await all('halves'), [{ id: 1, key: 'b', half: 2 }, { id: 2, key: 'a', half: 1.5 }].map((one) => JSON.stringify(Object.fromEntries(Object.entries(one).sort()))));
  same('reduce', await all('latest'), [{ key: 'a', most: 3, rows: 2 }, { key: 'b', most: 4, rows: 1 }].map((one) => JSON.stringify(one)));
  same('distinct', (await told(pipeline)).map(({ row: one }) => one.key), ['a', 'b']);
  const { rows, columns } = await db.sql('SELECT key, sum(value) AS total FROM events WHERE value > {least} GROUP BY key', { least: 0 });
  same('sql', rows.map(({ key, total }) => `${key} ${total}`), ['a 4', 'b 4']);
  same('columns', columns.map(({ name }) => name), ['key', 'total']);
  const wrong = await db.sql('SELECT nothing FROM events').catch((error) => error);
  if (wrong.kind !== 'invalid_argument' || !Number.isInteger(wrong.position)) throw new Error(`${wrong.kind} at ${wrong.position}: ${wrong.message}`);
  await pipeline.drop();
  for (const one of ['events', 'halves', 'latest']) await db.dropCollection(one);
}

/** Rows whose vectors are near to those before are told with them. */
async function runDeduped(db) {
  const fields = { id: { type: 'int64', primaryKey: true }, v: { type: 'float_vector', dim: 2, metric: 'L2' }, at: { type: 'timestamp' } };
  const collection = await db.createCollection('docs', { fields });
  const docs = source('docs', { id: 'int64', v: { vector: 2 }, at: 'timestamp' }, { time: 'at' });
  const duplicates = { of: 'id', name: 'same', distance: 'far' };
  const fresh = docs.dedupe('v', { radius: 0.01, withinMs: 1_000, duplicates }).map({ id: 'id', same: 'same', isFar: bool('far > 0') });
  const pipeline = await db.createPipeline('deduped', { plan: fresh.sink({ name: 'told' }) });
  const row = (id, v, ms) => ({ id, v: new Float32Array(v), at: ms * 1_000 });
  // Told by time; the last waits for one that is later.
  await collection.insert([row(2, [2, 0.01], 500), row(1, [1, 0], 0), row(3, [0, 1], 900), row(4, [3, 0], 1_400), row(5, [0, 0], 9_000)]);
  await settled(pipeline);
  await pipeline.pause();
  const found = (await told(pipeline)).map(({ row: { id, same: other, isFar } }) => `${id} ${other} ${isFar}`);
  same('deduped', found, ['1 null false', '2 1 true', '3 null false', '4 null false']);
  const wrong = await db.createPipeline('wrong', { plan: docs.dedupe('v', { radius: 3, withinMs: 1_000 }).sink({ name: 'told' }) }).catch((error) => error);
  if (wrong.kind !== 'invalid_argument' || !wrong.message.includes('radius is 3, expected 0 to 2')) throw new Error(`${wrong.kind}: ${wrong.message}`);
  await pipeline.drop();
  await db.dropCollection('docs');
}

/** Windows by the clocks of a zone, which the host knows. */
async function runZones(db) {
  const collection = await db.createCollection('events', events);
  const micros = (text) => Date.parse(text) * 1_000;
  await collection.insert(zones.map(({ at }, id) => ({ id, key: 'k', value: 0, at: micros(at) })));
  const show = ({ start, end }) => `${start}..${end}`;
  for (const [id, { zone, hours, start, end }] of zones.entries()) {
    const { rows } = await db.sql(
      `SELECT window_start AS start, window_end AS "end" FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(at AT TIME ZONE '${zone}'), INTERVAL '${hours}' HOUR)) WHERE id = ${id}`,
    );
    same(`${hours} h in ${zone}`, rows.map(show), [show({ start: micros(start), end: micros(end) })]);
  }
  // The same through a pipeline, and a window that is longer when clocks are set back.
  const days = source('events', { at: 'timestamp' }, { time: 'at', delayMs: 20_000 * 86_400_000 });
  const plan = (zone) => days.window(tumbling(86_400_000, { zone })).aggregate({ rows: count() }).sink({ collection: 'days' });
  const wrong = await db.createPipeline('nowhere', { plan: plan('Europe/Nowhere') }).catch((error) => error);
  if (wrong.kind !== 'invalid_argument' || !wrong.message.includes('there is no time zone "Europe/Nowhere"')) throw new Error(`${wrong.kind}: ${wrong.message}`);
  const pipeline = await db.createPipeline('days', { plan: plan('Europe/Berlin') });
  await collection.insert([{ id: -1, key: 'end', value: 0, at: 40_100 * 86_400 * second }]);
  await settled(pipeline);
  await pipeline.pause();
  const rows = await db.collection('days').query({ outputFields: ['*'] });
  const back = rows.filter((row) => row.window_start === micros('2024-10-26T22:00Z')).map((row) => (row.window_end - row.window_start) / (3_600 * second));
  same('a day of 25 hours', back, [25]);
  await pipeline.drop();
  for (const one of ['events', 'days']) await db.dropCollection(one);
}

/** Waits until something is so. */
async function until(what, fact) {
  for (let tries = 0; !(await fact()); tries++) {
    if (tries > 5_000) throw new Error(`not so after long: ${what}`);
    await pauseMs(2);
  }
}

/** The event bus: routes, batches, aggregates, retries, dead letters, replays and another configuration. */
async function runBus(db) {
  const bus = db.bus();
  const collection = await db.createCollection('events', events);
  await collection.insert(rowsOf([['before', 1, 0]]));
  const told = { one: [], many: [], sums: [], big: [] };
  let failures = 0;
  const spec = {
    sources: { events: { collection: 'events', since: 'full', before: true }, app: {} },
    handlers: {
      one: {
        function: async (event) => {
          if (event.row.key === 'never') throw new Error('it throws');
          if (event.row.key === 'twice' && event.attempt === 1) {
            failures += 1;
            throw new Error('only now');
          }
          told.one.push(`${event.source} ${event.kind} ${event.key ?? '-'} ${event.row.key}${event.before ? ` was ${event.before.key}` : ''}${event.replayed ? ' again' : ''}`);
        },
        retry: { attempts: 2, delayMs: 1 },
      },
      many: { function: (all) => void told.many.push(all.length), batch: { events: 3, delayMs: 60_000 } },
      sums: { function: (all) => void told.sums.push(...all.map(({ row: one }) => `${one.key} ${one.n} ${one.total}`)), aggregate: { by: ['key'], events: 4, delayMs: 60_000, values: { n: { function: 'count' }, total: { function: 'sum', of: 'value' } } } },
      big: { cases: [{ filter: 'value > 5', function: (event) => void told.big.push(event.row.value) }] },
      hangs: { function: () => new Promise(() => {}), timeoutMs: 30, retry: { attempts: 1 } },
    },
    routes: [
      { from: ['events'], to: ['one', 'big'] },
      { from: ['app'], kinds: ['count'], to: ['many', 'sums'] },
      { from: ['app'], kinds: ['hang'], to: ['hangs'] },
    ],
    deadLetters: 'dead',
  };
  await bus.configure(spec);
  // All that is there is read as of the first step.
  await until('the first is read', () => told.one.length === 1);
  await collection.insert([{ id: 1, key: 'never', value: 9, at: 0 }, { id: 2, key: 'twice', value: 3, at: 0 }]);
  await collection.upsert([{ id: 0, key: 'after', value: 2, at: 0 }]);
  await collection.delete({ keys: [2] });
  const app = (kind, key, value) => ({ kind, row: { key, value } });
  same('published', await bus.publish('app', [app('count', 'a', 1), app('count', 'b', 2), app('count', 'a', 3), app('count', 'a', 4), app('other', 'a', 5), app('hang', 'h', 0)]), [2, 2, 2, 2, 0, 1]);
  const idle = async () => (await bus.status()).handlers.every(({ queued, inFlight, name }) => name === 'many' || queued + inFlight === 0) && (await bus.status()).sources.every(({ behind }) => behind === 0);
  await until('the bus is idle', async () => told.one.length >= 4 && (await db.collection('dead').count()) === 2 && (await idle()));
  same('one', told.one, ['events read 0 before', 'events insert 2 twice', 'events update 0 after was before', 'events delete 2 twice']);
  if (failures !== 2) throw new Error(`${failures} failures, expected 2`);
  same('many', told.many, [3]);
  same('sums', told.sums, ['a 3 8', 'b 1 2']);
  same('big', told.big, [9]);
  same('dead', (await db.collection('dead').query({ outputFields: ['node', 'reason'] })).map(({ node, reason }) => `${node}: ${reason}`), ['one: it throws', 'hangs: no answer in 30 ms']);
  // What waits for a batch is handled by what the handler does then.
  await bus.configure({ ...spec, handlers: { ...spec.handlers, many: { function: (all) => void told.many.push(`all ${all.length}`), batch: { events: 1 } } } });
  await until('the batch is handled', () => told.many.length === 2);
  same('many, changed', told.many, [3, 'all 1']);
  told.one.length = 0;
  await collection.insert([{ id: 3, key: 'new', value: 1, at: 0 }]);
  await until('the change is handled', () => told.one.length === 1);
  const { sources } = await bus.status();
  const replay = await bus.replay({ source: 'events', since: 'full', handlers: ['one'] });
  await until('the replay is done', async () => (await bus.status()).replays.find(({ id }) => id === replay.id).state === 'done' && (await idle()));
  same('replayed', told.one.filter((one) => one.endsWith('again')), ['events read 0 after again', 'events read 3 new again']);
  if ((await replay.cancel()) !== false || typeof sources.find(({ name }) => name === 'events').token !== 'string') throw new Error('no token');
  for (const [wrong, part] of [
    [{ ...spec, routes: [{ to: ['none'] }] }, 'routes[0].to[0]'],
    [{ handlers: { a: { function: 'f', retry: { attempts: 0 } } } }, 'handlers.a.retry.attempts'],
    [{ sources: { a: { collection: 'none' } } }, 'sources.a'],
  ]) {
    const error = await bus.configure(wrong).then(() => undefined, (thrown) => thrown);
    if (!error?.message.includes(part)) throw new Error(`expected ${part}, got ${error?.kind}: ${error?.message}`);
  }
  // Then it does what it did, with the functions that it had.
  const other = { ...spec.handlers.one, function: () => void told.one.push('not this one') };
  if (await bus.configure({ ...spec, handlers: { ...spec.handlers, one: other }, routes: [{ to: ['none'] }] }).then(() => true, () => false)) throw new Error('a route to nobody was taken');
  told.one.length = 0;
  await collection.insert([{ id: 4, key: 'last', value: 1, at: 0 }]);
  await until('the last is handled', () => told.one.length === 1);
  same('one, not changed', told.one, ['events insert 4 last']);
  await bus.configure({});
  if (Object.keys(await collection.subscriptions()).length > 0) throw new Error('something is kept for a bus that is none');
  for (const one of ['events', 'dead', 'dead_letters']) await db.dropCollection(one);
}

/** All of it; tells how many cases were run. */
export async function runAll(db, seeds = [1, 2]) {
  let cases = 0;
  for (const one of flink) await runFlink(db, one).then(() => (cases += 1));
  for (const one of nexmark) for (const seed of seeds) await runNexmark(db, one, seed).then(() => (cases += 1));
  await runFunctions(db);
  await runBuilt(db);
  await runDeduped(db);
  await runZones(db);
  await runBus(db);
  return cases + 5;
}
