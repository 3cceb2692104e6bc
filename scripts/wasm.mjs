// Builds the WebAssembly of the npm package into pkg/dist, four times: `eddydb_relaxed` for engines with the relaxed SIMD
// instructions, `eddydb_simd` for those with simd128 alone, `eddydb_plain` for those without, and `eddydb_full`, with simd128 and what the
// three leave out for their size: pipelines and the hub. Does nothing when what it was built from is unchanged. Run: node scripts/wasm.mjs [--dev]; with
// --dev, one quick build with all cargo features, without SIMD and optimizer, stands for all four.

import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync, copyFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'pkg', 'dist');
const target = 'wasm32-unknown-unknown';

/** Cargo's features of what pages download, and of the build that has all. */
const core = 'wasm';
const full = 'wasm,streams,hub';

const variants = [
  { name: 'eddydb_relaxed', cargo: core, features: ['+simd128', '+relaxed-simd'], optimizer: ['--enable-simd', '--enable-relaxed-simd'] },
  { name: 'eddydb_simd', cargo: core, features: ['+simd128'], optimizer: ['--enable-simd'] },
  { name: 'eddydb_plain', cargo: core, features: [], optimizer: [] },
  { name: 'eddydb_full', cargo: full, features: ['+simd128'], optimizer: ['--enable-simd'] },
];

/** What every engine since 2021 has; Rust's own default for the target as well, named so that it stays so. */
const featuresAlways = ['+bulk-memory', '+nontrapping-fptoint', '+sign-ext', '+mutable-globals', '+reference-types', '+multivalue'];
/**
 * What LLVM is told, besides `opt-level = "s"`, so that code stays small where it is not hot. Measured, brotli and search: inlining as
 * usual costs 50 kB for nothing, and where libraries hint at it another 20 kB; loops made of vectors or unrolled by LLVM's own choice cost 20 kB, and search is as fast without,
 * for the hot loops have their vectors in the source. `opt-level = 3` costs 80 kB and searches no faster.
 */
const llvmArguments = '-inline-threshold=5 -inlinehint-threshold=30 -vectorize-loops=false -vectorize-slp=false -unroll-threshold=60 -unroll-runtime=false';
/** LLVM has optimized already: `-O3` here makes 2 % fewer bytes, which compress so much worse that a host sends 4 % more. */
const optimizerAlways = [
  '-O1', '--enable-bulk-memory', '--enable-bulk-memory-opt', '--enable-nontrapping-float-to-int', '--enable-sign-ext', '--enable-mutable-globals',
  '--enable-reference-types', '--enable-multivalue', '--strip-debug', '--strip-producers',
];

/** The version of the wasm-bindgen crate that the lock file resolves: the command-line tool must be the same. */
export function wasmBindgenVersion() {
  const lock = readFileSync(join(root, 'Cargo.lock'), 'utf8');
  const version = /name = "wasm-bindgen"\nversion = "([^"]+)"/.exec(lock)?.[1];
  if (!version) throw new Error('Cargo.lock names no wasm-bindgen');
  return version;
}

/** The directory that the project's own set-up installs that version into. */
export function wasmBindgenDirectory() {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  return join(cache, 'eddydb', `wasm-bindgen-${wasmBindgenVersion()}`, 'bin');
}

/** The wasm-bindgen tool of the right version, from the project's cache or the PATH; undefined when there is none. */
export function findWasmBindgen() {
  const version = wasmBindgenVersion();
  const directories = [wasmBindgenDirectory(), ...(process.env.PATH ?? '').split(delimiter).filter(Boolean)];
  for (const directory of directories) {
    const file = join(directory, process.platform === 'win32' ? 'wasm-bindgen.exe' : 'wasm-bindgen');
    if (!existsSync(file)) continue;
    const told = spawnSync(file, ['--version'], { encoding: 'utf8' });
    if (told.status === 0 && told.stdout.trim().split(' ')[1] === version) return file;
  }
  return undefined;
}

function* filesUnder(directory) {
  for (const entry of readdirSync(directory, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* filesUnder(path);
    else yield path;
  }
}

function fingerprint() {
  const hash = createHash('sha256');
  const inputs = ['Cargo.toml', 'Cargo.lock', 'build.rs', 'scripts/wasm.mjs'].map((name) => join(root, name));
  const sources = [...filesUnder(join(root, 'src'))].filter((path) => path.endsWith('.rs'));
  for (const path of [...inputs, ...sources]) {
    const bytes = readFileSync(path);
    hash.update(`${path.slice(root.length)}\0${bytes.length}\0`).update(bytes);
  }
  hash.update(process.env.EDDY_WASM_RUSTFLAGS ?? '');
  return hash.digest('hex');
}

/** Runs a command to its end; what it says is shown at once when it fails, or when `show` is set. */
async function run(command, args, { env = process.env, show = false } = {}) {
  const child = spawn(command, args, { cwd: root, env, stdio: show ? 'inherit' : ['ignore', 'pipe', 'pipe'] });
  const said = [];
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => said.push(chunk));
  const ended = await new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new Error(`${command}: ${error.message}`)));
    child.once('close', (code, signal) => resolve(code ?? signal));
  });
  if (ended === 0) return;
  process.stderr.write(Buffer.concat(said));
  throw new Error(`${command} ${args[0]} ended with ${ended}`);
}

