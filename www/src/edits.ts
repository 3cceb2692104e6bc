import { type ChangeStream, type Collection, type Database, EddyError, open, type Pipeline } from 'eddydb';

import type { Store } from './store';

/** The windows that edits are counted in. */
export const WINDOW_MS = 5_000;
/** How much later than it happened an edit may come and still count in its window. */
const DELAY_MS = 2_000;
const TICK_MS = 1_000;
/** How long edits and windows are kept. */
const KEPT_SECONDS = 900;

const NAME = 'eddy-console-live';

/** What was done to a symbol; or the clock's tick, by which time goes on when nothing is done. */
const EDITS = {
  fields: {
    id: { type: 'varchar', primaryKey: true, maxLength: 64 },
    at: { type: 'timestamp' },
    op: { type: 'varchar', maxLength: 8 },
    symbol: { type: 'varchar', maxLength: 64 },
    name: { type: 'varchar', maxLength: 200 },
  },
  dynamic: false,
  ttlSeconds: KEPT_SECONDS,
} as const;

const PROGRESS = {
  fields: {
    key: { type: 'varchar', primaryKey: true, maxLength: 64 },
    value: { type: 'varchar', maxLength: 1024 },
  },
  dynamic: false,
} as const;

/** What the pipeline is made of. */
export const SQL = `CREATE STREAM edits (
  op VARCHAR NOT NULL, symbol VARCHAR NOT NULL, at TIMESTAMP NOT NULL,
  WATERMARK FOR at AS at - INTERVAL '${DELAY_MS / 1000}' SECOND);

CREATE MATERIALIZED VIEW windows AS
SELECT window_end, count(*) AS edits, count(DISTINCT symbol) AS symbols,
  sum(IF(op = 'insert', 1, 0)) AS added,
  sum(IF(op = 'update', 1, 0)) AS renamed,
  sum(IF(op = 'delete', 1, 0)) AS deleted
FROM TABLE(TUMBLE(TABLE edits, DESCRIPTOR(at), INTERVAL '${WINDOW_MS / 1000}' SECOND))
WHERE op <> 'tick'
GROUP BY window_start, window_end
EMIT ON WINDOW CLOSE`;

/** One edit of a symbol. Times are in milliseconds since 1970. */
export interface Edit {
  readonly id: string;
  readonly at: number;
  readonly op: 'insert' | 'update' | 'delete';
  readonly symbol: string;
  readonly name: string;
}

/** What was done in one window that has closed. */
export interface ClosedWindow {
  readonly end: number;
  readonly edits: number;
  readonly symbols: number;
  readonly added: number;
  readonly renamed: number;
  readonly deleted: number;
}

/** How far the pipeline's time has come, and what it has seen. */
export interface Pulse {
  /** No edit of then or before counts any more. */
  readonly watermark: number | undefined;
  readonly late: number;
  readonly state: string;
}

/** Who is told. */
export interface Listener {
  readonly edits: (edits: readonly Edit[]) => void;
  readonly windows: (windows: readonly ClosedWindow[]) => void;
  readonly pulse: (pulse: Pulse) => void;
  readonly failed: (error: unknown) => void;
}

const SHOWN_MS = 60_000;
const SHOWN_WINDOWS = 12;

/**
 * The edits of symbols as a stream: a database of its own, opened with streams, that the windows of this browser share. One window at
 * a time, whichever holds the lock, writes into it what the change stream of the symbols tells, each edit under its place in the log,
 * so that none counts twice; a pipeline counts them. The symbols themselves stay with the engine that is loaded already, which is a
 * third smaller, and this one is loaded when somebody looks.
 */
export class Edits {
  #db: Database;
  #store: Store;
  #edits: Collection<typeof EDITS>;
  #listener: Listener;
  #pipeline: Pipeline;
  #told: ChangeStream<string, unknown> | undefined;
  #ended = new AbortController();
  /** Whether the clock may tick: what was done while nobody looked counts first. */
  #caughtUp = false;

  private constructor(db: Database, store: Store, pipeline: Pipeline, listener: Listener) {
    this.#db = db;
    this.#store = store;
    this.#edits = db.collection('edits', EDITS);
    this.#pipeline = pipeline;
    this.#listener = listener;
  }

  /** Opens the stream and tells what it has and what comes. */
  static async open(store: Store, listener: Listener): Promise<Edits> {
    const db = await open({ name: NAME, streams: true, ...(!store.kept && { storage: 'memory' as const }) });
    try {
      await db.createCollection('edits', EDITS, { ifNotExists: true });
      await db.createCollection('progress', PROGRESS, { ifNotExists: true });
      const edits = new Edits(db, store, await pipelineOf(db), listener);
      await edits.#begin();
      return edits;
    } catch (error) {
      await db.close();
      throw error;
    }
  }

  async #begin(): Promise<void> {
    const told = await this.#edits.changes({ since: 'now', operations: ['insert'] });
    this.#told = told as ChangeStream<string, unknown>;
    const since = (Date.now() - SHOWN_MS) * 1000;
    const rows = await this.#edits.query({ filter: `op != "tick" and at > ${since}`, orderBy: ['at'], limit: 5000 });
    this.#listener.edits(rows.map(toEdit));
    const failed = (error: unknown): void => {
      if (!this.#ended.signal.aborted) this.#listener.failed(error);
    };
    const windows = this.#db.collection('windows');
    const showWindows = async (): Promise<void> => this.#listener.windows(await closedWindows(windows));
    windows.onChange(() => void showWindows().catch(failed));
    await showWindows();
    void this.#tell(told as ChangeStream<string, EditRow>).catch(failed);
    void this.#watch().catch(failed);
    const { signal } = this.#ended;
    const lock = this.#store.kept && 'locks' in navigator ? navigator.locks.request(NAME, { signal }, () => this.#feed()) : this.#feed();
    void lock.catch(failed);
  }

