// Exact and HNSW search: native with the best instruction set, native with AVX2 alone, and WebAssembly in Chromium with simd128 and
// with relaxed SIMD, side by side. Every operation is measured on all of them in turn, several rounds, and the shortest time counts: what
// else the machine does then disturbs the figures little.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { variantBuild } from '../../scripts/wasm.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const ROUNDS = 5;
const EFS = [10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256];
const RECALL_MIN = 0.95;
const FILTERS = ['random', 'near', 'far', 'elsewhere'];
/** As many of the queries have a filter: see `suite.rs`. */
const FILTERED_QUERIES = 100;
const PER_MILLE = [500, 100, 10, 1];
/** Of the rate of unfiltered searches with the same `ef`. */
const FILTERED_RATE_MIN = 0.5;
const WASM_TO_AVX2_MAX = 1.6;

function cargo(args, env = process.env) {
  const done = spawnSync('cargo', ['build', '--message-format=json', ...args], {
    cwd: root, env, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 2 ** 28,
  });
  if (done.status !== 0) throw new Error(`cargo build ${args.join(' ')} failed`);
  const messages = done.stdout.trim().split('\n').map((line) => JSON.parse(line));
  return messages.filter(({ reason, target }) => reason === 'compiler-artifact' && target.name.startsWith('search_')).at(-1);
}

/** A process that measures; `ask` gives `{ value, seconds }`. */
async function serve(command, args) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`${command} ${args.join(' ')} ended`);
    return value.split(' ');
  };
  const [isa, rows, queries] = await next();
  return {
    isa, rows: Number(rows), queries: Number(queries),
    async ask(operation, argument = 0, milliseconds = 0) {
      child.stdin.write(`${operation} ${argument} ${milliseconds}\n`);
      const [value, seconds] = (await next()).map(Number);
      return { value, seconds };
    },
    end: () => child.stdin.end(),
  };
}

function halfToFloat(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 0) return sign * 2 ** -24 * fraction;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * 2 ** (exponent - 25) * (1024 + fraction);
}

/** A float16 matrix of NumPy's format, as float32. */
function readMatrix(file) {
  const bytes = readFileSync(file);
  const start = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString('latin1', 10, start);
  const shape = /'descr': '<f2', 'fortran_order': False, 'shape': \((\d+), (\d+)\)/.exec(header);
  if (!shape) throw new Error(`${file} is no row-major float16 matrix: ${header}`);
  const [rows, dim] = [Number(shape[1]), Number(shape[2])];
  const values = new Float32Array(rows * dim);
  for (let at = 0; at < values.length; at += 1) values[at] = halfToFloat(bytes.readUInt16LE(start + 2 * at));
  return { rows, dim, values };
}

function writeSet(file, dim, vectors, queries) {
  const head = new Uint32Array([dim, vectors.length / dim, queries.length / dim]);
  writeFileSync(file, Buffer.concat([head, vectors, queries].map((array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength))));
}

/** The sets at hand: the sample always, and the packages where a directory has them. */
function* sets(directory, native) {
  const rowsFile = join(directory, 'symbols.f32');
  const sample = join(root, 'www', 'sample');
  if (spawnSync(native, ['rows', join(sample, 'symbols.arrow'), rowsFile], { stdio: 'inherit' }).status !== 0) throw new Error('symbols.arrow cannot be read');
  const bytes = readFileSync(rowsFile);
  const queries = JSON.parse(readFileSync(join(sample, 'queries.json'), 'utf8')).flatMap(({ vector }) => {
    const codes = new Int8Array(Buffer.from(vector, 'base64'));
    const length = Math.hypot(...codes);
    return Array.from(codes, (code) => code / length);
  });
  const file = join(directory, 'symbols.set');
  writeSet(file, 384, new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4), Float32Array.from(queries));
  yield { name: 'symbols', file };

  const data = process.env.EDDY_BENCH_DATA ?? join(root, '..', 'shared', 'data');
  if (!existsSync(join(data, 'packages', 'packages-f16.npy'))) return;
  const packages = readMatrix(join(data, 'packages', 'packages-f16.npy'));
  const asked = readMatrix(join(data, 'packages', 'queries-f16.npy'));
  writeSet(join(directory, 'packages.set'), packages.dim, packages.values, asked.values);
  yield { name: 'packages', file: join(directory, 'packages.set') };
}

const rate = (value) => (value >= 100 ? Math.round(value) : Number(value.toPrecision(3))).toLocaleString('en-US');

