// The edge worker with an R2 bucket, in this process and the workerd that it starts: Miniflare brings the simulator of R2. EDDY_TEST_MINIFLARE names where
// it is installed. Takes what `workerd.mjs` sends, and says when it is ready; ends with whoever started it.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const install = createRequire(join(process.env.EDDY_TEST_MINIFLARE, 'package.json'));
const { Miniflare } = await import(pathToFileURL(install.resolve('miniflare')).href);

let miniflare;
const calls = {
  async start({ directory, port, bindings, hasBucket }) {
    miniflare = new Miniflare({
      modulesRoot: directory,
      modules: [{ type: 'ESModule', path: join(directory, 'index.js') }, { type: 'CompiledWasm', path: join(directory, 'eddydb.wasm') }],
      compatibilityDate: '2026-07-01',
      bindings,
      durableObjects: { DATABASES: { className: 'EddyDatabase', useSQLite: true } },
      durableObjectsPersist: join(directory, 'disk'),
      // The bucket is there for the test in any case.
      r2Buckets: { [hasBucket ? 'SEGMENTS' : 'ANOTHER']: 'segments' },
      r2Persist: join(directory, 'bucket'),
      host: '127.0.0.1',
      port: Number(port ?? 0),
      cf: false,
    });
    return Number((await miniflare.ready).port);
  },
  async keys() {
    const bindings = await miniflare.getBindings();
    const bucket = bindings.SEGMENTS ?? bindings.ANOTHER;
    return (await bucket.list()).objects.map(({ key }) => key);
  },
};

process.on('disconnect', () => process.exit(0));
process.on('message', async ({ id, call, value }) => {
  try {
    process.send({ id, answer: await calls[call](value) });
  } catch (error) {
    process.send({ id, error: error.message });
  }
});
