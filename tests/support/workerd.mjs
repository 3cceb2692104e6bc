// The edge worker in the runtime that it is deployed to, with its objects' storage on disk.

import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { temporaryDirectory } from './files.mjs';

const built = fileURLToPath(new URL('../../worker/dist/', import.meta.url));
const miniflare = fileURLToPath(new URL('miniflare.mjs', import.meta.url));
const workerd = join(createRequire(import.meta.url).resolve('workerd/package.json'), '..', 'bin', 'workerd');
export const token = 'a token of the test';

const callerConfig = (compatibilityDate) => `const caller :Workerd.Worker = (
  compatibilityDate = "${compatibilityDate}",
  modules = [(name = "caller.js", esModule = embed "caller.js")],
  bindings = [(name = "MAIN", service = "main"), (name = "EDDY", service = (name = "main", entrypoint = "Databases"))],
);`;

/** With `caller`, requests go to a second worker, bound to the first one's HTTP interface as MAIN and its entrypoint as EDDY. */
const config = (address, bindings, caller) => `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    ${caller ? '(name = "caller", worker = .caller),' : ''}
    (name = "disk", disk = (path = "disk", writable = true)),
    (name = "internet", network = (allow = ["private"])),
  ],
  sockets = [(name = "http", address = "${address}", http = (), service = "${caller ? 'caller' : 'main'}")],
);
${caller ? callerConfig(caller.compatibilityDate) : ''}
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
  #caller;
  #kill;
  #gone;
  #output = '';
  #calls;

  /**
   * Starts it, with text `bindings` besides the token; `t` ends it. With `bucket`, which says whether one is bound, it runs in Miniflare. `script` is another main script, `wasm` the file of another module;
   * `caller` is a second worker, which has the first one's services: `{ script, compatibilityDate }`.
   */
  static async start(t, bindings = {}, { bucket, script, wasm, caller } = {}) {
    const edge = new Edge();
    mkdirSync(join(edge.#directory, 'disk'));
    for (const name of ['index.js', 'eddydb.wasm']) copyFileSync(join(built, name), join(edge.#directory, name));
    if (script) writeFileSync(join(edge.#directory, 'index.js'), script);
    if (caller) writeFileSync(join(edge.#directory, 'caller.js'), caller.script);
    edge.#caller = caller;
    if (wasm) copyFileSync(wasm, join(edge.#directory, 'eddydb.wasm'));
    t.after(() => edge.kill());
    await edge.restart(bindings, { bucket });
    return edge;
  }

  /** Starts it again, with other bindings where some are given, and with or without the bucket. */
  async restart(bindings, { bucket = this.bucket } = {}) {
    if (bindings) this.#bindings = { EDDY_TOKEN: token, ...bindings };
    this.bucket = bucket;
    this.port = await (bucket === undefined ? this.#startAlone() : this.#startInMiniflare(bucket));
  }

  #watch(child) {
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (this.#output += text));
    this.#gone = new Promise((resolve) => child.once('exit', resolve));
    return this.#gone.then(() => Promise.reject(new Error(`workerd ended:\n${this.#output}`)));
  }

  #startAlone() {
    writeFileSync(join(this.#directory, 'config.capnp'), config(`127.0.0.1:${this.port ?? 0}`, this.#bindings, this.#caller));
    const child = spawn(workerd, ['serve', 'config.capnp', '--experimental', '--control-fd=3'], { cwd: this.#directory, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
    this.#kill = () => child.kill('SIGKILL');
    const listening = new Promise((resolve) => {
      let text = '';
      child.stdio[3].setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
        const found = /"event":"listen".*"port":(\d+)/.exec(text);
        if (found) resolve(found[1]);
      });
    });
    return Promise.race([listening, this.#watch(child)]);
  }

  async #startInMiniflare(hasBucket) {
    const env = { ...process.env, MINIFLARE_WORKERD_PATH: workerd };
    const child = spawn(process.execPath, [miniflare], { env, detached: true, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    // Its workerd is of its group.
    this.#kill = () => child.exitCode ?? child.signalCode ?? process.kill(-child.pid, 'SIGKILL');
    const ended = this.#watch(child);
    let next = 0;
    this.#calls = (call, value) => {
      const id = next++;
      const answered = new Promise((resolve, reject) => {
        const take = ({ id: of, answer, error }) => {
          if (of !== id) return;
          child.off('message', take);
          error === undefined ? resolve(answer) : reject(new Error(error));
        };
        child.on('message', take);
      });
      child.send({ id, call, value });
      return Promise.race([answered, ended]);
    };
    return this.#calls('start', { directory: this.#directory, port: this.port, bindings: this.#bindings, hasBucket });
  }

  /** The keys of all that is in the bucket. */
  keys() {
    return this.#calls('keys');
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
    this.#kill();
    await this.#gone;
  }

  async ask(method, path, body, headers = { authorization: `Bearer ${token}` }) {
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body, (_, value) => (value instanceof Float32Array ? [...value] : value));
    const response = await fetch(`http://127.0.0.1:${this.port}${path}`, { method, headers, ...(text !== undefined && { body: text }) });
    return { status: response.status, body: await response.json() };
  }
}
