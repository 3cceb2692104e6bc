// A Python with one package, for tests that compare with it. Nothing depends on it: where it cannot be had, `problem` says why.

import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { root, run } from './run.mjs';

export async function pythonWith(name) {
  const directory = join(root, 'target', 'python');
  const python = join(directory, process.platform === 'win32' ? 'Scripts' : 'bin', 'python');
  const steps = [
    ...(existsSync(python) ? [] : [['python3', ['-m', 'venv', directory]]]),
    [python, ['-c', `import ${name}`]],
    [python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', name]],
    [python, ['-c', `import ${name}`]],
  ];
  let problem;
  for (const [command, args] of steps) {
    try {
      const { code, output } = await run(command, args, { capture: true, limitSeconds: 300 });
      problem = code === 0 ? undefined : `${command} ${args.join(' ')}: ${output.trim()}`;
    } catch (error) {
      problem = error.message;
    }
    if (problem && command === 'python3') return { problem };
    if (!problem && args[1] === `import ${name}`) return { python };
  }
  return { problem };
}
