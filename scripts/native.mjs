// The native build that all tests share: a test that asked for other features would compile the crate and its dependents again.

import { execFileSync } from 'node:child_process';

import { root } from './run.mjs';

/** cargo's arguments for a build with every native feature. */
export const nativeArguments = ['--features', 'object-store,hnsw-static'];

/** Builds the command `eddy` where it is out of date, tells its path: `debug` as the tests share it, `release` as users run it. */
export function eddyProgram(profile = 'debug') {
  // What tests use besides gives their dependencies other features: with `cargo build` the command would be built apart, with all of them.
  const shared = ['test', '--no-run', '--test', 'cli', ...nativeArguments];
  const args = [...(profile === 'release' ? ['build', '--release', '--bin', 'eddy'] : shared), '--quiet', '--message-format', 'json'];
  const told = execFileSync('cargo', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28 });
  const messages = told.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  const built = messages.find(({ executable, target }) => executable && target.kind.includes('bin'));
  if (!built) throw new Error('cargo does not tell where it built eddy');
  return built.executable;
}