async function measure({ name, file }, commands, log) {
  const hosts = [];
  for (const [command, args] of commands) hosts.push(await serve(command, args(file)));
  // What a browser of today takes.
  const wasm = hosts.at(-1);
  const avx2 = hosts.find(({ isa }) => isa === 'Avx2');
  const { rows: rowCount, queries } = wasm;
  const rows = [];

  async function row(label, operation, { argument = 0, milliseconds = 300, rounds = ROUNDS, per, show }) {
    const values = [];
    const seconds = hosts.map(() => Infinity);
    for (let round = 0; round < rounds; round += 1) {
      for (const [at, host] of hosts.entries()) {
        const told = await host.ask(operation, argument, milliseconds);
        values[at] = told.value;
        seconds[at] = Math.min(seconds[at], told.seconds);
      }
    }
    const ratio = avx2 && seconds.at(-1) / seconds[hosts.indexOf(avx2)];
    const measured = { name: label, operation, argument, value: values.at(-1), seconds: Object.fromEntries(hosts.map(({ isa }, at) => [isa, seconds[at] / per])), wasm_to_avx2: ratio };
    rows.push(measured);
    const label_recall = ['exact', 'hnsw', 'filtered'].includes(operation) ? `${label}, recall@10 ${values.at(-1).toFixed(3)}` : label;
    log(`| ${label_recall} | ${seconds.map((value) => show(value / per)).join(' | ')} | ${ratio ? ratio.toFixed(2) : '-'} |`);
    return measured;
  }

  log(`\n### ${name}: ${rowCount} rows, 384 dimensions, inner product, ${queries} queries, k 10, one thread\n`);
  log(`| | ${hosts.map(({ isa }) => (isa.startsWith('Avx') ? `native ${isa}` : `WebAssembly ${isa}`)).join(' | ')} | relaxed time / AVX2 time |`);
  log(`|---|${hosts.map(() => '---|').join('')}---|`);
  const nanoseconds = (seconds) => `${rate(seconds * 1e9)} ns`;
  const perSecond = (unit) => (seconds) => `${rate(1 / seconds)} ${unit}/s`;
  const scan = await row('bare f32 product, rows in order', 'scan-f32', { per: rowCount, show: nanoseconds });
  await row('bare int8 product, rows in order', 'scan-i8', { per: rowCount, show: nanoseconds });
  await row('bare int8 product, random rows', 'random-i8', { per: rowCount, show: nanoseconds });
  const exact = await row('exact', 'exact', { per: queries, milliseconds: 0, show: perSecond('queries') });
  await row('build, M 16, efConstruction 200', 'build', { per: rowCount, milliseconds: 0, rounds: 1, show: perSecond('rows') });
  const checksums = [];
  for (const host of hosts) checksums.push((await host.ask('checksum')).value);
  if (new Set(checksums).size !== 1) throw new Error(`the targets built different indexes: ${checksums}`);
  const searches = [];
  for (const ef of EFS) {
    searches.push(await row(`HNSW, ef ${ef}`, 'hnsw', { argument: ef, per: queries, show: perSecond('queries') }));
    if (searches.at(-1).value >= 0.999) break;
  }
  const enough = searches.find(({ value }) => value >= RECALL_MIN);
  const filtered = [];
  for (const filter of enough ? FILTERS : []) {
    for (const perMille of PER_MILLE) {
      for (const host of hosts) await host.ask(`filter-${filter}`, perMille);
      const label = `filtered, ef ${enough.argument}, ${perMille / 10} % of the rows, ${filter}`;
      filtered.push(await row(label, 'filtered', { argument: enough.argument, rounds: 3, per: Math.min(queries, FILTERED_QUERIES), show: perSecond('queries') }));
    }
  }
  hosts.forEach((host) => host.end());

  log('\nof the limit: the time that a bare scan of all rows takes, divided by the time of a search; above 1 is less than reading every row once');
  for (const found of [exact, enough].filter(Boolean)) {
    const shares = hosts.map(({ isa }) => `${isa} ${((scan.seconds[isa] * rowCount) / found.seconds[isa]).toPrecision(3)}`);
    log(`  ${found.name}: ${shares.join(', ')}`);
  }
  const targets = [{ name: `${name}: HNSW recall@10`, value: Math.max(...searches.map(({ value }) => value)).toFixed(3), limit: `at least ${RECALL_MIN}`, met: enough !== undefined }];
  if (enough) {
    const [least] = filtered.toSorted((a, b) => a.value - b.value);
    targets.push({ name: `${name}: recall@10 of ${least.name}`, value: least.value.toFixed(3), limit: `at least ${RECALL_MIN}`, met: least.value >= RECALL_MIN });
    for (const { isa } of hosts) {
      const rates = filtered.map((found) => ({ name: found.name, value: enough.seconds[isa] / found.seconds[isa] }));
      const [{ name: slowest, value }] = rates.toSorted((a, b) => a.value - b.value);
      targets.push({ name: `${name}: queries/s of unfiltered ones on ${isa}, ${slowest}`, value: value.toFixed(2), limit: `at least ${FILTERED_RATE_MIN}`, met: value >= FILTERED_RATE_MIN });
    }
  }
  if (avx2 && enough) {
    const value = enough.wasm_to_avx2;
    targets.push({ name: `${name}: search time of relaxed WebAssembly at recall ${RECALL_MIN}, in AVX2 times`, value: value.toFixed(2), limit: `at most ${WASM_TO_AVX2_MAX}`, met: value <= WASM_TO_AVX2_MAX });
  }
  return { rows: rows.map((measured) => ({ set: name, ...measured })), targets };
}

export async function run({ log, directory }) {
  // Together with the store's: one library serves both.
  const native = cargo(['--release', '--example', 'search_native', '--example', 'store_native']).executable;
  const modules = [['simd128', 'eddydb_simd'], ['relaxed', 'eddydb_relaxed']].map(([name, variant]) => {
    const { args, env } = variantBuild(variant);
    const built = cargo(['--example', 'search_wasm', ...args], env);
    return [name, built.filenames.find((file) => file.endsWith('.wasm'))];
  });

  const best = await serve(native, ['serve', writeTiny(directory)]);
  best.end();
  const commands = [[native, (set) => ['serve', set]]];
  if (best.isa !== 'Avx2' && best.isa.startsWith('Avx')) commands.push([native, (set) => ['serve', set, 'Avx2']]);
  for (const [name, module] of modules) commands.push([process.execPath, (set) => [join(here, 'wasm.mjs'), module, set, name]]);

  const results = { rows: [], targets: [] };
  for (const set of sets(directory, native)) {
    const { rows, targets } = await measure(set, commands, log);
    results.rows.push(...rows);
    results.targets.push(...targets);
  }
  return results;
}

/** A set just large enough to ask a process for its instruction set. */
function writeTiny(directory) {
  const file = join(directory, 'tiny.set');
  writeSet(file, 4, new Float32Array(64).fill(0.5), new Float32Array(4).fill(0.5));
  return file;
}
