// Sync of the package where no WebSocket gets through.

import assert from 'node:assert/strict';
import test from 'node:test';

import { open } from 'eddydb';

import { Proxy } from '../support/proxy.mjs';
import { Server } from '../support/server.mjs';
import { done, statusOf } from '../support/sync.mjs';
import { makeRows, schema } from '../support/vectors.mjs';

/** Two replicas, one of them behind a proxy. */
async function pair(t, options) {
  const server = await Server.start();
  t.after(() => server.remove());
  const proxy = await Proxy.start(server.url, options);
  t.after(() => proxy.stop());
  const [here, there] = await Promise.all(['here', 'there'].map((name) => open({ name, storage: 'memory' })));
  t.after(() => Promise.all([here.close(), there.close()]));
  return { server, proxy, here, there };
}

test('requests take the place of a WebSocket that a proxy refuses, both ways and after the hub was killed', async (t) => {
  const { server, proxy, here, there } = await pair(t);
  const rows = makeRows(3_000);
  const notes = await here.createCollection('notes', schema);
  await notes.insert(rows);
  const behind = here.sync({ url: proxy.sync, collections: ['notes'] });
  await statusOf(behind, done);
  assert.ok(proxy.upgrades > 0 && proxy.requests > 2, `${proxy.upgrades} and ${proxy.requests}`);
  const direct = there.sync({ url: server.sync, collections: ['notes'] });
  await statusOf(direct, done);
  const others = there.collection('notes');
  assert.equal(await others.count(), 3_000);
  await others.delete({ keys: [3, 4] });
  await notes.upsert([{ ...rows[5], title: 'from behind the proxy' }]);
  const same = async () => (await notes.count()) === 2_998 && (await others.get([5]))[0].title === 'from behind the proxy';
  while (!(await same())) await new Promise((resolve) => setTimeout(resolve, 10));

  await server.kill();
  await statusOf(behind, (status) => status.state === 'offline');
  await notes.upsert([{ ...rows[6], title: 'while it was away' }]);
  await server.restart();
  while ((await others.get([6]))[0].title !== 'while it was away') await new Promise((resolve) => setTimeout(resolve, 10));
  await statusOf(behind, done);

  await behind.stop();
  await direct.stop();
});

test('and of one that is never answered', async (t) => {
  const { proxy, here } = await pair(t, { swallowed: true });
  const notes = await here.createCollection('notes', schema);
  await notes.insert(makeRows(10));
  await statusOf(here.sync({ url: proxy.sync, collections: ['notes'] }), done);
  assert.equal(proxy.upgrades, 1);
});

test('a server without the requests is no hub', async (t) => {
  const { proxy, here } = await pair(t);
  await here.createCollection('notes', schema);
  const sync = here.sync({ url: proxy.sync.replace(/sync$/, 'elsewhere'), collections: ['notes'] });
  const { error } = await statusOf(sync, (status) => status.state === 'offline' && status.error !== undefined);
  assert.equal(error.kind, 'unavailable');
  assert.match(error.message, /does not answer, or not as a hub does/);
});
