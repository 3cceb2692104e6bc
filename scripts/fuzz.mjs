// `npm run fuzz -- --target log --seconds 600`: coverage-guided fuzzing of one target of fuzz/targets.rs, or of each with none named.
// Works with stable Rust: the coverage is LLVM's own, libFuzzer is built from its crate (which takes a C++ compiler). What is wrong is kept
// in fuzz/found/TARGET, where `npm test` tries it again; `--keep` adds what covers something new to fuzz/corpus/TARGET.

import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, copyFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { Problem, ask, main, must, root, run } from './run.mjs';

const fuzz = join(root, 'fuzz');
const work = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'fuzz');

/** What one target keeps in the repository. */
const KEPT_BYTES = 48 << 10;
const KEPT_FILES = 60;

/** The longest input that is tried, where 4 KiB are too few to hold a whole file. */
const lengths = { archive: 16384, arrow: 8192, log: 8192, manifest: 8192, parquet: 8192, segment: 16384, sync: 16384 };

const coverage = [
  '-Cpasses=sancov-module',
  ...['level=4', 'inline-8bit-counters', 'pc-table', 'trace-compares'].map((part) => `-Cllvm-args=-sanitizer-coverage-${part}`),
  '-Ccodegen-units=1',
];

const files = (directory) => (existsSync(directory) ? readdirSync(directory).map((name) => join(directory, name)) : []);

async function build() {
  const host = /^host: (.*)$/m.exec((await ask('rustc', ['-vV'])) ?? '')?.[1];
  if (!host) throw new Problem('rustc does not say what it compiles for; run: npm run setup');
  // A target named outright keeps these flags from build scripts.
  await must('cargo', ['build', '--release', '--locked', '--target', host], {
    cwd: fuzz,
    env: { RUSTFLAGS: `--cfg fuzzing ${coverage.join(' ')}`, CARGO_TARGET_DIR: work },
  });
  return join(work, host, 'release', process.platform === 'win32' ? 'eddydb-fuzz.exe' : 'eddydb-fuzz');
}

const targets = [...readFileSync(join(fuzz, 'targets.rs'), 'utf8').matchAll(/^ {4}\("(\w+)", /gm)].map((match) => match[1]);

/** Fuzzes one target; tells whether nothing was wrong. */
async function runTarget(program, target, { seconds, keep, jobs }) {
  const [corpus, kept, found] = [join(work, 'corpus', target), join(fuzz, 'corpus', target), join(fuzz, 'found', target)];
  mkdirSync(corpus, { recursive: true });
  const dictionary = join(fuzz, 'dictionaries', target);
  const options = [`-max_len=${lengths[target] ?? 4096}`, '-rss_limit_mb=2048', '-timeout=25'];
  const env = { EDDY_FUZZ_TARGET: target, TMPDIR: existsSync('/dev/shm') ? '/dev/shm' : tmpdir() };
  const crashes = join(work, 'found', target);
  rmSync(crashes, { recursive: true, force: true });
  mkdirSync(crashes, { recursive: true });
  console.log(`${target}: ${seconds} s`);
  const { code, output } = await run(program, [
    corpus, kept, ...(existsSync(found) ? [found] : []), ...options,
    ...(existsSync(dictionary) ? [`-dict=${dictionary}`] : []),
    ...(jobs > 1 ? [`-fork=${jobs}`] : []),
    `-artifact_prefix=${crashes}/`, `-max_total_time=${seconds}`, '-print_final_stats=1',
  ], { env, capture: true });
  const runs = /number_of_executed_units: (\d+)/.exec(output)?.[1];
  for (const file of files(crashes)) {
    mkdirSync(found, { recursive: true });
    const name = join(found, file.slice(crashes.length + 1));
    copyFileSync(file, name);
    console.log(`  wrong: ${name}`);
  }
  if (code !== 0) console.log(output.split('\n').slice(-60).join('\n'));
  console.log(`  ${runs ?? 'an unknown number of'} inputs`);
  if (code === 0 && keep) {
    const merged = join(work, 'merged', target);
    rmSync(merged, { recursive: true, force: true });
    mkdirSync(merged, { recursive: true });
    await must(program, [merged, kept, corpus, '-set_cover_merge=1', ...options], { env });
    let bytes = 0;
    const seeds = files(kept).filter((file) => /seed-[^/\\]*$/.test(file));
    for (const file of files(kept)) if (!seeds.includes(file)) rmSync(file);
    // By name, which is a hash: a choice without favourites.
    const small = files(merged).filter((file) => statSync(file).size <= KEPT_BYTES / 8).sort();
    for (const file of small.slice(0, KEPT_FILES)) {
      bytes += statSync(file).size;
      if (bytes <= KEPT_BYTES) renameSync(file, join(kept, file.slice(merged.length + 1, merged.length + 17)));
    }
    console.log(`  ${files(kept).length} inputs are kept in ${kept}`);
  }
  return code === 0;
}

await main(async () => {
  const { values } = parseArgs({
    options: { target: { type: 'string' }, seconds: { type: 'string', default: '600' }, jobs: { type: 'string', default: '1' }, keep: { type: 'boolean', default: false } },
  });
  if (values.target && !targets.includes(values.target)) throw new Problem(`no target ${values.target}; there are ${targets.join(', ')}`);
  const whole = (name) => {
    const number = Number(values[name]);
    if (!Number.isInteger(number) || number < 1) throw new Problem(`--${name} ${values[name]}: expected a whole number from 1`);
    return number;
  };
  const options = { seconds: whole('seconds'), jobs: Math.min(whole('jobs'), availableParallelism()), keep: values.keep };
  const program = await build();
  let wrong = 0;
  for (const target of values.target ? [values.target] : targets) wrong += Number(!(await runTarget(program, target, options)));
  return wrong ? 1 : 0;
});
