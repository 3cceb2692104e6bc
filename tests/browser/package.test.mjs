// The package in Chromium and in Firefox, from a plain static host.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';

import { firefox, launch, openPage, serveFiles } from '../support/browser.mjs';

test('rows survive a reload, in the origin private file system', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const wrote = await page.evaluate(async () => {
    const { eddydb, vectors } = window;
    const db = await eddydb.open({ name: 'reload' });
    const notes = await db.createCollection('notes', vectors.schema);
    const rows = vectors.makeRows(400);
    await notes.insert(rows.slice(0, 300));
    await notes.flush();
    await notes.insert(rows.slice(300));
    await notes.delete({ keys: [5] });
    const { hits } = await notes.search({ vector: rows[42].embedding, limit: 5, exact: true });
    return hits.map((hit) => hit.key);
  });
  await page.reload();
  await page.waitForFunction(() => 'eddydb' in window);
  const read = await page.evaluate(async () => {
    const { eddydb, vectors } = window;
    const db = await eddydb.open({ name: 'reload' });
    const notes = db.collection('notes');
    const rows = vectors.makeRows(400);
    const { hits } = await notes.search({ vector: rows[42].embedding, limit: 5, exact: true });
    const [row] = await notes.get([377], { outputFields: ['*'] });
    const same = row.embedding.every((number, index) => number === rows[377].embedding[index]);
    const result = { count: await notes.count(), keys: hits.map((hit) => hit.key), title: row.title, same, gone: (await notes.get([5])).length };
    await db.close();
    return result;
  });
  assert.deepEqual(read, { count: 399, keys: wrote, title: 'row 377', same: true, gone: 0 });
  assert.deepEqual(page.noise, []);
});

test('the engine is in the worker: the page compiles no WebAssembly, and its tasks run during a large insert', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const result = await page.evaluate(async () => {
    const { eddydb, vectors } = window;
    let compiled = 0;
    for (const name of ['compile', 'compileStreaming', 'instantiate', 'instantiateStreaming']) {
      const original = WebAssembly[name];
      WebAssembly[name] = (...args) => (compiled++, original.apply(WebAssembly, args));
    }
    const db = await eddydb.open({ name: 'busy' });
    const notes = await db.createCollection('notes', vectors.schema);
    const rows = vectors.makeRows(5000);
    let done = false;
    const insert = notes.insert(rows).then(() => (done = true));
    // Each turn is a task of the page, so it ends only when the page's thread is free.
    let turns = 0;
    const channel = new MessageChannel();
    while (!done) {
      await new Promise((resolve) => {
        channel.port1.onmessage = resolve;
        channel.port2.postMessage(0);
      });
      turns++;
    }
    await insert;
    const count = await notes.count();
    await db.close();
    const loaded = performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname);
    return { compiled, turns, count, loaded };
  });
  assert.equal(result.compiled, 0);
  assert.equal(result.count, 5000);
  assert.ok(result.turns > 20, `${result.turns} tasks ran meanwhile`);
  assert.ok(!result.loaded.some((path) => path.endsWith('.wasm')), 'the page loaded the WebAssembly itself');
  assert.deepEqual(page.noise, []);
});

test('requests go before background work, and searches are right while it lasts', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const result = await page.evaluate(async () => {
    const { eddydb, vectors } = window;
    const db = await eddydb.open({ name: 'background', storage: 'memory' });
    const notes = await db.createCollection('notes', vectors.schema);
    const rows = vectors.makeRows(4000);
    await notes.insert(rows);
    const unindexed = [];
    let wrong = 0;
    let query = 0;
    do {
      const vector = rows[query++ % rows.length].embedding;
      const { hits } = await notes.search({ vector, limit: 1, exact: true });
      if (hits[0].key !== vectors.nearest(rows, vector, 1)[0].key) wrong++;
      unindexed.push((await notes.stats()).rowsUnindexed);
    } while (unindexed.at(-1) > 0);
    await db.close();
    return { unindexed, wrong };
  });
  assert.equal(result.wrong, 0);
  assert.ok(result.unindexed.length > 2, 'the index was built before a request was answered');
  assert.equal(result.unindexed.at(-1), 0);
});

