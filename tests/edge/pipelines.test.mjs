// The stream suite in a Durable Object of workerd, with its storage on disk, and a pipeline that goes on after the runtime was killed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { temporaryDirectory } from '../support/files.mjs';
import { flink, nexmark } from '../support/streams.mjs';

const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('../..', import.meta.url));
const workerd = join(require.resolve('workerd/package.json'), '..', 'bin', 'workerd');

const script = `
  import { DurableObject } from 'cloudflare:workers';
  import { openEmbedded } from 'eddydb/embedded';
  import { source } from 'eddydb/plan';
  import wasm from './eddydb.wasm';
  import { EdgeStorage } from './worker/src/edge-storage.ts';
  import { runAll, settled } from './tests/support/streams.mjs';

  export class Streams extends DurableObject {
    async fetch(request) {
      const { pathname } = new URL(request.url);
      this.db ??= await openEmbedded({ name: 'streams', wasm, build: 'full', storage: EdgeStorage.open(this.ctx.storage, { prefix: 'streams/' }) });
      try {
        return Response.json(await this[pathname.slice(1)]());
      } catch (error) {
        return Response.json({ error: error.stack }, { status: 500 });
      }
    }

    async suite() {
      return await runAll(this.db, [7]);
    }

    async begin() {
      const numbers = await this.db.createCollection('numbers', { fields: { id: { type: 'int64', primaryKey: true } } });
      const pipeline = await this.db.createPipeline('told', { plan: source('numbers', { id: 'int64' }).sink({ name: 'told' }), options: { checkpointIntervalMs: 0 } });
      await numbers.insert([0, 1, 2, 3].map((id) => ({ id })));
      const rows = pipeline.rows();
      for (let at = 0; at < 2; at++) await rows.next();
      await rows.acknowledge();
      await numbers.insert([{ id: 4 }]);
      return 'begun';
    }

    async end() {
      const pipeline = this.db.pipeline('told');
      await settled(pipeline);
      await pipeline.pause();
      const [{ rows: left }] = (await pipeline.status()).unread;
      const rows = pipeline.rows();
      const found = [];
      while (found.length < left) found.push((({ position, row }) => [position, row.id])((await rows.next()).value));
      return found;
    }
  }

  export default {
    fetch: (request, env) => env.STREAMS.get(env.STREAMS.idFromName('one')).fetch(request),
  };`;

const config = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker), (name = "disk", disk = (path = "disk", writable = true))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  compatibilityDate = "2026-11-01",
  modules = [(name = "index.js", esModule = embed "index.js"), (name = "eddydb.wasm", wasm = embed "eddydb.wasm")],
  durableObjectNamespaces = [(className = "Streams", uniqueKey = "streams", enableSql = true)],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [(name = "STREAMS", durableObjectNamespace = "Streams")],
);
`;

async function prepared() {
  const directory = temporaryDirectory('eddy-streams-');
  mkdirSync(join(directory, 'disk'));
  await build({
    stdin: { contents: script, resolveDir: root, loader: 'js' },
    outfile: join(directory, 'index.js'),
    bundle: true,
    format: 'esm',
    platform: 'neutral',
    conditions: ['workerd', 'worker'],
    mainFields: ['module', 'main'],
    target: 'es2022',
    external: ['cloudflare:*', './eddydb.wasm'],
    logLevel: 'warning',
  });
  copyFileSync(require.resolve('eddydb/eddydb_full.wasm'), join(directory, 'eddydb.wasm'));
  writeFileSync(join(directory, 'config.capnp'), config);
  return directory;
}

async function start(t, directory) {
  const child = spawn(workerd, ['serve', 'config.capnp', '--experimental', '--control-fd=3'], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const kill = () => (child.kill('SIGKILL'), ended);
  t.after(kill);
  const port = await new Promise((resolve, reject) => {
    let text = '';
    child.stdio[3].setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
      const found = /"event":"listen".*"port":(\d+)/.exec(text);
      if (found) resolve(found[1]);
    });
    ended.then(() => reject(new Error(`workerd ended:\n${output}`)));
  });
  const ask = async (path) => (await fetch(`http://127.0.0.1:${port}/${path}`)).json();
  return { ask, kill };
}

test('the stream suite in a Durable Object', async (t) => {
  const { ask } = await start(t, await prepared());
  assert.equal(await ask('suite'), flink.length + nexmark.length + 5);
});

test('a pipeline goes on after the runtime was killed', async (t) => {
  const directory = await prepared();
  const first = await start(t, directory);
  assert.equal(await first.ask('begin'), 'begun');
  await first.kill();
  const second = await start(t, directory);
  assert.deepEqual(await second.ask('end'), [[2, 2], [3, 3], [4, 4]]);
});
