import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (name) => readFileSync(join(root, name), 'utf8');

for (const lock of ['Cargo.lock', 'fuzz/Cargo.lock']) {
  test(`${lock} names crates.io and nothing else`, () => {
    const sources = [...read(lock).matchAll(/^source = "(.*)"$/gm)].map((match) => match[1]);
    assert.ok(sources.length > 100);
    assert.deepEqual([...new Set(sources)], ['registry+https://github.com/rust-lang/crates.io-index']);
  });
}

test('package-lock.json names the npm registry and nothing else', () => {
  for (const [name, { resolved, link, integrity }] of Object.entries(JSON.parse(read('package-lock.json')).packages)) {
    if (!name.includes('node_modules/') || link) continue;
    assert.ok(integrity, `${name} has no checksum`);
    if (resolved !== undefined) assert.match(resolved, /^https:\/\/registry\.npmjs\.org\//, name);
  }
});

test('nothing in the repository redirects a registry', () => {
  for (const name of ['.npmrc', '.cargo/config.toml', '.cargo/config']) {
    if (existsSync(join(root, name))) assert.doesNotMatch(read(name), /registry|replace-with/, name);
  }
});

test('the versions of crate and npm package are one', () => {
  const crate = /^version = "(.*)"$/m.exec(read('Cargo.toml'))[1];
  assert.equal(JSON.parse(read('pkg/package.json')).version, crate);
});
