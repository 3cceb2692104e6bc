// Writes rows to the database in the directory named by the first argument until it is killed, and prints the number of rows after each
// batch that was acknowledged. The second argument is the first key.

import { writeSync } from 'node:fs';

import { open } from 'eddydb';

import { makeRows, schema } from './vectors.mjs';

const [path, first] = process.argv.slice(2);
const db = await open({ name: 'writer', path });
const notes = await db.createCollection('notes', schema, { ifNotExists: true });
for (let next = Number(first), size = 1; ; next += size, size = (size % 40) + 1) {
  await notes.insert(makeRows(size, { first: next }));
  writeSync(1, `${next + size}\n`);
}
