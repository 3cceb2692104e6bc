// The native build that all tests share: a test that asked for other features would compile the crate and its dependents again.

import { execFileSync } from 'node:child_process';

import { root } from './run.mjs';

/** cargo's arguments for a build with every native feature. */
export const nativeArguments = ['--features', 'object-store,hnsw-static'];

/** Builds the command `eddy` where it is out of date, tells its path: `debug` as the tests share it, `release` as users run it. */
export function eddyProgram(profile = 'debug') {
  const args = ['build', '--quiet', '--bin', 'eddy', '--message-format', 'json', ...(profile === 'release' ? ['--release'] : nativeArguments)];
  const told = execFileSync('cargo', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28 });
  const built = told.split('\n').filter(Boolean).map((line) => JSON.parse(line)).find(({ executable }) => executable);
  if (!built) throw new Error('cargo does not tell where it built eddy');
  return built.executable;
}
