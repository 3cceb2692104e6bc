// `npm test`: everything, cheapest first. `npm test -- rust browser` runs the named phases only; `--list` names them.
// Each phase tells its time and counts; the output of one that fails is shown whole; the last line is the total alone.

import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

import { places } from './build.mjs';
import { nativeArguments } from './native.mjs';
import { Problem, main, root, run } from './run.mjs';
import { firefox as findFirefox, setup, toBuild, wasmEnv } from './setup.mjs';

/**
 * What the WebAssembly that a page downloads takes at most, compressed, in bytes: 700,000 until it searched text and had eleven kinds of
 * index, 800,000 until it told changes, kept answers current and synced by tokens, 830,000 until replicas kept parts of collections, and what
 * had lost against others, 860,000 until frames of sync came compressed, 865,000 until files of a first sync came by requests.
 */
const WASM_BYTES_MAX = 868_000;
/**
 * The same of the build with pipelines, which a page downloads only when it opens a database with streams: 1,250,000 until it had the event bus
 * and compared what replicas hold, 1,300,000 until windows went by time zones and let go of rows, and push streams changed their partitions.
 */
const WASM_FULL_BYTES_MAX = 1_330_000;
/** What Cloudflare takes of a worker on its free plan: scripts and WebAssembly, each by gzip. */
const WORKER_BYTES_MAX = 3_000_000;

const wasmFullArguments = ['--target', 'wasm32-unknown-unknown', '--no-default-features', '--features', 'wasm,streams,hub'];
const wasmArguments = ['--target', 'wasm32-unknown-unknown', '--no-default-features', '--features', 'wasm'];

/** The result of one program that passes or fails as a whole. */
async function check(command, args, options = {}) {
  const { code, output } = await run(command, args, { capture: true, limitSeconds: 3600, ...options });
  return code === 0 ? { passed: 1, failed: 0, output } : { passed: 0, failed: 1, output: `$ ${[command, ...args].join(' ')}\n${output}` };
}

function sum(results) {
  const total = { passed: 0, failed: 0, output: '' };
  for (const { passed, failed, output } of results) {
    total.passed += passed;
    total.failed += failed;
    if (failed) total.output += output;
  }
  return total;
}

/** Counts from what test runners print; an ignored or skipped test is a failed one: nothing is left out quietly. */
async function counted(command, args, pattern, options = {}) {
  const { code, output } = await run(command, args, { capture: true, limitSeconds: 3600, ...options });
  const result = { passed: 0, failed: 0, output: `$ ${[command, ...args].join(' ')}\n${output}` };
  for (const { groups } of output.matchAll(pattern)) {
    result.passed += Number(groups.passed ?? 0);
    for (const name of ['failed', 'ignored', 'cancelled', 'skipped', 'todo']) result.failed += Number(groups[name] ?? 0);
  }
  // A test that does not compile, or a runner that dies, has counted nothing.
  if (code !== 0 && result.failed === 0) result.failed = 1;
  return result;
}

const cargoCounts = /test result: \w+\. (?<passed>\d+) passed; (?<failed>\d+) failed; (?<ignored>\d+) ignored/g;
const nodeCounts = /^ℹ (?:pass (?<passed>\d+)|fail (?<failed>\d+)|cancelled (?<cancelled>\d+)|skipped (?<skipped>\d+)|todo (?<todo>\d+))$/gm;

/** The test files of one kind: `*.test.mjs` in `tests/KIND` of the repository and of each package. */
function testFiles(kind) {
  return ['.', ...places].flatMap((place) => {
    const directory = join(root, place, 'tests', kind);
    if (!existsSync(directory)) return [];
    return readdirSync(directory).filter((name) => /\.test\.m?js$/.test(name)).sort().map((name) => relative(root, join(directory, name)));
  });
}

const nodeTests = (kind, { concurrency = 1, only = () => true, env } = {}) => {
  const options = ['--test', '--test-reporter=spec', `--test-concurrency=${concurrency}`];
  return counted(process.execPath, [...options, ...testFiles(kind).filter(only)], nodeCounts, { env });
};

async function clippy() {
  return sum([
    await check('cargo', ['clippy', '--all-targets', ...nativeArguments, '--', '-D', 'warnings']),
    await check('cargo', ['clippy', ...wasmArguments, '--', '-D', 'warnings'], { env: wasmEnv() }),
    await check('cargo', ['clippy', ...wasmFullArguments, '--', '-D', 'warnings'], { env: wasmEnv() }),
  ]);
}

