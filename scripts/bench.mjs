// `npm run bench`: builds what is measured, then measures. Options after `--` go to the benchmark.

import { buildPackages } from './build.mjs';
import { main, must } from './run.mjs';
import { setup } from './setup.mjs';

await main(async () => {
  await setup();
  await buildPackages();
  await must(process.execPath, ['tests/bench/run.mjs', ...process.argv.slice(2)]);
});
