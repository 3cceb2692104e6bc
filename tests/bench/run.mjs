// `npm run bench`: every `*.bench.mjs` beside this file but `peers` and `large`, one after the other. Prints tables, and with `--json FILE` writes what was
// measured; `npm run bench -- search size` runs the named ones. Each ends with its targets, met or missed; a missed one is told, and fails
// nothing: how fast a shared machine is says little about the code.
//
// A bench exports `async run({ log, directory })` and tells `{ rows: [{ name, ... }], targets: [{ name, value, limit, met }] }`;
// `directory` is removed afterwards.

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = dirname(fileURLToPath(import.meta.url));
const { values, positionals } = parseArgs({ options: { json: { type: 'string' } }, allowPositionals: true });
const all = readdirSync(here).filter((name) => name.endsWith('.bench.mjs')).map((name) => name.slice(0, -'.bench.mjs'.length)).sort();
// What others make is downloaded only for those who ask; so is a store that takes many minutes to build.
const chosen = positionals.length ? positionals : all.filter((name) => name !== 'peers' && name !== 'large');
for (const name of chosen) if (!all.includes(name)) throw new Error(`no bench ${name}; there are ${all.join(', ')}`);

const machine = { cpu: cpus()[0].model, cores: cpus().length, memory_gb: Math.round(totalmem() / 2 ** 30), node: process.version, date: new Date().toISOString().slice(0, 10) };
console.log(`${machine.cpu}, ${machine.cores} cores, ${machine.memory_gb} GB; Node ${machine.node}; ${machine.date}`);

const results = {};
const targets = [];
for (const name of chosen) {
  const directory = mkdtempSync(join(tmpdir(), 'eddy-bench-'));
  try {
    const { run } = await import(`./${name}.bench.mjs`);
    console.log(`\n## ${name}`);
    results[name] = await run({ log: (line) => console.log(line), directory });
    targets.push(...results[name].targets);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

console.log('\n## targets');
for (const { name, value, limit, met } of targets) console.log(`${met ? 'met   ' : 'MISSED'}  ${name}: ${value}, target ${limit}`);
if (values.json) writeFileSync(values.json, `${JSON.stringify({ machine, results }, null, 2)}\n`);
