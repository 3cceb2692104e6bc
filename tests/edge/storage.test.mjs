// The conformance suite of storages on the worker's own, in a Durable Object: with all in the object, and with all that is put or synced in a bucket.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { findWasmBindgen, variantBuild } from '../../scripts/wasm.mjs';
import { Edge } from '../support/workerd.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const variant = 'eddydb_simd';
const glue = join(root, 'target', 'storage_foreign');

const script = `
  import { DurableObject } from 'cloudflare:workers';
  import wasm from './eddydb.wasm';
  import { checkConformance, conformanceCases, initSync, onPanic } from ${JSON.stringify(join(glue, 'suite.js'))};
  import { EdgeStorage } from './worker/src/edge-storage.ts';

  export class EddyDatabase extends DurableObject {
    async fetch(request) {
      const [, place, name] = new URL(request.url).pathname.split('/');
      initSync({ module: wasm });
      const died = new Promise((_, reject) => onPanic((message) => reject(new Error(message))));
      const options = { prefix: name + '/', belongs: () => true, ...(place === 'bucket' && { bucket: this.env.SEGMENTS }) };
      const done = checkConformance(name, () => EdgeStorage.open(this.ctx.storage, options)).then(() => 'passed');
      return Response.json(await Promise.race([done, died]).catch((error) => error.message));
    }
  }

  export default {
    async fetch(request, env) {
      const { pathname } = new URL(request.url);
      initSync({ module: wasm });
      if (pathname === '/cases') return Response.json(conformanceCases());
      return env.DATABASES.get(env.DATABASES.idFromName(pathname)).fetch(request);
    },
  };`;

function run(command, args, options) {
  const { status, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8', ...options });
  assert.equal(status, 0, error?.message ?? stderr);
}

async function bundled() {
  const { args, env } = variantBuild(variant);
  run('cargo', ['build', '--example', 'storage_foreign', ...args], { env });
  const built = join(root, 'target', variant, 'wasm32-unknown-unknown', 'wasm', 'examples', 'storage_foreign.wasm');
  run(findWasmBindgen(), [built, '--target', 'web', '--omit-default-module-path', '--out-dir', glue, '--out-name', 'suite']);
  const { outputFiles } = await build({
    stdin: { contents: script, resolveDir: root, loader: 'js' },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'neutral',
    conditions: ['workerd', 'worker'],
    mainFields: ['module', 'main'],
    target: 'es2022',
    external: ['cloudflare:*', '*.wasm'],
    logLevel: 'warning',
  });
  return { script: outputFiles[0].text, wasm: join(glue, 'suite_bg.wasm') };
}

test('the storage of the worker does what the suite says', async (t) => {
  const edge = await Edge.start(t, {}, { bucket: true, ...(await bundled()) });
  const { body: cases } = await edge.ask('GET', '/cases');
  assert.ok(cases.includes('random_operations_match_a_map'), JSON.stringify(cases));
  for (const place of ['object', 'bucket']) {
    for (const name of cases) {
      const { body } = await edge.ask('GET', `/${place}/${name}`);
      assert.equal(body, 'passed', `${place}, ${name}\n${edge.output()}`);
    }
    const keys = await edge.keys();
    assert.equal(keys.length > 0, place === 'bucket', `${keys.length} objects in the bucket with all in the ${place}`);
  }
});