const wasmBindgenFlags = ['--target', 'web', '--omit-default-module-path'];

function copyGlue(glue, from, name) {
  mkdirSync(join(dist, 'glue'), { recursive: true });
  for (const extension of ['js', 'd.ts']) copyFileSync(join(glue, `${from}.${extension}`), join(dist, 'glue', `${name}.${extension}`));
}

async function buildDev(wasmBindgen) {
  const compiler = process.env.EDDY_WASM_RUSTC;
  const env = { ...process.env, ...(compiler && { RUSTC: compiler, RUSTFLAGS: process.env.EDDY_WASM_RUSTFLAGS }) };
  await run(process.env.CARGO ?? 'cargo', ['build', '--lib', '--target', target, '--no-default-features', '--features', full], { env, show: true });
  const glue = join(root, 'target', 'eddydb_dev');
  await run(wasmBindgen, [join(root, 'target', target, 'debug', 'eddydb.wasm'), ...wasmBindgenFlags, '--out-dir', glue, '--out-name', 'eddydb']);
  for (const { name } of variants) {
    copyFileSync(join(glue, 'eddydb_bg.wasm'), join(dist, `${name}.wasm`));
    copyGlue(glue, 'eddydb', name);
  }
}

/** What cargo needs to build for a variant as the package is built: its arguments and environment. */
export function variantBuild(name) {
  const { cargo, features } = variants.find((variant) => variant.name === name);
  const flags = ['-C', `target-feature=${[...features, ...featuresAlways].join(',')}`];
  flags.push('-C', `llvm-args=${llvmArguments}`);
  // For a set-up whose WebAssembly standard library is outside the compiler's own tree: see wasmStd in setup.mjs.
  const compiler = process.env.EDDY_WASM_RUSTC;
  flags.push(...(process.env.EDDY_WASM_RUSTFLAGS ?? '').split(' ').filter(Boolean));
  const env = { ...process.env, CARGO_ENCODED_RUSTFLAGS: flags.join('\x1f'), ...(compiler && { RUSTC: compiler }) };
  const args = ['--profile', 'wasm', '--target', target, '--no-default-features', '--features', cargo, '--target-dir', join(root, 'target', name)];
  return { args, env };
}

async function buildVariant({ name, optimizer }, wasmBindgen) {
  const targetDirectory = join(root, 'target', name);
  const { args, env } = variantBuild(name);
  await run(process.env.CARGO ?? 'cargo', ['build', '--lib', ...args], { env });
  const glue = join(targetDirectory, 'glue');
  rmSync(glue, { recursive: true, force: true });
  await run(wasmBindgen, [
    join(targetDirectory, target, 'wasm', 'eddydb.wasm'),
    ...wasmBindgenFlags, '--out-dir', glue, '--out-name', name,
  ]);
  const wasmOpt = join(root, 'node_modules', 'binaryen', 'bin', 'wasm-opt');
  if (!existsSync(wasmOpt)) throw new Error('binaryen is not installed: run npm install');
  const output = join(dist, `${name}.wasm`);
  await run(process.execPath, [wasmOpt, join(glue, `${name}_bg.wasm`), '-o', output, ...optimizerAlways, ...optimizer]);
  copyGlue(glue, name, name);
  const { bytes, gzip, brotli } = wasmSizes(name);
  const kilobytes = (size) => `${(size / 1000).toFixed(0)} kB`;
  console.log(`${name}.wasm: ${kilobytes(bytes)}, gzip ${kilobytes(gzip)}, brotli ${kilobytes(brotli)}`);
}

/** Sizes of a built variant in bytes: as it is, and as a host would send it. */
export function wasmSizes(name) {
  const bytes = readFileSync(join(dist, `${name}.wasm`));
  const brotli = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  });
  return { bytes: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length, brotli: brotli.length };
}

/** Builds what is out of date; tells whether anything was. */
export async function buildWasm({ dev = false } = {}) {
  const stamp = join(dist, 'wasm.stamp');
  const wanted = `${fingerprint()}${dev ? ' dev' : ''}`;
  const outputs = variants.flatMap(({ name }) => [join(dist, `${name}.wasm`), join(dist, 'glue', `${name}.js`)]);
  if (outputs.every(existsSync) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return false;
  const wasmBindgen = findWasmBindgen();
  if (!wasmBindgen) {
    const version = wasmBindgenVersion();
    throw new Error(
      `wasm-bindgen ${version} is not installed: run npm start or npm test once, or: ` +
        `cargo install wasm-bindgen-cli --version ${version} --locked --root ${dirname(wasmBindgenDirectory())}`,
    );
  }
  mkdirSync(dist, { recursive: true });
  if (dev) await buildDev(wasmBindgen);
  else {
    console.log(`building ${variants.map(({ name }) => `${name}.wasm`).join(', ')} side by side: some minutes`);
    // The last and longest step of each has one thread.
    await Promise.all(variants.map((variant) => buildVariant(variant, wasmBindgen)));
  }
  writeFileSync(stamp, wanted);
  return true;
}

if (process.argv[1] && statSync(process.argv[1]).ino === statSync(fileURLToPath(import.meta.url)).ino) {
  try {
    if (!(await buildWasm({ dev: process.argv.includes('--dev') }))) console.log('the WebAssembly is up to date');
  } catch (error) {
    console.error(error.message);
    process.exit(1);
  }
}
