// `npm run sim -- --seeds N`: runs the simulations of tests/sim, of one store and of several that sync, over N seeds, or one by `--seed S`, which prints what the disk was asked.
// A failing seed is printed.

import { parseArgs } from 'node:util';

import { main, must } from './run.mjs';

await main(async () => {
  const { values } = parseArgs({ options: { seeds: { type: 'string', default: '20000' }, seed: { type: 'string' } } });
  for (const [name, text] of Object.entries(values)) {
    if (!/^\d+$/.test(text)) throw new Error(`--${name} ${text}: expected a whole number`);
  }
  const env = { ...process.env, ...(values.seed ? { EDDY_SIM_SEED: values.seed } : { EDDY_SIM_SEEDS: values.seeds }) };
  await must('cargo', ['test', '--test', 'sim', 'nothing', '--', '--nocapture'], { env });
});
