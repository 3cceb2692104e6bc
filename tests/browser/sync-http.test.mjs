// Sync from a page of another origin, behind a proxy that lets no WebSocket through.

import assert from 'node:assert/strict';
import test from 'node:test';

import { launch, openPage, serveFiles } from '../support/browser.mjs';
import { Proxy } from '../support/proxy.mjs';
import { Server } from '../support/server.mjs';

test('a page syncs by requests where no WebSocket gets through, when its origin is allowed', async (t) => {
  const url = await serveFiles(t);
  const server = await Server.start({ more: ['--allow-origin', new URL(url).origin] });
  t.after(() => server.remove());
  const files = [];
  const answers = ({ method, url }) => {
    if (method === 'GET' && url.startsWith('/sync/files/')) files.push(url);
    return false;
  };
  const proxy = await Proxy.start(server.url, { answers });
  t.after(() => proxy.stop());
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const there = await page.evaluate(async (sync) => {
    const { eddydb, vectors } = window;
    const db = await eddydb.open({ name: 'behind', storage: 'memory' });
    const notes = await db.createCollection('notes', vectors.schema);
    await notes.insert(vectors.makeRows(2000));
    const session = db.sync({ url: sync, collections: ['notes'] });
    await new Promise((resolve) => {
      const look = (status) => status.state === 'live' && status.pending === 0 && status.lastSyncedAt !== undefined && resolve();
      session.onStatus(look);
      look(session.status);
    });
    await db.close();
    return true;
  }, proxy.sync);
  assert.ok(there);
  assert.equal((await server.post('/api/collections/notes/count')).count, 2000);
  assert.ok(proxy.upgrades > 0 && proxy.requests > 2);

  // Another one gets files, each by one request.
  await server.post('/api/flush');
  const count = await page.evaluate(async (sync) => {
    const db = await window.eddydb.open({ name: 'new', storage: 'opfs' });
    const session = db.sync({ url: sync, collections: ['notes'] });
    await new Promise((resolve) => {
      const look = ({ state, lastSyncedAt, download }) => state === 'live' && lastSyncedAt !== undefined && download === undefined && resolve();
      session.onStatus(look);
      look(session.status);
    });
    const count = await db.collection('notes').count();
    await db.close();
    return count;
  }, proxy.sync);
  assert.equal(count, 2000);
  assert.ok(files.length > 0);
  assert.equal(new Set(files).size, files.length);
});