test('without WebAssembly SIMD, the plain build answers the same', async (t) => {
  const asked = [];
  const url = await serveFiles(t, {
    change: (path, file) => {
      if (path.endsWith('.wasm')) asked.push(path.split('/').pop());
      return path.endsWith('/worker.js') ? `WebAssembly.validate = () => false;\n${readFileSync(file, 'utf8')}` : undefined;
    },
  });
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const keys = await page.evaluate(async () => {
    const { eddydb, vectors } = window;
    const db = await eddydb.open({ name: 'plain', storage: 'memory' });
    const notes = await db.createCollection('notes', vectors.schema);
    const rows = vectors.makeRows(500);
    await notes.insert(rows);
    const { hits } = await notes.search({ vector: rows[9].embedding, limit: 8, exact: true });
    await db.close();
    return [hits.map((hit) => hit.key), vectors.nearest(rows, rows[9].embedding, 8).map((hit) => hit.key)];
  });
  assert.deepEqual(keys[0], keys[1]);
  assert.deepEqual(asked, ['eddydb_plain.wasm']);
});

test('a database with streams takes the full build alone', async (t) => {
  const asked = [];
  const url = await serveFiles(t, { change: (path) => void (path.endsWith('.wasm') && asked.push(path.split('/').pop())) });
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const key = await page.evaluate(async () => {
    const { eddydb, vectors } = window;
    // Workers beside the engine are of its build.
    const db = await eddydb.open({ name: 'full', storage: 'memory', streams: true, workers: 1 });
    const notes = await db.createCollection('notes', vectors.schema);
    const rows = vectors.makeRows(500);
    await notes.insert(rows);
    await notes.flush();
    const { hits } = await notes.search({ vector: rows[9].embedding, limit: 1, exact: true });
    const { pool } = await db.stats();
    await db.close();
    return [hits[0].key, rows[9].id, pool.failures];
  });
  assert.deepEqual([key[0], key[2]], [key[1], 0]);
  assert.deepEqual(asked, ['eddydb_full.wasm']);
});

test('a host that does not know the type of .wasm will do', async (t) => {
  const url = await serveFiles(t, { wasmType: 'application/octet-stream' });
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const names = await page.evaluate(async () => {
    const db = await window.eddydb.open({ name: 'typeless', storage: 'memory' });
    return db.collections();
  });
  assert.deepEqual(names, []);
  assert.deepEqual(page.noise, []);
});

test('a host without the worker or the WebAssembly: unavailable, with a reason', async (t) => {
  for (const missing of ['/worker.js', '.wasm']) {
    const url = await serveFiles(t, { change: (path) => (path.endsWith(missing) ? '' : undefined) });
    const { context } = await launch(t);
    const page = await openPage(t, context, url);
    const error = await page.evaluate(async (missing) => {
      // An empty worker never answers; a missing one says so. The empty WebAssembly is what a truncated download looks like.
      if (missing === '/worker.js') {
        const original = window.Worker;
        window.Worker = class extends original {
          constructor(_url, options) {
            super('/missing.js', options);
          }
        };
      }
      return window.eddydb.open({ name: 'missing', storage: 'memory' }).then(
        () => 'opened',
        (error) => ({ name: error.name, kind: error.kind, message: error.message }),
      );
    }, missing);
    assert.equal(error.name, 'EddyError');
    assert.equal(error.kind, 'unavailable');
    assert.match(error.message, missing === '.wasm' ? /WebAssembly/ : /worker/);
  }
});

test('inside a worker: with a worker of its own, and without', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  for (const [prelude, storage] of [['', 'opfs'], ['delete globalThis.Worker;', 'opfs'], ['delete globalThis.Worker;', 'memory']]) {
    const result = await page.evaluate(
      async ([prelude, storage]) => {
        const program = `${prelude}
          import { open } from '${location.origin}/pkg/dist/browser.js';
          import { makeRows, schema } from '${location.origin}/tests/support/vectors.mjs';
          try {
            const db = await open({ name: 'inside', storage: '${storage}' });
            const notes = await db.createCollection('notes', schema, { ifNotExists: true });
            await notes.upsert(makeRows(20));
            postMessage({ count: await notes.count(), worker: typeof Worker });
            await db.close();
            postMessage('closed');
          } catch (error) { postMessage(error.kind + ': ' + error.message); }`;
        const worker = new Worker(URL.createObjectURL(new Blob([program], { type: 'text/javascript' })), { type: 'module' });
        const messages = [];
        await new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => {
            messages.push(data);
            if (typeof data === 'string') resolve();
          };
          worker.onerror = (event) => reject(new Error(event.message));
        });
        worker.terminate();
        return messages;
      },
      [prelude, storage],
    );
    assert.deepEqual(result, [{ count: 20, worker: prelude ? 'undefined' : 'function' }, 'closed']);
  }
});

