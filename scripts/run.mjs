// Child processes of the scripts: each in a group of its own, so that a signal to the script ends everything it started.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** What the user can act on: printed without a stack trace. */
export class Problem extends Error {}

const running = new Set();
const grouped = process.platform !== 'win32';

function kill(child, signal) {
  try {
    if (grouped) process.kill(-child.pid, signal);
    else child.kill(signal);
  } catch {
    // It ended by itself.
  }
}

let ending = false;
/** Ends every child, the hard way after a grace period, then this process. */
export async function endAll(exitCode) {
  if (ending) return;
  ending = true;
  const children = [...running];
  children.forEach((child) => kill(child, 'SIGTERM'));
  const gone = Promise.all(children.map((child) => child.exitCode ?? child.signalCode ?? once(child, 'exit')));
  await Promise.race([gone, new Promise((resolve) => setTimeout(resolve, 10_000).unref())]);
  children.forEach((child) => kill(child, 'SIGKILL'));
  process.exit(exitCode);
}

const numbers = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 };
for (const [signal, number] of Object.entries(numbers)) process.on(signal, () => endAll(128 + number));
// Should the script itself fail, nothing is left behind.
process.on('exit', () => running.forEach((child) => kill(child, 'SIGKILL')));

/** Starts a program. */
export function start(command, args, options = {}) {
  const child = spawn(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: grouped,
    shell: process.platform === 'win32' && !command.endsWith('.exe'),
    ...options,
  });
  running.add(child);
  child.on('close', () => running.delete(child));
  child.on('error', () => running.delete(child));
  return child;
}

/**
 * Runs a program to its end. With `capture`, its output is collected instead of shown. Tells `{ code, output }`; code is -1
 * when it could not be started, was killed, or took longer than `limitSeconds`.
 */
export async function run(command, args, { env = {}, cwd = root, capture = false, limitSeconds, onLine } = {}) {
  const child = start(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: capture ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'],
  });
  const chunks = [];
  let note = '';
  if (capture) {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        chunks.push(chunk);
        onLine?.(chunk.toString().trimEnd().split('\n').at(-1));
      });
    }
  }
  const timer = limitSeconds && setTimeout(() => {
    note = `\n${command} was ended: it took more than ${limitSeconds} s`;
    kill(child, 'SIGKILL');
  }, limitSeconds * 1000);
  const code = await new Promise((resolve) => {
    child.on('error', (error) => {
      note = `\n${command} cannot be started: ${error.message}`;
      resolve(-1);
    });
    child.on('close', (exit, signal) => {
      if (signal && !note) note = `\n${command} was ended by ${signal}`;
      resolve(exit ?? -1);
    });
  });
  clearTimeout(timer);
  return { code, output: Buffer.concat(chunks).toString() + note };
}

/** Runs a program quietly; its trimmed output, or undefined when it fails. */
export async function ask(command, args, options = {}) {
  const { code, output } = await run(command, args, { capture: true, limitSeconds: 60, ...options });
  return code === 0 ? output.trim() : undefined;
}

/** Runs a program before the user's eyes; throws a `Problem` when it fails. */
export async function must(command, args, options = {}) {
  const { code, output } = await run(command, args, options);
  if (code !== 0) throw new Problem(`${[command, ...args].join(' ')} failed (${code})${output && `:\n${output}`}`);
  return output;
}

/** Runs a script's main function: problems are told plainly, and nothing it started survives it. */
export async function main(body) {
  try {
    await endAll((await body()) ?? 0);
  } catch (error) {
    // A signal ends the children first, and their end is no news then.
    if (!ending) console.error(error instanceof Problem ? `\n${error.message}` : error);
    await endAll(1);
  }
}
