// Bundles the worker into dist, as wrangler does when it deploys: one script, and the WebAssembly beside it. Its client goes there too.

import { copyFileSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const dist = join(here, 'dist');
mkdirSync(dist, { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: ['src/index.ts'],
  outfile: 'dist/index.js',
  bundle: true,
  format: 'esm',
  platform: 'neutral',
  conditions: ['workerd', 'worker'],
  mainFields: ['module', 'main'],
  target: 'es2022',
  external: ['cloudflare:*'],
  logLevel: 'warning',
  plugins: [
    {
      name: 'wasm',
      setup(bundler) {
        bundler.onResolve({ filter: /\.wasm$/ }, ({ path }) => {
          copyFileSync(createRequire(import.meta.url).resolve(path), join(dist, 'eddydb.wasm'));
          return { path: './eddydb.wasm', external: true };
        });
      },
    },
  ],
});
await build({
  absWorkingDir: here,
  entryPoints: ['src/client.ts'],
  outdir: 'dist',
  bundle: true,
  format: 'esm',
  platform: 'neutral',
  target: 'es2022',
  external: ['eddydb/*'],
  logLevel: 'warning',
});
