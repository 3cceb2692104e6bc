// HNSW search beside the libraries that people take otherwise, on the same rows, in one thread, in the same run: hnswlib, faiss and usearch
// from PyPI, and packages from npm. Each builds once and keeps its index; then they search in turn, and the median of the rounds counts.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { nativeProgram, readMatrix, root, serve, wasmCommand, writeSet } from './search.mjs';

const ROUNDS = 5;
const MILLISECONDS = 200;
const EFS = [10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512];
const ENOUGH = 0.993;
const PYTHON = ['hnswlib==0.8.*', 'faiss-cpu==1.*', 'usearch==2.*', 'numpy'];
const NPM = ['edgevec@0.9', 'hnswlib-wasm@0.8', 'hnswlib-node@3', 'usearch@2'];
/** Those that take their candidate list when they are built. */
const FIXED = { edgevec: 100, usearch: 64 };

/** Installs the libraries into `target/peers`. */
function install() {
  const directory = join(root, 'target', 'peers');
  const python = join(directory, 'venv', 'bin', 'python');
  const must = (command, args) => {
    const done = spawnSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    if (done.status !== 0) throw new Error(`${command} ${args.join(' ')} failed`);
  };
  mkdirSync(directory, { recursive: true });
  if (!existsSync(python)) must('python3', ['-m', 'venv', join(directory, 'venv')]);
  must(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...PYTHON]);
  if (!existsSync(join(directory, 'package.json'))) writeFileSync(join(directory, 'package.json'), '{ "private": true }\n');
  must('npm', ['install', '--silent', '--no-audit', '--no-fund', '--prefix', directory, ...NPM]);
  return { directory, python };
}

/** `count` unit vectors around a thousand centres, seeded. */
function clustered(count, dim) {
  let state = 1;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  const centres = Float32Array.from({ length: 1000 * dim }, normal);
  const values = new Float32Array(count * dim);
  for (let row = 0; row < count; row += 1) {
    const centre = Math.floor(uniform() * 1000) * dim;
    let square = 0;
    for (let n = 0; n < dim; n += 1) {
      const x = centres[centre + n] + 0.8 * normal();
      values[row * dim + n] = x;
      square += x * x;
    }
    for (let n = 0; n < dim; n += 1) values[row * dim + n] /= Math.sqrt(square);
  }
  return values;
}

function* sets(directory) {
  const file = (name) => join(directory, `${name}.set`);
  const data = process.env.EDDY_BENCH_DATA;
  if (data && existsSync(join(data, 'packages', 'packages-f16.npy'))) {
    const [rows, queries] = ['packages', 'queries'].map((name) => readMatrix(join(data, 'packages', `${name}-f16.npy`)));
    writeSet(file('packages'), rows.dim, rows.values, queries.values);
    yield { name: 'packages', rows: rows.rows, dim: rows.dim, file: file('packages'), npm: true };
  }
  const [count, dim, queries] = [200_000, 128, 500];
  const values = clustered(count + queries, dim);
  writeSet(file('clustered'), dim, values.subarray(0, count * dim), values.subarray(count * dim));
  yield { name: 'clustered', rows: count, dim, file: file('clustered'), npm: false };
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** Queries a second at that recall, between the two measured points around it; `undefined` where it is not reached. */
function rateAt(points, recall) {
  const after = points.findIndex((point) => point.recall >= recall);
  if (after < 0) return undefined;
  if (after === 0) return points[0].rate;
  const [low, high] = [points[after - 1], points[after]];
  const share = (recall - low.recall) / (high.recall - low.recall || 1);
  return Math.exp(Math.log(low.rate) * (1 - share) + Math.log(high.rate) * share);
}

async function measure(set, commands, log) {
  const hosts = [];
  for (const { name, command, args } of commands) {
    const host = await serve(command, args(set.file));
    const { value, seconds } = await host.ask('build', FIXED[name] ?? 0);
    hosts.push({ name, host, bytes: value, build: seconds, points: [], done: false });
  }
  for (const ef of EFS) {
    const open = hosts.filter(({ done }) => !done);
    const seconds = new Map(open.map((peer) => [peer, []]));
    const recall = new Map();
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const peer of open) {
        const told = await peer.host.ask('hnsw', ef, MILLISECONDS);
        seconds.get(peer).push(told.seconds);
        recall.set(peer, told.value);
      }
    }
    for (const peer of open) {
      peer.points.push({ ef: FIXED[peer.name] ?? ef, recall: recall.get(peer), rate: peer.host.queries / median(seconds.get(peer)) });
      peer.done = peer.name in FIXED || recall.get(peer) >= ENOUGH;
    }
  }
  hosts.forEach(({ host }) => host.end());
  const rate = (value) => (value === undefined ? '-' : Math.round(value).toLocaleString('en-US'));
  log(`\n### ${set.name}: ${set.rows.toLocaleString('en-US')} rows, ${set.dim} dimensions, inner product, k 10, M 16, efConstruction 200, one thread\n`);
  log('| | build, s | bytes a row | queries/s at recall@10 0.90 | 0.95 | 0.99 |\n|---|---|---|---|---|---|');
  const rows = hosts.map(({ name, build, bytes, points }) => {
    const at = Object.fromEntries([0.9, 0.95, 0.99].map((recall) => [recall, rateAt(points, recall)]));
    const only = name in FIXED ? `${rate(points[0].rate)} at ${points[0].recall.toFixed(3)}` : undefined;
    log(`| ${name} | ${build.toFixed(1)} | ${Math.round(bytes).toLocaleString('en-US')} | ${only ?? rate(at[0.9])} | ${only ? '' : rate(at[0.95])} | ${only ? '' : rate(at[0.99])} |`);
    return { set: set.name, name, build_seconds: build, bytes_per_row: bytes, rates: at, points };
  });
  return rows;
}

