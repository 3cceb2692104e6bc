// `npm start`: sets up and builds what is missing, then serves the console with its data in ./eddy-data, the sample loaded when
// that is empty. The last line is the address. Options after `--` go to `eddy serve`: npm start -- --listen 127.0.0.1:8000

import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { buildPackages, buildServer } from './build.mjs';
import { main, root, start } from './run.mjs';
import { setup, toBuild } from './setup.mjs';

await main(async () => {
  await setup(toBuild);
  console.error('building what is out of date');
  await buildServer();
  await buildPackages();

  const own = process.argv.slice(2);
  const options = ['serve'];
  const add = (name, value) => own.some((word) => word === name || word.startsWith(`${name}=`)) || options.push(name, value);
  add('--data', './eddy-data');
  add('--console', 'www/dist');
  for (const name of ['symbols', 'words']) options.push('--sample', `www/sample/${name}.arrow`);
  const server = start(binary(), [...options, ...own], { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface({ input: server.stdout })) {
    const address = /^listening on (\S+)$/.exec(line)?.[1];
    console.log(address ? `Eddy is at ${address}` : line);
  }
  const code = server.exitCode ?? (await new Promise((resolve) => server.once('exit', resolve)));
  return code ?? 1;
});

function binary() {
  const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
  return join(target, 'release', process.platform === 'win32' ? 'eddy.exe' : 'eddy');
}
