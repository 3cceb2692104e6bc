// Chromium killed in mid-write, every process of it at once, and opened again on the same profile: what was acknowledged is there, and a
// write that was under way is there wholly or not at all. `npm run kills -- --browser N` kills it N times on each storage.

import assert from 'node:assert/strict';
import test from 'node:test';

import { launch, openPage, serveFiles } from '../support/browser.mjs';
import { random } from '../support/vectors.mjs';

const killsMax = Number(process.env.EDDY_BROWSER_KILLS ?? 3);
const writers = 3;

/** What a write makes of the rows of its writer: key to the number of the write, undefined for a deleted one. */
function apply(rows, { number, keys, deleted }) {
  const after = new Map(rows);
  for (const key of deleted) after.delete(key);
  for (const key of keys) after.set(key, number);
  return after;
}

const same = (a, b) => a.size === b.size && [...a].every(([key, number]) => b.get(key) === number);

/** Runs in the page: looks at what is there, then writes until the browser dies. */
async function writeOn({ storage, seed, writers }) {
  const { eddydb, vectors } = window;
  const db = await eddydb.open({ name: 'killed', storage });
  const notes = await db.createCollection('notes', vectors.schema, { ifNotExists: true });
  const rows = await notes.query({ outputFields: ['id', 'year', 'title', 'embedding'] });
  const found = rows.map(({ id, year, title, embedding }) => {
    const whole = title === `write ${year}` && embedding.every((value, at) => value === Math.fround(at === 0 ? year : id));
    return { key: id, number: year, whole };
  });
  window.go = () => {
    for (let writer = 0; writer < writers; writer++) {
      void (async () => {
        const next = vectors.random(seed * 31 + writer);
        const below = (bound) => Math.floor(next() * bound);
        for (;;) {
          const all = Array.from({ length: 1 + below(25) }, () => writer * 1000 + below(80));
          const deleted = [...new Set(all.filter((_, at) => at % 3 === 2))];
          const keys = [...new Set(all)].filter((key) => !deleted.includes(key));
          // Told before it is begun: what the test does not know of cannot be looked for.
          const number = await window.begin(writer, keys, deleted);
          const rows = keys.map((id) => ({ id, title: `write ${number}`, year: number, embedding: Float32Array.from({ length: vectors.dim }, (_, at) => (at === 0 ? number : id)) }));
          await notes.batch([{ delete: { keys: deleted } }, { upsert: rows }]);
          await window.acknowledge(writer, number);
          if (number % 40 === 0) await (number % 80 ? notes.flush() : notes.compact());
        }
      })();
    }
  };
  return found;
}

for (const storage of ['opfs', 'indexeddb']) {
  test(`killed in mid-write ${killsMax} times on ${storage}: what was acknowledged is there`, async (t) => {
    const url = await serveFiles(t);
    const seed = Number(process.env.EDDY_BROWSER_KILLS_SEED ?? killsMax);
    const next = random(seed);
    const records = Array.from({ length: writers }, () => ({ rows: new Map(), open: undefined }));
    let [number, acknowledged, survived, lost] = [0, 0, 0, 0];
    let profile;
    for (let kill = 0; kill <= killsMax; kill++) {
      const browser = await launch(t, profile);
      profile = browser.profile;
      const page = await openPage(t, browser.context, url);
      let left = 5 + Math.floor(next() * 60);
      let enough;
      const reached = new Promise((resolve) => (enough = resolve));
      await page.exposeFunction('begin', (writer, keys, deleted) => {
        number++;
        records[writer].open = { number, keys, deleted };
        return number;
      });
      await page.exposeFunction('acknowledge', (writer, number) => {
        const record = records[writer];
        assert.equal(record.open.number, number);
        record.rows = apply(record.rows, record.open);
        record.open = undefined;
        acknowledged++;
        if (--left === 0) enough();
      });
      const rows = await page.evaluate(writeOn, { storage, seed: seed * 1000 + kill, writers });
      records.forEach((record, writer) => {
        const where = `seed ${seed}, kill ${kill}, writer ${writer}`;
        const own = rows.filter(({ key }) => Math.floor(key / 1000) === writer);
        for (const row of own) assert.ok(row.whole, `${where}: row ${row.key} is not that of one write`);
        const found = new Map(own.map(({ key, number }) => [key, number]));
        assert.equal(found.size, own.length, `${where}: a key is there twice`);
        const withOpen = record.open && apply(record.rows, record.open);
        if (withOpen && same(found, withOpen)) {
          survived++;
          record.rows = withOpen;
        } else {
          lost += Number(record.open !== undefined);
          assert.deepEqual(Object.fromEntries(found), Object.fromEntries(record.rows), `${where}; under way: ${JSON.stringify(record.open)}`);
        }
        record.open = undefined;
      });
      if (kill < killsMax) {
        await page.evaluate(() => window.go());
        await reached;
      }
      await browser.kill();
    }
    t.diagnostic(`${killsMax} kills: ${acknowledged} acknowledged writes, all there; of those under way ${survived} were there and ${lost} were not`);
  });
}