const brotli = (bytes) => brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).length;

/** Builds the packages, and weighs the WebAssembly of which a page downloads one; tells what the scripts beside it add. */
async function build() {
  const result = await check(process.execPath, ['scripts/build.mjs']);
  if (result.failed) return result;
  const dist = join(root, 'pkg', 'dist');
  const scripts = ['browser.js', 'worker.js'].filter((name) => existsSync(join(dist, name)));
  const results = [result];
  for (const wasm of readdirSync(dist).filter((name) => name.endsWith('.wasm'))) {
    const bytes = brotli(readFileSync(join(dist, wasm)));
    const beside = scripts.reduce((total, name) => total + brotli(readFileSync(join(dist, name))), 0);
    const bytesMax = wasm === 'eddydb_full.wasm' ? WASM_FULL_BYTES_MAX : WASM_BYTES_MAX;
    const words = `${wasm}: ${bytes} bytes of brotli, at most ${bytesMax}; ${scripts.join(' and ')}: ${beside}`;
    console.log(`  ${words}`);
    const fits = bytes <= bytesMax;
    results.push({ passed: Number(fits), failed: Number(!fits), output: `a page downloads too much: ${words}\n` });
  }
  if (results.length === 1) results.push({ passed: 0, failed: 1, output: 'pkg/dist has no .wasm\n' });
  results.push(weighWorker());
  return sum(results);
}

/** Whether the edge worker can be deployed. */
function weighWorker() {
  const parts = ['index.js', 'eddydb.wasm'].map((name) => gzipSync(readFileSync(join(root, 'worker', 'dist', name)), { level: 9 }).length);
  const bytes = parts.reduce((total, part) => total + part);
  const words = `the worker: ${bytes} bytes of gzip (${parts.join(' and ')}), at most ${WORKER_BYTES_MAX}`;
  console.log(`  ${words}`);
  const fits = bytes <= WORKER_BYTES_MAX;
  return { passed: Number(fits), failed: Number(!fits), output: `too much for a worker: ${words}\n` };
}

async function types() {
  const projects = [...places, 'tests/types', ...places.map((place) => join(place, 'tests', 'types'))];
  const found = projects.filter((project) => existsSync(join(root, project, 'tsconfig.json')));
  const results = [];
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  for (const project of found) results.push(await check(process.execPath, [tsc, '--noEmit', '-p', project]));
  return sum(results);
}

/**
 * The Rust tests of code that differs in WebAssembly: kernels with relaxed SIMD, with simd128 and without, in Node; then what only a
 * browser has, in a dedicated worker of Chromium.
 */
async function wasm() {
  const results = [];
  for (const [name, features] of [['plain', ''], ['simd128', '+simd128'], ['relaxed', '+simd128,+relaxed-simd']]) {
    const flags = [process.env.EDDY_WASM_RUSTFLAGS, features && `-C target-feature=${features}`].filter(Boolean).join(' ');
    const env = {
      ...wasmEnv(),
      RUSTFLAGS: flags,
      CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER: 'wasm-bindgen-test-runner',
      // Node has the relaxed instructions since version 21, and in 20 behind a flag.
      NODE_ARGS: name === 'relaxed' && process.versions.node.startsWith('20.') ? '--experimental-wasm-relaxed-simd' : '',
      // Other flags, other artifacts: side by side, neither evicts the other.
      CARGO_TARGET_DIR: join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), `wasm-${name}`),
    };
    results.push(await counted('cargo', ['test', '--lib', ...wasmArguments], cargoCounts, { env }));
  }
  results.push(await counted(process.execPath, ['scripts/wasm-test.mjs'], cargoCounts, { env: wasmEnv() }));
  return sum(results);
}

/**
 * The kernels of aarch64, in an emulator of that processor on others; where it, a linker or Rust's library for it is missing, they are not
 * run, and said to be so.
 */
