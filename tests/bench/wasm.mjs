// Runs the suite in Chromium's WebAssembly and speaks on its standard input and output as the native side does: see native.rs.
// node wasm.mjs MODULE SET NAME

import { createReadStream, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { launch } from '../browser/harness.mjs';

const [, , moduleFile, setFile, name] = process.argv;
// A server of its own: what a route of the browser's driver is fulfilled with, a set of 100 MB, is too much for it.
const server = createServer((request, response) => {
  const path = { '/module.wasm': moduleFile, '/set': setFile }[request.url];
  if (!path) return void response.writeHead(200, { 'content-type': 'text/html' }).end();
  response.writeHead(200, { 'content-type': path === moduleFile ? 'application/wasm' : 'application/octet-stream' });
  createReadStream(path).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const browser = await launch();
const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${server.address().port}/`);

const queries = await page.evaluate(async () => {
  const module = await WebAssembly.compileStreaming(fetch('/module.wasm'));
  // The crate's JavaScript bindings are in the module too; nothing that is measured calls one of their imports.
  const imports = {};
  for (const { module: from, name: called, kind } of WebAssembly.Module.imports(module)) {
    if (kind !== 'function') throw new Error(`the module imports ${from}.${called}, a ${kind}`);
    (imports[from] ??= {})[called] = () => {
      throw new Error(`${from}.${called} was called`);
    };
  }
  const { exports } = await WebAssembly.instantiate(module, imports);
  const write = (bytes) => {
    const at = exports.bench_input(bytes.length);
    new Uint8Array(exports.memory.buffer, at, bytes.length).set(bytes);
    return bytes.length;
  };
  write(new Uint8Array(await (await fetch('/set')).arrayBuffer()));
  const loaded = exports.bench_load();
  // There is no clock of the processor here: what else the machine does shows, and the shortest of several rounds counts.
  window.measure = (operation, argument, milliseconds) => {
    const length = write(new TextEncoder().encode(operation));
    let [result, runs, spent] = [0, 0, 0];
    const start = performance.now();
    while (runs === 0 || spent < milliseconds) {
      result = Math.max(result, exports.bench_run(length, argument));
      runs += 1;
      spent = performance.now() - start;
    }
    return [result, spent / 1000 / runs];
  };
  return loaded;
});
console.log(`${name} ${readFileSync(setFile).readUInt32LE(4)} ${queries}`);

for await (const line of createInterface({ input: process.stdin })) {
  const [operation, argument, milliseconds] = line.split(' ');
  const told = await page.evaluate((asked) => window.measure(...asked), [operation, Number(argument), Number(milliseconds)]);
  console.log(told.join(' '));
}
await browser.close();
server.closeAllConnections();
server.close();
