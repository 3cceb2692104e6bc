// One of the npm packages for Node that the search bench compares with, in one thread; speaks as native.rs does: node peers.mjs PACKAGE SET MODULES,
// where MODULES is the directory that has the packages.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const K = 10;
const [M, EF_CONSTRUCTION] = [16, 200];
const [, , name, setFile, modules] = process.argv;
const bytes = readFileSync(setFile);
const [dim, rowCount, queryCount] = new Uint32Array(bytes.buffer, bytes.byteOffset, 3);
const numbers = new Float32Array(bytes.buffer.slice(bytes.byteOffset + 12, bytes.byteOffset + bytes.length));
const vector = (at) => numbers.subarray(at * dim, (at + 1) * dim);
const requireThere = createRequire(join(modules, 'package.json'));

const packages = {
  edgevec: {
    async load() {
      this.module = await import(pathToFileURL(join(modules, 'node_modules', 'edgevec', 'edgevec.js')).href);
      await this.module.default({ module_or_path: readFileSync(join(modules, 'node_modules', 'edgevec', 'edgevec_bg.wasm')) });
    },
    build(ef) {
      const config = new this.module.EdgeVecConfig(dim);
      // By inner product it tells the farthest; of unit vectors the order is the same.
      Object.assign(config, { metric: 'l2', m: M, ef_construction: EF_CONSTRUCTION, ef_search: ef });
      this.index = new this.module.EdgeVec(config);
      const ids = Array.from({ length: rowCount }, (_, row) => this.index.insert(vector(row)));
      this.rows = new Map(ids.map((id, row) => [id, row]));
    },
    search(query) {
      return this.index.search(query, K).map((hit) => this.rows.get(hit.id));
    },
  },
  'hnswlib-node': {
    load() {
      this.module = requireThere('hnswlib-node');
    },
    build() {
      this.index = new this.module.HierarchicalNSW('ip', dim);
      this.index.initIndex(rowCount, M, EF_CONSTRUCTION, 1);
      for (let row = 0; row < rowCount; row += 1) this.index.addPoint(Array.from(vector(row)), row);
    },
    search(query, ef) {
      this.index.setEf(Math.max(ef, K));
      return this.index.searchKnn(Array.from(query), K).neighbors;
    },
  },
  usearch: {
    load() {
      this.module = requireThere('usearch');
    },
    build(ef) {
      this.index = new this.module.Index({ metric: 'ip', connectivity: M, dimensions: dim, quantization: 'f32', expansion_add: EF_CONSTRUCTION, expansion_search: ef });
      for (let row = 0; row < rowCount; row += 1) this.index.add(BigInt(row), vector(row));
    },
    search(query) {
      return Array.from(this.index.search(query, K, 1).keys, Number);
    },
  },
};

const library = packages[name];
await library.load();

/** The rows nearest to each query, by brute force. */
const truth = Array.from({ length: queryCount }, (_, at) => {
  const query = vector(rowCount + at);
  const scores = new Float64Array(rowCount);
  for (let row = 0; row < rowCount; row += 1) {
    let score = 0;
    const start = row * dim;
    for (let n = 0; n < dim; n += 1) score += query[n] * numbers[start + n];
    scores[row] = score;
  }
  return new Set(Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a]).slice(0, K));
});

console.log(`${name} ${rowCount} ${queryCount}`);
for await (const line of createInterface({ input: process.stdin })) {
  const [operation, argument, milliseconds] = line.split(' ');
  const start = performance.now();
  let [value, runs, spent] = [0, 0, 0];
  if (operation === 'build') {
    const before = process.memoryUsage().rss;
    library.build(Number(argument));
    [value, runs, spent] = [(process.memoryUsage().rss - before) / rowCount, 1, performance.now() - start];
  } else {
    while (runs === 0 || spent < Number(milliseconds)) {
      let hits = 0;
      for (let at = 0; at < queryCount; at += 1) {
        for (const row of library.search(vector(rowCount + at), Number(argument))) hits += truth[at].has(row) ? 1 : 0;
      }
      value = hits / (queryCount * K);
      runs += 1;
      spent = performance.now() - start;
    }
  }
  console.log(`${value} ${spent / 1000 / runs}`);
}
