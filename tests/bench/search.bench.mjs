// Exact and HNSW search: native with the best instruction set, native with AVX2 alone, and WebAssembly in Chromium with simd128 and
// with relaxed SIMD, side by side. Every operation is measured on all of them in turn, several rounds, and the shortest time counts: what
// else the machine does then disturbs the figures little.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { nativeProgram, readMatrix, root, serve, wasmCommand, writeSet, writeTiny } from './search.mjs';

const ROUNDS = 5;
const EFS = [10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256];
const RECALL_MIN = 0.95;
const STATIC_EF = 32;
const FILTERS = ['random', 'near', 'far', 'elsewhere'];
/** As many of the queries have a filter: see `suite.rs`. */
const FILTERED_QUERIES = 100;
const PER_MILLE = [500, 100, 10, 1];
/** Of the rate of unfiltered searches with the same `ef`. */
const FILTERED_RATE_MIN = 0.5;
const WASM_TO_AVX2_MAX = 1.6;
const KERNELS = ['f32-dot', 'f32-l2', 'f16-dot', 'f16-l2', 'bf16-dot', 'bf16-l2', 'int8-dot', 'int8-l2', 'codes-dot', 'bits-hamming', 'bits-jaccard', 'rabitq-dot', 'pq-lookup'];
/** Of the time that a bare loop takes to read as many bytes. */
const KERNEL_TO_LIMIT_MAX = 1.3;

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

  const data = process.env.EDDY_BENCH_DATA;
  if (!data || !existsSync(join(data, 'packages', 'packages-f16.npy'))) return;
  const packages = readMatrix(join(data, 'packages', 'packages-f16.npy'));
  const asked = readMatrix(join(data, 'packages', 'queries-f16.npy'));
  writeSet(join(directory, 'packages.set'), packages.dim, packages.values, asked.values);
  yield { name: 'packages', file: join(directory, 'packages.set') };
}

const rate = (value) => (value >= 100 ? Math.round(value) : Number(value.toPrecision(3))).toLocaleString('en-US');

/** Every kernel over more bytes than caches hold, beside a bare loop over the same bytes, in the same processes. */
async function measureKernels(file, commands, log) {
  const hosts = [];
  for (const [command, args] of commands) hosts.push(await serve(command, args(file)));
  const best = new Map(['limit', ...KERNELS].map((kernel) => [kernel, hosts.map(() => Infinity)]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [kernel, seconds] of best) {
      for (const [at, host] of hosts.entries()) {
        seconds[at] = Math.min(seconds[at], (await host.ask(`kernel-${kernel}`)).seconds);
      }
    }
  }
  hosts.forEach((host) => host.end());
  const limits = best.get('limit');
  log('\n### kernels: one query against rows of 384 dimensions, 128 MiB in order; times the time of a bare loop that reads them\n');
  log(`| | ${hosts.map(({ isa }) => isa).join(' | ')} |`);
  log(`|---|${hosts.map(() => '---|').join('')}`);
  log(`| bare loop | ${limits.map((seconds) => `${((128 * 2 ** 20) / seconds / 1e9).toFixed(1)} GB/s`).join(' | ')} |`);
  const rows = KERNELS.map((kernel) => {
    const ratios = best.get(kernel).map((seconds, at) => seconds / limits[at]);
    log(`| ${kernel} | ${ratios.map((ratio) => ratio.toFixed(2)).join(' | ')} |`);
    return { set: 'kernels', name: kernel, times_limit: Object.fromEntries(hosts.map(({ isa }, at) => [isa, ratios[at]])) };
  });
  const targets = hosts.map(({ isa }) => {
    const [slowest] = rows.toSorted((a, b) => b.times_limit[isa] - a.times_limit[isa]);
    const value = slowest.times_limit[isa];
    return { name: `kernels: slowest against a bare loop on ${isa}, ${slowest.name}`, value: value.toFixed(2), limit: `at most ${KERNEL_TO_LIMIT_MAX}`, met: value <= KERNEL_TO_LIMIT_MAX };
  });
  return { rows, targets };
}

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
  // Of another crate, natively only: it holds floats, and its `ef` is chosen when it is built.
  const [native] = hosts;
  const held = (await native.ask('static-build', STATIC_EF)).value;
  const told = await native.ask('static', 0, 300);
  rows.push({ name: `HNSW_STATIC, ef ${STATIC_EF}`, operation: 'static', argument: STATIC_EF, value: told.value, seconds: { [native.isa]: told.seconds / queries } });
  log(`| HNSW_STATIC (instant-distance), ef ${STATIC_EF}, ${Math.round(held)} bytes a row, recall@10 ${told.value.toFixed(3)} | ${perSecond('queries')(told.seconds / queries)} |${' - |'.repeat(hosts.length)}`);
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
  const native = nativeProgram();
  const pages = [['simd128', 'eddydb_simd'], ['relaxed', 'eddydb_relaxed']].map(([name, variant]) => wasmCommand(name, variant));

  const best = await serve(native, ['serve', writeTiny(directory)]);
  best.end();
  const commands = [[native, (set) => ['serve', set]]];
  if (best.isa !== 'Avx2' && best.isa.startsWith('Avx')) commands.push([native, (set) => ['serve', set, 'Avx2']]);
  commands.push(...pages);

  const results = { rows: [], targets: [] };
  for (const set of sets(directory, native)) {
    if (results.rows.length === 0) {
      const { rows, targets } = await measureKernels(set.file, commands, log);
      results.rows.push(...rows);
      results.targets.push(...targets);
    }
    const { rows, targets } = await measure(set, commands, log);
    results.rows.push(...rows);
    results.targets.push(...targets);
  }
  return results;
}
