import assert from 'node:assert/strict';

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `look` gives what is expected; fails with what it gives instead. */
export async function until(expected, look, patienceMs = 60_000) {
  for (const end = Date.now() + patienceMs; ; await pause(20)) {
    const found = await look();
    try {
      return assert.deepEqual(found, expected);
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}
