// Builds the JavaScript and the types of the package into dist. The WebAssembly is there already: see scripts/wasm.mjs.

import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, 'dist');
if (!existsSync(join(dist, 'eddydb_simd.wasm'))) {
  console.error('pkg/dist has no WebAssembly yet: run node scripts/wasm.mjs first');
  process.exit(1);
}
for (const file of readdirSync(dist)) if (/\.(js|d\.ts|map)$/.test(file)) rmSync(join(dist, file));

// Each entry is one file, so that whoever copies it has all of it.
await build({
  absWorkingDir: here,
  entryPoints: ['browser', 'node', 'embedded', 'inline', 'worker', 'worker-node', 'build', 'plan'].map((name) => `src/${name}.ts`),
  outdir: 'dist',
  bundle: true,
  format: 'esm',
  platform: 'neutral',
  mainFields: ['module', 'main'],
  target: 'es2022',
  external: ['node:*', './inline.js'],
  legalComments: 'inline',
  banner: { js: '/* Contains @msgpack/msgpack, (c) The MessagePack Community, ISC License: see LICENSE-msgpack in this package. */' },
  logLevel: 'warning',
});

const typescript = createRequire(import.meta.url).resolve('typescript/package.json');
const checked = spawnSync(process.execPath, [join(dirname(typescript), 'bin', 'tsc'), '-p', here], { stdio: 'inherit' });
if (checked.status !== 0) process.exit(checked.status ?? 1);

const msgpack = dirname(createRequire(import.meta.url).resolve('@msgpack/msgpack/package.json'));
copyFileSync(join(msgpack, 'LICENSE'), join(dist, 'LICENSE-msgpack'));
copyFileSync(join(here, '..', 'LICENSE'), join(here, 'LICENSE'));
