// What the search benches share: processes that measure, and the sets that they measure on.

import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { variantBuild } from '../../scripts/wasm.mjs';

const here = dirname(fileURLToPath(import.meta.url));
export const root = join(here, '..', '..');

function cargo(name, args, env = process.env) {
  const done = spawnSync('cargo', ['build', '--message-format=json', ...args], {
    cwd: root, env, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 2 ** 28,
  });
  if (done.status !== 0) throw new Error(`cargo build ${args.join(' ')} failed`);
  const messages = done.stdout.trim().split('\n').map((line) => JSON.parse(line));
  return messages.filter(({ reason, target }) => reason === 'compiler-artifact' && target.name === name).at(-1);
}

/** The program of that name that measures natively. All are built together, for one has to link as much as the other. */
export const nativeProgram = (name = 'search_native') =>
  cargo(name, ['--release', '--features', 'hnsw-static', '--example', 'search_native', '--example', 'store_native', '--example', 'streams_native']).executable;

/** The program that measures sync natively; of the same library as the server. */
export const syncProgram = () => cargo('sync_native', ['--release', '--example', 'sync_native']).executable;

/** The WebAssembly of an example, built as a variant of the package's is. */
export function wasmModule(example, variant) {
  const { args, env } = variantBuild(variant);
  return cargo(example, ['--example', example, ...args], env).filenames.find((file) => file.endsWith('.wasm'));
}

/** Its exports. The crate's JavaScript bindings are in it too; nothing that is measured calls one of their imports. */
export function instantiate(file) {
  const module = new WebAssembly.Module(readFileSync(file));
  const imports = {};
  for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
    if (kind !== 'function') throw new Error(`${file} imports ${from}.${name}, a ${kind}`);
    (imports[from] ??= {})[name] = () => {
      throw new Error(`${from}.${name} was called`);
    };
  }
  return new WebAssembly.Instance(module, imports).exports;
}

/** The command that measures a variant of the WebAssembly in Chromium, for the set's file. */
export function wasmCommand(name, variant) {
  const module = wasmModule('search_wasm', variant);
  return [process.execPath, (set) => [join(here, 'wasm.mjs'), module, set, name]];
}

/** A process that measures; `ask` gives `{ value, seconds }`. */
export async function serve(command, args) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`${command} ${args.join(' ')} ended`);
    return value.split(' ');
  };
  const [isa, rows, queries] = await next();
  return {
    isa, rows: Number(rows), queries: Number(queries),
    async ask(operation, argument = 0, milliseconds = 0) {
      child.stdin.write(`${operation} ${argument} ${milliseconds}\n`);
      const [value, seconds] = (await next()).map(Number);
      return { value, seconds };
    },
    end: () => child.stdin.end(),
  };
}

function halfToFloat(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 0) return sign * 2 ** -24 * fraction;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * 2 ** (exponent - 25) * (1024 + fraction);
}

/** A float16 matrix of NumPy's format, as float32. */
export function readMatrix(file) {
  const bytes = readFileSync(file);
  const start = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString('latin1', 10, start);
  const shape = /'descr': '<f2', 'fortran_order': False, 'shape': \((\d+), (\d+)\)/.exec(header);
  if (!shape) throw new Error(`${file} is no row-major float16 matrix: ${header}`);
  const [rows, dim] = [Number(shape[1]), Number(shape[2])];
  const values = new Float32Array(rows * dim);
  for (let at = 0; at < values.length; at += 1) values[at] = halfToFloat(bytes.readUInt16LE(start + 2 * at));
  return { rows, dim, values };
}

export function writeSet(file, dim, vectors, queries) {
  const head = new Uint32Array([dim, vectors.length / dim, queries.length / dim]);
  writeFileSync(file, Buffer.concat([head, vectors, queries].map((array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength))));
}

/** A set just large enough to ask a process for its instruction set. */
export function writeTiny(directory) {
  const file = join(directory, 'tiny.set');
  writeSet(file, 4, new Float32Array(64).fill(0.5), new Float32Array(4).fill(0.5));
  return file;
}