async function aarch64() {
  const target = 'aarch64-unknown-linux-gnu';
  const answer = (command, args) => run(command, args, { capture: true }).catch(() => ({ code: 1, output: '' }));
  const library = await answer('rustc', ['--print', 'target-libdir', '--target', target]);
  const lacking = [];
  if (library.code !== 0 || !existsSync(library.output.trim())) lacking.push(`rustup target add ${target}`);
  for (const [program, brings] of [['aarch64-linux-gnu-gcc', 'gcc-aarch64-linux-gnu'], ['qemu-aarch64', 'qemu-user']]) {
    if ((await answer(program, ['--version'])).code !== 0) lacking.push(`apt-get install ${brings}`);
  }
  if (lacking.length) return { passed: 0, failed: 0, output: '', notRun: `the kernels of aarch64, which need: ${lacking.join(', ')}` };
  const env = {
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER: 'aarch64-linux-gnu-gcc',
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER: 'qemu-aarch64 -L /usr/aarch64-linux-gnu',
  };
  return counted('cargo', ['test', '--lib', '--target', target, '--no-default-features', 'distance::'], cargoCounts, { env });
}

async function docs() {
  return sum([
    await check('cargo', ['doc', '--no-deps', ...nativeArguments], { env: { RUSTDOCFLAGS: '-D warnings' } }),
    await nodeTests('docs'),
  ]);
}

/** The test target that needs the servers of `services`. */
const objectTests = 'object_storage';

/** Every Rust test but those of `services`, and the examples in the documentation. */
async function rust() {
  const metadata = await run('cargo', ['metadata', '--no-deps', '--format-version', '1'], { capture: true });
  const { targets } = JSON.parse(metadata.output.slice(metadata.output.indexOf('{'))).packages[0];
  const ofBrowsers = (target) => target['required-features']?.includes('wasm');
  const tests = targets.filter((target) => target.kind.includes('test') && target.name !== objectTests && !ofBrowsers(target));
  const named = tests.flatMap(({ name }) => ['--test', name]);
  return sum([
    await counted('cargo', ['test', '--no-fail-fast', ...nativeArguments, '--lib', '--bins', ...named], cargoCounts),
    await counted('cargo', ['test', ...nativeArguments, '--doc'], cargoCounts),
  ]);
}

/** Installs the S3-compatible server that the tests start into `target`; tells its program, or why there is none. */
async function s3Server() {
  const directory = join(root, 'target', 's3-server');
  const program = join(directory, 'bin', 'moto_server');
  if (existsSync(program)) return { program };
  const made = await run('python3', ['-m', 'venv', directory], { capture: true, limitSeconds: 300 }).catch((error) => ({ code: 1, output: error.message }));
  if (made.code !== 0) return { reason: `no Python 3 with venv: ${made.output.trim().split('\n').at(-1)}` };
  const installed = await run(join(directory, 'bin', 'pip'), ['install', '--quiet', 'moto[server]==5.2.*'], { capture: true, limitSeconds: 600 });
  if (installed.code !== 0) return { reason: `moto cannot be installed: ${installed.output.trim().split('\n').at(-1)}` };
  return { program };
}

/** Installs a server of Azure Blob Storage into `target`; tells its directory, or why there is none. */
async function azurite() {
  const directory = join(root, 'target', 'azurite');
  const there = () => existsSync(join(directory, 'node_modules', 'azurite', 'package.json'));
  if (there()) return { directory };
  mkdirSync(directory, { recursive: true });
  const args = ['install', '--no-audit', '--no-fund', '--silent', '--prefix', directory, 'azurite@3.37'];
  const installed = await run('npm', args, { capture: true, limitSeconds: 600 });
  return there() ? { directory } : { reason: `azurite cannot be installed: ${installed.output.trim().split('\n').at(-1)}` };
}

/** Installs the simulator of R2 into `target`; tells its directory, or why there is none. */
async function miniflare() {
  const directory = join(root, 'target', 'miniflare');
  const there = () => existsSync(join(directory, 'node_modules', 'miniflare', 'package.json'));
  if (there()) return { directory };
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'package.json'), '{ "private": true }\n');
  const args = ['install', '--no-audit', '--no-fund', '--silent', '--prefix', directory, 'miniflare@4'];
  const installed = await run('npm', args, { capture: true, limitSeconds: 600 });
  return there() ? { directory } : { reason: `miniflare cannot be installed: ${installed.output.trim().split('\n').at(-1)}` };
}

/** The edge worker in workerd; where the simulator of R2 cannot be had, what needs it is not run, and said to be so. */
async function edge() {
  const { directory, reason } = await miniflare();
  const withBucket = (path) => /(?:bucket|storage)\.test\.mjs$/.test(path);
  const result = await nodeTests('edge', { ...(directory ? { env: { EDDY_TEST_MINIFLARE: directory } } : { only: (path) => !withBucket(path) }) });
  return { ...result, notRun: reason && `the tests of the edge worker with a bucket: ${reason}` };
}