  /** Passes on what is written to the stream, by whichever window. */
  async #tell(told: ChangeStream<string, EditRow>): Promise<void> {
    for await (const { changes } of told) {
      const rows = changes.flatMap(({ after }) => (after ? [after] : []));
      // Somebody's clock ticks, so what came before is counted.
      this.#caughtUp ||= rows.some(({ op }) => op === 'tick');
      const edits = rows.filter(({ op }) => op !== 'tick').map(toEdit);
      if (edits.length > 0) this.#listener.edits(edits);
    }
  }

  /** Writes every edit of the symbols into the stream, from where the window before has stopped. */
  async #feed(): Promise<void> {
    const { signal } = this.#ended;
    const progress = this.#db.collection('progress', PROGRESS);
    const [kept] = await progress.get(['token']);
    let since = kept?.value ?? 'now';
    while (!signal.aborted) {
      try {
        const changes = await this.#store.symbols.changes({ since, before: true, outputFields: ['symbol', 'name'], batchTimeoutMs: 200 });
        const end = (): void => void changes.return();
        signal.addEventListener('abort', end, { once: true });
        try {
          for await (const batch of changes) {
            if (signal.aborted) return;
            const rows = batch.changes.map(({ op, key, timestamp, lsn, before, after }) => {
              const { symbol = '', name = '' } = after ?? before ?? {};
              // The hybrid time has its milliseconds above 18 bits of a counter.
              return { id: `${lsn}-${key}`, at: Number(timestamp >> 18n) * 1000, op, symbol, name };
            });
            if (rows.length > 0) await this.#edits.upsert(rows);
            else this.#caughtUp = true;
            if (batch.token !== null && batch.token !== since) {
              since = batch.token;
              await progress.upsert([{ key: 'token', value: since }]);
            }
          }
        } finally {
          signal.removeEventListener('abort', end);
        }
      } catch (error) {
        if (signal.aborted) return;
        // What nobody has looked at for long is not kept: from now on, then.
        if (!(error instanceof EddyError && error.kind === 'gone') || since === 'now') throw error;
        since = 'now';
      }
    }
  }

  /** Has time go on, and tells how far it is. Of several windows' ticks of a second one counts. */
  async #watch(): Promise<void> {
    while (!this.#ended.signal.aborted) {
      const now = Date.now();
      if (this.#caughtUp) await this.#edits.upsert([{ id: `tick-${Math.floor(now / TICK_MS)}`, at: now * 1000, op: 'tick', symbol: '', name: '' }]);
      const { nodes, state, reason } = await this.#pipeline.status();
      if (state === 'failed') throw new EddyError('internal', reason?.[1] ?? 'the pipeline has failed');
      const times = nodes.flatMap(({ watermark }) => (watermark === null ? [] : [watermark]));
      const late = nodes.reduce((sum, node) => sum + node.late, 0);
      this.#listener.pulse({ watermark: times.length > 0 ? Math.min(...times) / 1000 : undefined, late, state });
      await new Promise((resolve) => setTimeout(resolve, TICK_MS - (Date.now() % TICK_MS)));
    }
  }

  /** Stops, and lets the engine go. */
  async close(): Promise<void> {
    this.#ended.abort();
    await this.#told?.return();
    await this.#db.close();
  }
}

type EditRow = { readonly id: string; readonly at: number | bigint; readonly op: string; readonly symbol: string; readonly name: string };

const toEdit = ({ id, at, op, symbol, name }: EditRow): Edit => ({ id, at: Number(at) / 1000, op: op as Edit['op'], symbol, name });

/** The pipeline, made by the first who comes. One of another build of the page is replaced. */
async function pipelineOf(db: Database): Promise<Pipeline> {
  if ((await db.pipelines()).includes('windows')) {
    const pipeline = db.pipeline('windows');
    const { spec, state } = await pipeline.status();
    if (spec.sql === SQL && state === 'active') return pipeline;
    await pipeline.drop();
    await db.dropCollection('windows');
  }
  try {
    const pipeline = await db.createPipeline('windows', { sql: SQL, sources: { edits: { since: 'now' } } });
    await db.collection('windows').setTtl(KEPT_SECONDS);
    return pipeline;
  } catch (error) {
    // Two windows may come at once.
    if (!(error instanceof EddyError && error.kind === 'already_exists')) throw error;
    return db.pipeline('windows');
  }
}

async function closedWindows(windows: Collection): Promise<ClosedWindow[]> {
  const rows = await windows.query({ orderBy: ['window_end desc'], limit: SHOWN_WINDOWS });
  return rows.map((row) => {
    const number = (field: string): number => Number((row as Record<string, unknown>)[field]);
    return { end: number('window_end') / 1000, edits: number('edits'), symbols: number('symbols'), added: number('added'), renamed: number('renamed'), deleted: number('deleted') };
  });
}
