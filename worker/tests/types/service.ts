// What another worker sees of the service that it is bound to.

import { EdgeDatabase } from '../../src/client.js';
import type { Databases, Written } from '../../src/index.js';

interface Env {
  EDDY: Service<typeof Databases>;
}

const schema = {
  fields: {
    id: { type: 'int64', primaryKey: true },
    title: { type: 'varchar', maxLength: 200 },
    embedding: { type: 'float_vector', dim: 4, metric: 'L2' },
  },
} as const;

export async function direct({ EDDY }: Env): Promise<void> {
  const written: Written = await EDDY.insert('mine', 'notes', [{ id: 1, title: 'one', embedding: [1, 2, 3, 4] }]);
  const names: string[] = await EDDY.collections('mine');
  const { hits, rowsScanned } = await EDDY.search('mine', 'notes', { vector: new Float32Array(4), limit: 5 });
  const score: number = hits[0]!.score;
  const count: number = await EDDY.count('mine', 'notes', { filter: 'id < {most}', filterParams: { most: 30 } });
  void [written.lsn, names, rowsScanned, score, count];
  // @ts-expect-error a search has a vector
  await EDDY.search('mine', 'notes', { limit: 5 });
  // @ts-expect-error no such operation
  await EDDY.truncate('mine', 'notes');
}

export async function typed({ EDDY }: Env): Promise<void> {
  const notes = new EdgeDatabase({ binding: EDDY, database: 'mine' }).collection('notes', schema);
  const [row] = await notes.query({ filter: 'id == 1', outputFields: ['title', 'embedding'] });
  const title: string = row!.title;
  const vector: number[] = row!.embedding;
  // @ts-expect-error it was not asked for
  void row!.id;
  // @ts-expect-error a title is text
  await notes.insert([{ id: 1, title: 2, embedding: [1, 2, 3, 4] }]);
  void [title, vector];
}
