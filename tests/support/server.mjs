// A real `eddy serve` for tests of what talks to one.

import { spawn } from 'node:child_process';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

import { eddyProgram } from '../../scripts/native.mjs';


export class Server {
  #child;
  #directory;
  #more;
  #binary;

  /** Builds it, and starts it on an empty directory; `more` are further arguments. */
  static async start({ profile = 'debug', more = [] } = {}) {
    const server = new Server();
    server.#binary = eddyProgram(profile);
    server.#directory = await mkdtemp(path.join(tmpdir(), 'eddy-server-'));
    server.#more = more;
    await server.restart();
    return server;
  }

  async restart() {
    const listen = this.url ? new URL(this.url).host : '127.0.0.1:0';
    this.#child = spawn(this.#binary, ['serve', '--data', this.#directory, '--listen', listen, ...this.#more], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, RUST_LOG: 'warn' },
    });
    for await (const line of createInterface({ input: this.#child.stdout })) {
      if (!line.startsWith('listening on ')) continue;
      this.url = line.slice('listening on '.length);
      this.sync = `${this.url.replace('http', 'ws')}/sync`;
      return;
    }
    throw new Error('the server ended before it listened');
  }

  /** The id of its process. */
  get process() {
    return this.#child.pid;
  }

  async post(place, body = {}) {
    const response = await fetch(`${this.url}${place}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${place}: ${JSON.stringify(answer)}`);
    return answer;
  }

  async get(place) {
    return (await fetch(`${this.url}${place}`)).json();
  }

  /** Copies its data, which nobody may be writing meanwhile. @returns What puts the copy back, once nobody runs on what is there now. */
  async backUp() {
    const copy = `${this.#directory}-backup`;
    await cp(this.#directory, copy, { recursive: true });
    return async () => {
      await rm(this.#directory, { recursive: true });
      await cp(copy, this.#directory, { recursive: true });
      await rm(copy, { recursive: true });
    };
  }

  async kill() {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await gone;
  }

  async remove() {
    await this.kill();
    await rm(this.#directory, { recursive: true, force: true });
  }
}
