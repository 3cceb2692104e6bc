// The edge worker in the runtime that it is deployed to, with its objects' storage on disk.

import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { temporaryDirectory } from './files.mjs';

const built = fileURLToPath(new URL('../../worker/dist/', import.meta.url));
const workerd = join(createRequire(import.meta.url).resolve('workerd/package.json'), '..', 'bin', 'workerd');
export const token = 'a token of the test';

const config = (address, bindings) => `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "disk", disk = (path = "disk", writable = true)),
    (name = "internet", network = (allow = ["private"])),
  ],
  sockets = [(name = "http", address = "${address}", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  compatibilityDate = "2026-11-01",
  modules = [(name = "index.js", esModule = embed "index.js"), (name = "eddydb.wasm", wasm = embed "eddydb.wasm")],
  durableObjectNamespaces = [(className = "EddyDatabase", uniqueKey = "eddy", enableSql = true)],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [
    (name = "DATABASES", durableObjectNamespace = "EddyDatabase"),
    ${Object.entries(bindings).map(([name, text]) => `(name = ${JSON.stringify(name)}, text = ${JSON.stringify(text)}),`).join('\n    ')}
  ],
);
`;

/** A workerd that can be killed and started again, on the same port and disk. */
export class Edge {
  #directory = temporaryDirectory('eddy-edge-');
  #bindings;
  #child;
  #gone;
  #output = '';

  /** Starts it, with text `bindings` besides the token; `t` ends it. */
  static async start(t, bindings = {}) {
    const edge = new Edge();
    edge.#bindings = { EDDY_TOKEN: token, ...bindings };
    mkdirSync(join(edge.#directory, 'disk'));
    for (const name of ['index.js', 'eddydb.wasm']) copyFileSync(join(built, name), join(edge.#directory, name));
    t.after(() => edge.kill());
    await edge.restart();
    return edge;
  }

  /** Starts it again, with other bindings where some are given. */
  async restart(bindings) {
    if (bindings) this.#bindings = { EDDY_TOKEN: token, ...bindings };
    writeFileSync(join(this.#directory, 'config.capnp'), config(`127.0.0.1:${this.port ?? 0}`, this.#bindings));
    const child = spawn(workerd, ['serve', 'config.capnp', '--experimental', '--control-fd=3'], { cwd: this.#directory, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (this.#output += text));
    this.#gone = new Promise((resolve) => child.once('exit', resolve));
    this.port = await new Promise((resolve, reject) => {
      let text = '';
      child.stdio[3].setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
        const found = /"event":"listen".*"port":(\d+)/.exec(text);
        if (found) resolve(found[1]);
      });
      this.#gone.then(() => reject(new Error(`workerd ended:\n${this.#output}`)));
    });
  }

  /** What it has said. */
  output() {
    return this.#output;
  }

  /** Where clients of a database sync. */
  syncUrl(database) {
    return `ws://127.0.0.1:${this.port}/databases/${database}/sync`;
  }

  async kill() {
    this.#child.kill('SIGKILL');
    await this.#gone;
  }

  async ask(method, path, body, headers = { authorization: `Bearer ${token}` }) {
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body, (_, value) => (value instanceof Float32Array ? [...value] : value));
    const response = await fetch(`http://127.0.0.1:${this.port}${path}`, { method, headers, ...(text !== undefined && { body: text }) });
    return { status: response.status, body: await response.json() };
  }
}
