// hnswlib-wasm, which runs in pages only: the same as peers.mjs in Chromium. node peers-page.mjs SET MODULES

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { buildSync } from 'esbuild';

import { launch } from '../browser/harness.mjs';

const [, , setFile, modules] = process.argv;
const origin = 'http://localhost';
const bundle = buildSync({
  entryPoints: [join(modules, 'node_modules', 'hnswlib-wasm', 'dist', 'hnswlib.js')], bundle: true, format: 'iife', globalName: 'hnswlibWasm', write: false, platform: 'browser',
}).outputFiles[0].text;
const browser = await launch();
const page = await browser.newPage();
await page.route(`${origin}/**`, (route) =>
  new URL(route.request().url()).pathname === '/set' ? route.fulfill({ path: setFile, contentType: 'application/octet-stream' }) : route.fulfill({ body: '', contentType: 'text/html' }));
await page.goto(origin);
await page.addScriptTag({ content: bundle });
const queries = await page.evaluate(async () => {
  const bytes = await (await fetch('/set')).arrayBuffer();
  const [dim, rowCount, queryCount] = new Uint32Array(bytes, 0, 3);
  const numbers = new Float32Array(bytes, 12);
  const vector = (at) => numbers.subarray(at * dim, (at + 1) * dim);
  const K = 10;
  const truth = Array.from({ length: queryCount }, (_, at) => {
    const query = vector(rowCount + at);
    const scores = Float64Array.from({ length: rowCount }, (_, row) => vector(row).reduce((sum, x, n) => sum + x * query[n], 0));
    return new Set(Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a]).slice(0, K));
  });
  const library = await window.hnswlibWasm.loadHnswlib();
  let index;
  window.measure = (operation, ef, milliseconds) => {
    const start = performance.now();
    if (operation === 'build') {
      index = new library.HierarchicalNSW('ip', dim, '');
      index.initIndex(rowCount, 16, 200, 1);
      for (let row = 0; row < rowCount; row += 1) index.addPoint(vector(row), row, false);
      return [0, (performance.now() - start) / 1000];
    }
    index.setEfSearch(Math.max(ef, K));
    let [hits, runs, spent] = [0, 0, 0];
    while (runs === 0 || spent < milliseconds) {
      hits = 0;
      for (let at = 0; at < queryCount; at += 1) for (const row of index.searchKnn(vector(rowCount + at), K, undefined).neighbors) hits += truth[at].has(row) ? 1 : 0;
      runs += 1;
      spent = performance.now() - start;
    }
    return [hits / (queryCount * K), spent / 1000 / runs];
  };
  return queryCount;
});
console.log(`hnswlib-wasm ${readFileSync(setFile).readUInt32LE(4)} ${queries}`);
for await (const line of createInterface({ input: process.stdin })) {
  const [operation, argument, milliseconds] = line.split(' ');
  const told = await page.evaluate((asked) => window.measure(...asked), [operation, Number(argument), Number(milliseconds)]);
  console.log(told.join(' '));
}
await browser.close();
