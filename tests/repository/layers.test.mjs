// The layers of the house (src/docs/architecture.md): each room uses rooms of the lines before its own, never of its own
// line or of those after it; and the core names nothing that would make a run differ from its replay.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

const src = fileURLToPath(new URL('../../src', import.meta.url));

const core = [['base'], ['distance', 'model'], ['quant', 'wal'], ['index'], ['segment'], ['engine'], ['query', 'sync'], ['stream']];
const shell = [['platform'], ['storage']];
const roof = [['db'], ['wasm', 'server']];

/** The rooms that each room may use. */
const allowed = new Map();
for (const side of [core, shell]) {
  const before = ['base'];
  for (const line of side) {
    for (const room of line) allowed.set(room, new Set(room === 'base' ? [] : before));
    before.push(...line);
  }
}
const below = [...core, ...shell].flat();
for (const line of roof) {
  for (const room of line) allowed.set(room, new Set(below));
  below.push(...line);
}

/** What the core must take as an argument, or leave to the rooms above it. */
const forbidden = [
  /\bSystemTime\b/, /\bInstant\b/, /\bstd::fs\b/, /\bstd::thread\b/, /\bstd::net\b/, /\bstd::env\b/, /\bgetrandom\b/, /\brand::/,
  /\btokio\b/, /\bweb_sys\b/, /\bjs_sys\b/, /\bwasm_bindgen\b/, /\basync\s+(fn|move|\{)/, /\.await\b/,
];

function* sources(directory) {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* sources(path);
    else if (entry.name.endsWith('.rs')) yield path;
  }
}

/** Rust source without comments and strings: what is left is what the compiler sees as names. */
export function code(text) {
  const token = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|r(#*)"[\s\S]*?"\1|"(?:\\[\s\S]|[^"\\])*"|'(?:\\[^\n]*?|[^'\\\n])'/g;
  return text.replace(token, (found) => (found.startsWith('/') ? ' ' : '""'));
}

/** The rooms that `text` names by `crate::room` or `crate::{room::…, room}`. */
export function roomsUsed(text) {
  const used = new Set([...text.matchAll(/\bcrate::(\w+)/g)].map((match) => match[1]));
  for (const match of text.matchAll(/\bcrate::\{/g)) {
    let depth = 0;
    let first = true;
    for (const [token] of text.slice(match.index + match[0].length).matchAll(/\w+|[{},]/g)) {
      if (token === '{') depth += 1;
      else if (token === '}' && depth === 0) break;
      else if (token === '}') depth -= 1;
      else if (depth === 0 && token === ',') first = true;
      else if (depth === 0 && first) {
        used.add(token);
        first = false;
      }
    }
  }
  return used;
}

const rooms = readdirSync(src, { withFileTypes: true }).filter((entry) => entry.isDirectory() && entry.name !== 'docs').map((entry) => entry.name);

test('every room has its line', () => {
  for (const room of rooms) assert.ok(allowed.has(room), `src/${room} is on no line of the layers`);
});

for (const room of rooms) {
  test(`${room} uses only the rooms before it`, () => {
    for (const path of sources(join(src, room))) {
      for (const used of roomsUsed(code(readFileSync(path, 'utf8')))) {
        if (used === room || !rooms.includes(used)) continue;
        assert.ok(allowed.get(room).has(used), `${relative(src, path)} uses crate::${used}`);
      }
    }
  });
}

for (const room of core.flat().filter((room) => rooms.includes(room))) {
  test(`${room} takes time, randomness and bytes as arguments`, () => {
    for (const path of sources(join(src, room))) {
      if (path.endsWith('tests.rs')) continue;
      const text = code(readFileSync(path, 'utf8')).split(/#\[cfg\((?:all\()?test/)[0];
      for (const pattern of forbidden) assert.doesNotMatch(text, pattern, relative(src, path));
    }
  });
}

test('the reader of imports sees what the compiler sees', () => {
  assert.deepEqual([...roomsUsed('use crate::{base::{Error, Result}, model::Batch as wal, quant};')], ['base', 'model', 'quant']);
  assert.deepEqual([...roomsUsed('use crate::db::Db; let x = crate::wal::frame();')], ['db', 'wal']);
  assert.deepEqual([...roomsUsed(code('// crate::db\n"crate::server" /* crate::db */ \'"\' crate::base'))], ['base']);
});