export async function run({ log, directory }) {
  const { directory: peers, python } = install();
  const here = join(root, 'tests', 'bench');
  const native = nativeProgram();
  const [page, pageArgs] = wasmCommand('relaxed', 'eddydb_relaxed');
  const own = [
    { name: 'eddydb native', command: native, args: (set) => ['serve', set] },
    { name: 'eddydb WebAssembly, Chromium', command: page, args: pageArgs },
  ];
  const fromPyPi = ['hnswlib', 'faiss-hnsw', 'faiss-hnsw-sq8', 'usearch-f16', 'usearch-i8'].map((name) => ({ name, command: python, args: (set) => [join(here, 'peers.py'), name, set] }));
  const fromNpm = ['edgevec', 'hnswlib-node', 'usearch'].map((name) => ({ name, command: process.execPath, args: (set) => [join(here, 'peers.mjs'), name, set, peers] }));
  fromNpm.push({ name: 'hnswlib-wasm', command: process.execPath, args: (set) => [join(here, 'peers-page.mjs'), set, peers] });

  const results = { rows: [], targets: [] };
  for (const set of sets(directory)) {
    const rows = await measure(set, [...own, ...fromPyPi, ...(set.npm ? fromNpm : [])], log);
    results.rows.push(...rows);
    const of = (name) => rows.find((row) => row.name === name);
    const [ours, wasm, peer] = [of('eddydb native'), of('eddydb WebAssembly, Chromium'), of('hnswlib')];
    const target = (name, value, least) => results.targets.push({ name: `${set.name}: ${name}`, value: Number(value.toFixed(2)), limit: `at least ${least}`, met: value >= least });
    target('native queries/s at recall 0.95, of hnswlib', ours.rates[0.95] / peer.rates[0.95], 2);
    target('native queries/s at recall 0.99, of hnswlib', ours.rates[0.99] / peer.rates[0.99], 1.5);
    target('native build, of hnswlib', peer.build_seconds / ours.build_seconds, 1.5);
    target('WebAssembly queries/s at recall 0.95, of native hnswlib', wasm.rates[0.95] / peer.rates[0.95], 1);
    target('WebAssembly build, of native hnswlib', peer.build_seconds / wasm.build_seconds, 1);
    if (set.npm) {
      // Packages that are WebAssembly or JavaScript, at the recall that they reach.
      const best = Math.max(...['edgevec', 'hnswlib-wasm'].map((name) => of(name).rates[0.95] ?? of(name).points[0].rate));
      target('WebAssembly queries/s at recall 0.95, of the faster of edgevec and hnswlib-wasm', wasm.rates[0.95] / best, 3);
    }
    const bytes = ours.bytes_per_row;
    if (set.dim === 384) results.targets.push({ name: `${set.name}: bytes a row of codes and graph`, value: Math.round(bytes), limit: 'at most 600', met: bytes <= 600 });
  }
  return results;
}
