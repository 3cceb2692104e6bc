// A collection of several segments, and what is asked of it with and without workers beside the engine. Browsers run these too, from their
// text: they use nothing but their arguments.

/** Fills `notes` with so many flushed segments of so many rows, and some more rows; some are replaced and deleted. */
export async function fillSegments(db, segments, rows, index) {
  const number = (seed) => (Math.imul(seed ^ (seed >>> 15), 2246822519) >>> 8) / 2 ** 24;
  const row = (id, round) => ({ id, group: id % 10, embedding: Float32Array.from({ length: 32 }, (_, at) => number((id * 32 + at + 1) * 2654435761 + round)) });
  const notes = await db.createCollection('notes', {
    fields: {
      id: { type: 'int64', primaryKey: true },
      group: { type: 'int64' },
      embedding: { type: 'float_vector', dim: 32, metric: 'L2', index },
    },
  });
  for (let segment = 0; segment < segments; segment += 1) {
    await notes.insert(Array.from({ length: rows }, (_, at) => row(segment * rows + at, 0)));
    await notes.flush();
  }
  await notes.upsert(Array.from({ length: 30 }, (_, at) => row(at * 41, 1)));
  await notes.delete({ keys: Array.from({ length: 30 }, (_, at) => at * 37 + 5) });
}

/** Waits until background work has come to its end: all is indexed, and so many workers have copies. */
export async function settled(db, workers) {
  for (let before = ''; ; ) {
    const { collections, pool } = await db.stats();
    const now = JSON.stringify([collections.map(({ segments, rowsUnindexed }) => [segments, rowsUnindexed]), pool?.segments, pool?.bytes]);
    const isDone = collections.every(({ rowsUnindexed, states }) => rowsUnindexed === 0 && states.sealed + states.compacting === 0);
    const hasCopies = workers === 0 || (pool?.segments ?? 0) >= 1;
    if (isDone && hasCopies && now === before) return;
    before = now;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** What `notes` answers: keys and scores. */
export async function answersOf(db) {
  const notes = db.collection('notes');
  const query = (seed) => Float32Array.from({ length: 32 }, (_, at) => ((seed * 131 + at * 29) % 97) / 97);
  const keys = (hits) => hits.map(({ key, score }) => [key, score]);
  const answers = [];
  for (let seed = 0; seed < 4; seed += 1) {
    const search = { vector: query(seed), limit: 20, outputFields: ['id'] };
    answers.push(keys((await notes.search({ ...search, exact: true })).hits));
    answers.push(keys((await notes.search({ ...search, exact: true, filter: 'group < 4' })).hits));
    answers.push(keys((await notes.search({ ...search, exact: true, groupBy: 'group', limit: 5 })).hits));
  }
  const vectors = Array.from({ length: 24 }, (_, at) => query(at + 10));
  answers.push((await notes.search({ vectors, limit: 5, exact: true, outputFields: ['id'] })).results.map(keys));
  answers.push((await notes.search({ vectors, limit: 5, outputFields: ['id'] })).results.map(keys));
  const snapshot = await notes.snapshot();
  answers.push(keys((await snapshot.search({ vector: query(3), limit: 9, exact: true, outputFields: ['id'] })).hits));
  await snapshot.release();
  return answers;
}