test('a panic of the engine: internal, for what waits and for everything after', async (t) => {
  const url = await serveFiles(t, {
    // The engine draws a replica id when it makes a store, and has no way on without randomness.
    change: (path, file) =>
      path.endsWith('/worker.js') ? `crypto.getRandomValues = () => { throw new Error('no randomness'); };\n${readFileSync(file, 'utf8')}` : undefined,
  });
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const error = await page.evaluate(() =>
    window.eddydb.open({ name: 'panic', storage: 'memory' }).then(
      () => 'opened',
      (error) => ({ name: error.name, kind: error.kind, message: error.message }),
    ),
  );
  assert.equal(error.kind, 'internal');
  assert.match(error.message, /engine stopped.*random/s);
});

// Only DevTools can limit what an origin may store.
if (!firefox) test('full quota: storage_full, and everything acknowledged stays readable', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const devtools = await context.newCDPSession(page);
  const limit = (quotaSize) => devtools.send('Storage.overrideQuotaForOrigin', { origin: new URL(url).origin, ...(quotaSize && { quotaSize }) });
  await limit(2_000_000);
  const full = await page.evaluate(async () => {
    const { eddydb, vectors } = window;
    const db = await eddydb.open({ name: 'quota' });
    const notes = await db.createCollection('notes', vectors.schema);
    let acknowledged = 0;
    let failure;
    while (!failure && acknowledged < 100_000) {
      await notes.insert(vectors.makeRows(200, { first: acknowledged })).then(
        () => (acknowledged += 200),
        (error) => (failure = { kind: error.kind, message: error.message }),
      );
    }
    Object.assign(window, { db, notes });
    return { failure, acknowledged, count: await notes.count() };
  });
  assert.equal(full.failure?.kind, 'storage_full', full.failure?.message);
  assert.ok(full.acknowledged > 0);
  assert.equal(full.count, full.acknowledged);

  // With room again, the same database goes on; and after a reload everything is there.
  await limit(undefined);
  await page.evaluate(async (first) => {
    await window.notes.insert(window.vectors.makeRows(200, { first }));
    await window.db.close();
  }, full.acknowledged);
  await page.reload();
  await page.waitForFunction(() => 'eddydb' in window);
  const ids = await page.evaluate(async () => {
    const db = await window.eddydb.open({ name: 'quota' });
    return (await db.collection('notes').query({ outputFields: ['id'] })).map((row) => row.id);
  });
  assert.deepEqual(ids, Array.from({ length: full.acknowledged + 200 }, (_, id) => id));
});

test('a damaged file: corrupt, and the error names it', async (t) => {
  const url = await serveFiles(t);
  const { context } = await launch(t);
  const page = await openPage(t, context, url);
  const error = await page.evaluate(async () => {
    const { eddydb, vectors } = window;
    const db = await eddydb.open({ name: 'damage' });
    const notes = await db.createCollection('notes', vectors.schema);
    await notes.insert(vectors.makeRows(300));
    await notes.flush();
    await db.close();
    const found = [];
    const walk = async (directory) => {
      for await (const [, handle] of directory.entries()) {
        if (handle.kind === 'directory') await walk(handle);
        else found.push({ handle, file: await handle.getFile() });
      }
    };
    await walk(await navigator.storage.getDirectory());
    const { handle, file } = found.sort((a, b) => b.file.size - a.file.size)[0];
    const bytes = new Uint8Array(await file.arrayBuffer());
    bytes[bytes.length >> 1] ^= 1;
    const writable = await handle.createWritable();
    await writable.write(bytes);
    await writable.close();
    try {
      const again = await eddydb.open({ name: 'damage' });
      await again.collection('notes').query({ outputFields: ['*'] });
      return 'opened';
    } catch (error) {
      return { kind: error.kind, message: error.message };
    }
  });
  assert.equal(error.kind, 'corrupt', error.message);
});