/** What needs a service that the tests start themselves; where that cannot be had they are not run, and said to be so. */
async function services() {
  const [s3, azure] = [await s3Server(), await azurite()];
  const env = { ...(s3.program && { EDDY_TEST_S3_SERVER: s3.program }), ...(azure.directory && { EDDY_TEST_AZURITE: azure.directory }) };
  const skipped = [...(s3.program ? [] : ['s3', 'bucket']), ...(azure.directory ? [] : ['azure'])].flatMap((name) => ['--skip', name]);
  const objects = ['test', ...nativeArguments, '--test', objectTests, '--', ...skipped];
  const result = await counted('cargo', objects, cargoCounts, { env });
  const notRun = [s3.reason && `the tests against a real S3 server: ${s3.reason}`, azure.reason && `the tests against Azure Blob Storage: ${azure.reason}`];
  return { ...result, notRun: notRun.filter(Boolean).join('; ') || undefined };
}

/**
 * The package and the stores of a browser in Firefox, by tests that Chromium has passed; where there is none and none can be had, they are
 * not run, and said to be so.
 */
async function firefox() {
  const program = await findFirefox();
  if (!program) return { passed: 0, failed: 0, output: '', notRun: 'the tests in Firefox: there is none, and apt-get cannot install it' };
  const env = { EDDY_FIREFOX: program };
  const inFirefox = (path) => /(?:indexeddb|memory|package|tabs)\.test\.mjs$/.test(path);
  return sum([
    await counted(process.execPath, ['scripts/wasm-test.mjs'], cargoCounts, { env: { ...wasmEnv(), ...env } }),
    await nodeTests('browser', { only: inFirefox, env }),
  ]);
}

const phases = {
  repository: () => nodeTests('repository', { concurrency: 4 }),
  format: () => check('cargo', ['fmt', '--check']),
  clippy,
  rust,
  services,
  build,
  types,
  node: () => nodeTests('node', { concurrency: 2 }),
  aarch64,
  wasm,
  browser: () => nodeTests('browser'),
  firefox,
  edge,
  packaging: () => nodeTests('packaging'),
  docs,
};

/** The steps of the set-up that a phase needs, where it does not need all of them. */
const needs = {
  repository: ['packages'],
  format: ['rust', 'rust-tools'],
  clippy: ['rust', 'rust-tools', 'wasm-std'],
  rust: ['rust'],
  services: ['rust'],
  aarch64: ['rust'],
  build: toBuild,
  types: ['packages'],
};

/** Runs one phase, telling from time to time that it still does. */
async function runPhase(name) {
  console.log(`${name} …`);
  const start = performance.now();
  const seconds = () => ((performance.now() - start) / 1000).toFixed(1);
  const heartbeat = setInterval(() => console.log(`  ${name} has been running for ${Math.round(seconds())} s`), 60_000);
  let result;
  try {
    result = await phases[name]();
  } catch (error) {
    result = { passed: 0, failed: 1, output: `${error instanceof Problem ? error.message : error.stack}\n` };
  }
  clearInterval(heartbeat);
  if (result.passed + result.failed === 0 && !result.notRun) {
    result.failed = 1;
    result.output += '\nno test was run, which counts as a failure\n';
  }
  if (result.failed) console.log(result.output);
  if (result.notRun) console.log(`  NOT RUN: ${result.notRun}`);
  console.log(`${name}: ${result.passed} passed, ${result.failed} failed, ${seconds()} s`);
  return result;
}

// What is built once is never built again from its pieces, which would take as much of the disk as all else.
if (process.env.CI) process.env.CARGO_INCREMENTAL ??= '0';

await main(async () => {
  const named = process.argv.slice(2);
  if (named.includes('--list')) {
    console.log(Object.keys(phases).join('\n'));
    return 0;
  }
  const unknown = named.filter((name) => !(name in phases));
  if (unknown.length) throw new Problem(`no such phase: ${unknown.join(', ')}; there are ${Object.keys(phases).join(', ')}`);
  const chosen = Object.keys(phases).filter((name) => !named.length || named.includes(name));
  await setup(chosen.every((name) => name in needs) ? chosen.flatMap((name) => needs[name]) : undefined);
  const results = [];
  for (const name of chosen) results.push(await runPhase(name));
  const { passed, failed } = sum(results);
  console.log(`${passed} passed, ${failed} failed`);
  return failed ? 1 : 0;
});
