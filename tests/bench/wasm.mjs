// Runs the suite in WebAssembly and speaks on its standard input and output as the native side does: see native.rs.
// node wasm.mjs MODULE SET

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const [, , moduleFile, setFile] = process.argv;
const module = new WebAssembly.Module(readFileSync(moduleFile));
// The crate's JavaScript bindings are in the module too; nothing that is measured calls one of their imports.
const imports = {};
for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
  if (kind !== 'function') throw new Error(`the module imports ${from}.${name}, a ${kind}`);
  (imports[from] ??= {})[name] = () => {
    throw new Error(`${from}.${name} was called`);
  };
}
const { exports } = new WebAssembly.Instance(module, imports);

const write = (bytes) => {
  const at = exports.bench_input(bytes.length);
  new Uint8Array(exports.memory.buffer, at, bytes.length).set(bytes);
  return bytes.length;
};
const set = readFileSync(setFile);
write(set);
const queries = exports.bench_load();
console.log(`Simd128 ${set.readUInt32LE(4)} ${queries}`);

for await (const line of createInterface({ input: process.stdin })) {
  const [operation, argument, milliseconds] = line.split(' ');
  const name = write(Buffer.from(operation));
  let [result, runs, seconds] = [0, 0, 0];
  const before = process.cpuUsage();
  while (runs === 0 || seconds * 1000 < Number(milliseconds)) {
    result = Math.max(result, exports.bench_run(name, Number(argument)));
    runs += 1;
    const { user, system } = process.cpuUsage(before);
    seconds = (user + system) / 1e6;
  }
  console.log(`${result} ${seconds / runs}`);
}
