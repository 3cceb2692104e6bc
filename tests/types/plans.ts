// What the compiler makes of a plan that is built: right when it compiles.

import { open, type BusEvent, type PipelineRow, type PipelineSpec } from 'eddydb';
import { bool, collect, count, countWindow, cumulate, double, max, sliding, source, sum, tumbling, type Stream, type StreamPlan } from 'eddydb/plan';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function expectRow<Expected>() {
  return <Actual extends object>(_stream: Stream<Actual>, ..._equal: Equal<Actual, Expected> extends true ? [] : [{ got: Actual; expected: Expected }]): void => {};
}

const bids = source(
  'bid',
  { auction: 'int64', price: 'int64', note: 'varchar?', at: 'timestamp', tags: 'json', v: { vector: 3 } },
  { time: 'at', delayMs: 5_000, collection: 'bids' },
);
expectRow<{ auction: number; price: number; note: string | null; at: number; tags: unknown; v: Float32Array }>()(bids);

source('bid', { auction: 'int64' }, { since: 'earliest', pace: 10 });
// @ts-expect-error a number
source('bid', { auction: 'int64' }, { since: 'earliest', pace: 'fast' });
// @ts-expect-error no such field
source('bid', { auction: 'int64' }, { time: 'at' });
// @ts-expect-error no such type
source('bid', { auction: 'int65' });

const mapped = bids.filter('price > 10').map({ auction: 'auction', euro: double('0.908 * price'), high: bool('price > 100'), who: 'note' });
expectRow<{ auction: number; euro: number; high: boolean; who: string | null }>()(mapped);
// @ts-expect-error no such field
bids.map({ auction: 'auctions' });

expectRow<{ auction: number; price: number; note: string | null; at: number; tags: unknown; v: Float32Array; tag: string | null }>()(bids.flatMap('tags', 'tag', 'varchar'));

const counted = bids.keyBy('auction').window(tumbling(10_000)).aggregate({ bids: count(), best: max('price'), notes: collect<string>('note', 10) });
expectRow<{ auction: number; window_start: number; window_end: number; bids: number; best: number | null; notes: string[] }>()(counted);
// A window of a number of rows has no bounds in time.
expectRow<{ auction: number; sum: number | null }>()(bids.keyBy('auction').window(countWindow(4)).aggregate({ sum: sum('price').where('price > 1') }));
expectRow<{ bids: number; window_start: number; window_end: number }>()(bids.window(tumbling(1_000)).aggregate({ bids: count() }));
expectRow<{ auction: number; bids: number }>()(bids.keyBy('auction').reduce({ bids: count() }));
expectRow<{ bids: number; window_start: number; window_end: number }>()(
  bids.window(cumulate(86_400_000, 3_600_000, { zone: 'Europe/Berlin', offsetMs: 0 })).aggregate({ bids: count() }),
);
bids.window(tumbling(1_000)).aggregate({ bids: count() }, { keep: { delta: 'last_price - price', threshold: 2, after: true } });
// @ts-expect-error a delta has a threshold
bids.window(tumbling(1_000)).aggregate({ bids: count() }, { keep: { delta: 'last_price - price' } });
// @ts-expect-error a name, not a number of hours
sliding(86_400_000, 3_600_000, { zone: 2 });
// @ts-expect-error no such key
bids.keyBy('bidder');
// @ts-expect-error an aggregate, not text
bids.keyBy('auction').window(tumbling(1_000)).aggregate({ bids: 'count' });

const auctions = source('auction', { id: 'int64', price: 'double' });
const joined = mapped.join(auctions, { on: [['auction', 'id']], within: { fromMs: 0, toMs: 1_000 } });
expectRow<{ auction: number; euro: number; high: boolean; who: string | null; id: number; price: number }>()(joined);
expectRow<{ auction: number; price: number; note: string | null; at: number; tags: unknown; v: Float32Array; id: number; right_price: number }>()(
  bids.join(auctions, { on: [['auction', 'id']], within: 'unbounded' }),
);
// @ts-expect-error windows of a number of rows join nothing
bids.join(auctions, { on: [['auction', 'id']], within: countWindow(5) });
// @ts-expect-error no such field of the other
bids.join(auctions, { on: [['auction', 'auction']], within: 'unbounded' });

expectRow<{ auction: number; price: number; note: string | null; at: number; tags: unknown; v: Float32Array }>()(bids.dedupe('v', { radius: 0.1, withinMs: 60_000 }));
const near = bids.dedupe('v', { radius: 1, withinMs: 1_000, metric: 'l2', keys: ['note'], duplicates: { of: 'auction', name: 'same', distance: 'far' } });
expectRow<{ auction: number; price: number; note: string | null; at: number; tags: unknown; v: Float32Array; same: number | null; far: number | null }>()(near);
// @ts-expect-error no such field
bids.dedupe('w', { radius: 0.1, withinMs: 60_000 });
expectRow<{ word: string; length: number }>()(bids.call('words', { word: 'varchar', length: 'int64' }));
const plan: StreamPlan = bids.keyBy('auction').limit(3, { orderBy: [{ by: 'price', descending: true }] }).sink({ collection: 'best', keys: ['auction'] });
// @ts-expect-error no such field
bids.sink({ collection: 'best', keys: ['bidder'] });

const db = await open({ name: 'plans', streams: true });
const pipeline = await db.createPipeline('best', { plan, options: { guarantee: 'exactlyOnce', keepRows: 10 } });
await db.createPipeline('sql', { sql: 'SELECT {n} AS n FROM bid', params: { n: 1 } });
// @ts-expect-error SQL or a plan
const neither: PipelineSpec = { options: {} };
// @ts-expect-error no such guarantee
await db.createPipeline('wrong', { plan, options: { guarantee: 'twice' } });
for await (const told of pipeline.rows<{ auction: number }>()) {
  const row: PipelineRow<{ auction: number }> = told;
  await pipeline.rows().acknowledge(row.position);
}
await db.setFunction('words', ({ note }) => String(note).split(' ').map((word) => ({ word, length: word.length })), { timeoutMs: 100 });
const { rows } = await db.sql<{ total: number }>('SELECT sum(price) AS total FROM bids');
const total: number | undefined = rows[0]?.total;
const bus = db.bus();
await bus.configure({
  sources: { bids: { collection: 'bids', before: true }, app: {} },
  handlers: {
    one: { function: (event) => event.row['price'], retry: { attempts: 2 } },
    many: { function: (events: BusEvent[]) => events.map(({ row }) => row), batch: { events: 10 } },
    sums: { function: (events: BusEvent[]) => events.length, aggregate: { by: ['auction'], values: { n: { function: 'count' } } } },
    either: { cases: [{ filter: 'price > 5', function: ({ attempt }) => attempt + 1 }], otherwise: 'named' },
    copy: { collection: 'copies' },
  },
  routes: [{ from: ['bids'], kinds: ['insert'], priority: 1, to: ['one', 'many'] }],
});
// @ts-expect-error without a batch it is one event
await bus.configure({ handlers: { one: { function: (events: BusEvent[]) => events.length } } });
// @ts-expect-error nobody who handles
await bus.configure({ handlers: { one: { retry: {} } } });
const counts: number[] = await bus.publish('app', [{ kind: 'login', row: { user: 'ann' } }]);
const { cancel } = await bus.replay({ source: 'bids', speed: 2 });
const cancelled: boolean = await cancel();
export { cancelled, counts, neither, total };
