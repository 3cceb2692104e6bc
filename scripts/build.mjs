// Builds what the npm packages, the console and the edge worker are made of, in order, each when it is out of date.
// Run: npm run build [-- --server, for the `eddy` binary too].

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { main, must, root } from './run.mjs';
import { setup, toBuild } from './setup.mjs';

/** The folders of the npm packages, in the order in which they need each other. */
export const places = ['pkg', 'www', 'worker'];

/** The `eddy` binary, as a user runs it. */
export async function buildServer() {
  await must('cargo', ['build', '--release', '--locked', '--bin', 'eddy']);
}

/** The WebAssembly, then every package that has something to build. */
export async function buildPackages() {
  await must(process.execPath, ['scripts/wasm.mjs']);
  for (const place of places) {
    const file = join(root, place, 'package.json');
    if (!existsSync(file) || !JSON.parse(readFileSync(file, 'utf8')).scripts?.build) continue;
    await must('npm', ['run', '--silent', 'build', '--workspace', place]);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    await setup(toBuild);
    if (process.argv.includes('--server')) await buildServer();
    await buildPackages();
  });
}
