import type { Database, SyncSession } from 'eddydb/embedded';

import type { Above } from './env.js';

/** Longer than this nobody waits for a hub that does not answer: it is asked again later. */
const SETTLED_WITHIN_MS = 30_000;

/** The sync of a database with the hub above it, while the database is open. */
export class Upstream {
  readonly everyMs: number;
  readonly #session: SyncSession;
  readonly #db: Database;
  readonly #collections: string[];
  #there: number;
  #isLate = false;
  readonly #late: number;

  /** `there` are the collections that the database has. */
  constructor(db: Database, there: readonly string[], { url, token, collections, everyMs }: Above) {
    this.everyMs = everyMs;
    this.#db = db;
    this.#collections = collections;
    this.#there = this.#count(there);
    this.#session = db.sync({ url, collections, ...(token !== undefined && { token }) });
    this.#late = setTimeout(() => (this.#isLate = true), SETTLED_WITHIN_MS);
  }

  /** Whether both sides have had everything since it began, or the hub has not answered for long. */
  get isSettled(): boolean {
    const { pending, lastSyncedAt } = this.#session.status;
    return this.#isLate || (pending === 0 && lastSyncedAt !== undefined);
  }

  /** Whether all collections were there when it began. */
  get isComplete(): boolean {
    return this.#there === this.#collections.length;
  }

  /** Waits until both sides have had everything, but not longer than that. */
  async settled(withinMs = SETTLED_WITHIN_MS): Promise<void> {
    if (this.isSettled) return;
    await new Promise<void>((resolve) => {
      const forget = this.#session.onStatus(() => this.isSettled && done());
      const late = setTimeout(() => done(), withinMs);
      const done = () => {
        clearTimeout(late);
        forget();
        resolve();
      };
    });
  }

  /** A collection that neither side had may be here now: then the hub is to hear of it at once, instead of within a minute. */
  async look(): Promise<void> {
    if (this.#session.status.error?.kind !== 'not_found') return;
    const there = this.#count(await this.#db.collections());
    if (there > this.#there) await this.#session.resume();
    this.#there = there;
  }

  #count(there: readonly string[]): number {
    return this.#collections.filter((name) => there.includes(name)).length;
  }

  async stop(): Promise<void> {
    clearTimeout(this.#late);
    await this.#session.stop();
  }
}
