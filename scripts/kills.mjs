// `npm run kills -- --count 200 --browser 20`: kills `eddy serve` so often under load, then Chromium, and looks after each kill whether
// everything is there that was acknowledged.

import { parseArgs } from 'node:util';

import { Problem, main, must } from './run.mjs';
import { setup } from './setup.mjs';

await main(async () => {
  const { values } = parseArgs({ options: { count: { type: 'string', default: '200' }, browser: { type: 'string', default: '20' } } });
  for (const [name, text] of Object.entries(values)) {
    if (!/^\d+$/.test(text)) throw new Problem(`--${name} ${text}: expected a whole number`);
  }
  await setup();
  if (Number(values.count)) {
    await must('cargo', ['test', '--test', 'server', 'survive_being_killed', '--', '--nocapture'], { env: { EDDY_KILLS: values.count } });
  }
  if (Number(values.browser)) {
    await must(process.execPath, ['scripts/build.mjs']);
    await must(process.execPath, ['--test', '--test-reporter=spec', 'tests/browser/kills.test.mjs'], { env: { EDDY_BROWSER_KILLS: values.browser } });
  }
});
