import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const made = [];

// Not after each test: what a test started in a directory may end only when the test has.
process.on('exit', () => {
  for (const path of made) rmSync(path, { recursive: true, force: true, maxRetries: 5 });
});

/** An empty directory that is gone when the tests have run. */
export function temporaryDirectory(prefix) {
  const path = mkdtempSync(join(tmpdir(), prefix));
  made.push(path);
  return path;
}
