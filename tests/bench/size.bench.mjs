// What a page downloads: the package's WebAssembly as `pkg/dist` has it.

import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { wasmSizes } from '../../scripts/wasm.mjs';

const dist = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'pkg', 'dist');
const BROTLI_MAX = 700_000;

export async function run({ log }) {
  const names = existsSync(dist) ? readdirSync(dist).filter((name) => name.endsWith('.wasm')).map((name) => name.slice(0, -5)) : [];
  if (!names.length) {
    log('pkg/dist has no WebAssembly yet: npm run build');
    return { rows: [], targets: [] };
  }
  const rows = names.map((name) => ({ name, ...wasmSizes(name) }));
  log('| | bytes | gzip | brotli |\n|---|---|---|---|');
  for (const { name, bytes, gzip, brotli } of rows) log(`| ${name}.wasm | ${bytes} | ${gzip} | ${brotli} |`);
  const targets = rows.map(({ name, brotli }) => ({ name: `${name}.wasm, bytes of brotli`, value: brotli, limit: `at most ${BROTLI_MAX}`, met: brotli <= BROTLI_MAX }));
  return { rows, targets };
}
