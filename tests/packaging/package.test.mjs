// The tarball that npm would publish, installed without a network and used as its users do.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import test, { before } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { fileURLToPath } from 'node:url';

import { build as esbuild } from 'esbuild';
import { build as vite } from 'vite';

import { launch, serveFiles } from '../support/browser.mjs';
import { temporaryDirectory } from '../support/files.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const dist = join(root, 'pkg', 'dist');

function run(command, args, options) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', ...options });
  assert.equal(status, 0, `${command} ${args.join(' ')}\n${error ?? ''}${stdout}${stderr}`);
  return stdout;
}

/** A project that has installed the tarball, and the files that are in it. */
let consumer;
let packed;

before(() => {
  consumer = temporaryDirectory('eddy-packaging-');
  [packed] = JSON.parse(run('npm', ['pack', '--json', '--silent', '--ignore-scripts', '--pack-destination', consumer], { cwd: join(root, 'pkg') }));
  writeFileSync(join(consumer, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--silent', join(consumer, packed.filename)], { cwd: consumer });
});

const application = `
  import { open } from 'eddydb';
  export async function use(options) {
    const db = await open({ name: 'packaging', ...options });
    const notes = await db.createCollection('notes', {
      fields: { id: { type: 'int64', primaryKey: true }, title: { type: 'varchar' }, v: { type: 'float_vector', dim: 2, metric: 'L2' } },
    });
    await notes.insert([{ id: 1, title: 'one', v: [1, 1] }, { id: 2, title: 'two', v: [2, 2] }]);
    const { hits } = await notes.search({ vector: [2, 2.1], limit: 1 });
    await db.close();
    return hits[0].row;
  }`;

test('the tarball has what is used, and nothing else', () => {
  const names = packed.files.map((file) => file.path).sort();
  for (const name of ['LICENSE', 'README.md', 'package.json', 'dist/LICENSE-msgpack', 'dist/browser.js', 'dist/browser.d.ts', 'dist/node.js', 'dist/node.d.ts',
    'dist/embedded.js', 'dist/embedded.d.ts', 'dist/inline.js', 'dist/worker.js', 'dist/worker-node.js', 'dist/eddydb_relaxed.wasm', 'dist/eddydb_simd.wasm',
    'dist/eddydb_plain.wasm', 'dist/eddydb_full.wasm', 'dist/plan.js', 'dist/plan.d.ts']) {
    assert.ok(names.includes(name), `${name} is missing`);
  }
  assert.deepEqual(names.filter((name) => !/^(LICENSE|README\.md|package\.json|dist\/(LICENSE-msgpack|[\w-]+\.(js|d\.ts|wasm)))$/.test(name)), []);
  const manifest = JSON.parse(readFileSync(join(consumer, 'node_modules/eddydb/package.json'), 'utf8'));
  assert.equal(manifest.dependencies, undefined);
});

test('the WebAssembly asks its host for nothing but its own glue', async () => {
  for (const name of ['eddydb_relaxed', 'eddydb_simd', 'eddydb_plain', 'eddydb_full']) {
    const bytes = readFileSync(join(dist, `${name}.wasm`));
    // Node 20 has the relaxed instructions behind a flag.
    if (!WebAssembly.validate(bytes)) setFlagsFromString('--experimental-wasm-relaxed-simd');
    const module = await WebAssembly.compile(bytes);
    assert.deepEqual([...new Set(WebAssembly.Module.imports(module).map((entry) => entry.module))], [`./${name}_bg.js`]);
  }
});

test('Node: in memory and from files', () => {
  writeFileSync(join(consumer, 'application.js'), application);
  const program = `
    import { use } from './application.js';
    console.log(JSON.stringify([await use({}), await use({ path: './data' })]));`;
  const rows = JSON.parse(run(process.execPath, ['--input-type=module', '-e', program], { cwd: consumer }));
  assert.deepEqual(rows, [{ id: 2, title: 'two' }, { id: 2, title: 'two' }]);
  assert.ok(existsSync(join(consumer, 'data')));
});

test('TypeScript: strict, by Node and by bundlers', () => {
  const tsc = join(createRequire(import.meta.url).resolve('typescript/package.json'), '..', 'bin', 'tsc');
  const source = `
    import { open, EddyError, type Row } from 'eddydb';
    const schema = { fields: { id: { type: 'int64', primaryKey: true }, title: { type: 'varchar', nullable: true }, v: { type: 'float_vector', dim: 2 } } } as const;
    const db = await open({ name: 'types' });
    const notes = await db.createCollection('notes', schema);
    const row: Row<typeof schema> = (await notes.query({ outputFields: ['*'] }))[0]!;
    const title: string | null = row.title;
    const vector: Float32Array = row.v;
    // @ts-expect-error a title may be null
    const wrong: string = row.title;
    export { EddyError, title, vector, wrong };`;
  writeFileSync(join(consumer, 'use.ts'), source);
  for (const [module, moduleResolution] of [['NodeNext', 'NodeNext'], ['ESNext', 'Bundler']]) {
    const compilerOptions = { target: 'ES2022', module, moduleResolution, strict: true, exactOptionalPropertyTypes: true, noEmit: true, types: [], lib: ['ES2023', 'DOM'] };
    writeFileSync(join(consumer, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['use.ts'] }));
    run(process.execPath, [tsc, '-p', consumer]);
  }
});

/** Opens a built page, which shows the row that it found. */
async function show(t, directory) {
  const url = await serveFiles(t, { directory, index: readFileSync(join(directory, 'index.html'), 'utf8') });
  const { context } = await launch(t);
  const page = await context.newPage();
  const noise = [];
  page.on('console', (message) => noise.push(message.text()));
  page.on('pageerror', (error) => noise.push(error.message));
  await page.goto(url);
  await page.waitForFunction(() => document.title !== 'waiting');
  assert.deepEqual(noise, []);
  return JSON.parse(await page.title());
}

const page = (script) => `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>waiting</title><script type="module" src="${script}"></script>`;
/** Uses the package, also with a worker beside the engine's, which is of the same script. */
const main = `
  import { open } from 'eddydb';
  import { use } from './application.js';
  import { answersOf, fillSegments, settled } from ${JSON.stringify(join(root, 'tests', 'support', 'pool.mjs'))};
  async function show() {
    const row = await use({ storage: 'opfs' });
    const db = await open({ name: 'pool', workers: 1 });
    await fillSegments(db, 2, 500, { type: 'HNSW', m: 8, efConstruction: 40 });
    await settled(db, 1);
    await answersOf(db);
    const { workers, failures, searches } = (await db.stats()).pool;
    await db.close();
    return { row, pool: { workers, failures, searched: searches > 0 } };
  }
  show().then((shown) => (document.title = JSON.stringify(shown)), (error) => (document.title = JSON.stringify(error.kind + ': ' + error.message)));`;
const shown = { row: { id: 2, title: 'two' }, pool: { workers: 1, failures: 0, searched: true } };

test('a page built by esbuild, with the files that the README names beside it', async (t) => {
  writeFileSync(join(consumer, 'application.js'), application);
  writeFileSync(join(consumer, 'main.js'), main);
  const output = join(consumer, 'esbuild');
  mkdirSync(output, { recursive: true });
  await esbuild({ absWorkingDir: consumer, entryPoints: ['main.js'], bundle: true, format: 'esm', outdir: output, logLevel: 'silent', external: ['./inline.js'] });
  for (const name of ['worker.js', 'eddydb_relaxed.wasm', 'eddydb_simd.wasm', 'eddydb_plain.wasm']) copyFileSync(join(consumer, 'node_modules/eddydb/dist', name), join(output, name));
  writeFileSync(join(output, 'index.html'), page('./main.js'));
  assert.deepEqual(await show(t, output), shown);
});

test('a page built by Vite, with nothing set up', async (t) => {
  writeFileSync(join(consumer, 'application.js'), application);
  writeFileSync(join(consumer, 'main.js'), main);
  writeFileSync(join(consumer, 'index.html'), page('/main.js'));
  const output = join(consumer, 'vite');
  await vite({ root: consumer, configFile: false, logLevel: 'error', build: { outDir: output, emptyOutDir: true } });
  assert.ok(readdirSync(join(output, 'assets')).some((name) => name.endsWith('.wasm')));
  assert.deepEqual(await show(t, output), shown);
});
