// Writes rows to the database in the directory named by the first argument until it is killed, and prints the number of rows after each
// batch that was acknowledged. The second argument is the first key.

import { open } from 'eddydb';

import { makeRows, schema } from './vectors.mjs';

const [path, first] = process.argv.slice(2);
const db = await open({ name: 'writer', path });
const notes = await db.createCollection('notes', schema, { ifNotExists: true });
for (let next = Number(first), size = 1; ; next += size, size = (size % 40) + 1) {
  await notes.insert(makeRows(size, { first: next }));
  // Waits while the pipe is full: whoever reads may be busy.
  await new Promise((resolve) => process.stdout.write(`${next + size}\n`, resolve));
}
