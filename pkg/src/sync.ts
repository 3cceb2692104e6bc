import type { Client } from './client.js';
import { decode, describe, encode } from './codec.js';
import type { FilterParams } from './collection.js';
import { EddyError, type ErrorKind } from './error.js';
import type { SyncStatusMessage } from './protocol.js';

/** What to keep in sync, and with whom. */
export interface SyncOptions {
  /**
   * The server's address: `wss://host/sync`. Of several, in the order of preference, the first serves that is there: when it goes, the next one
   * is asked at once, and while a later one serves, those before it are looked at now and then, and returned to. All are hubs of the same
   * data, in step with each other; a part of a collection is kept of one server only.
   */
  url: string | readonly string[];
  /** The collections, by name; with a shape, of which a part is kept here, and `true` for all rows that you may read. */
  collections: readonly string[] | { readonly [name: string]: SyncShape | true };
  /**
   * Who you are, where the server asks: a JSON Web Token, or a function that gets one. The function is called before each connection, and
   * when the last token ends soon; the connection and what waits to be sent stay meanwhile. One that fails is called again later. Of tabs
   * that share a sync, the first one that answers counts.
   */
  token?: string | (() => string | Promise<string>);
}

/**
 * A part of a collection: rows that are in one of the partitions, for which the filter is true, and that lie near; what is left out admits all.
 *
 * Only rows of the part come, and one that leaves it goes, here and not at the server. What is written here outside of it is sent, and goes
 * once the server has it. With another shape than before only the difference moves. All syncs of a collection ask for the same part.
 */
export interface SyncShape {
  /** Names of partitions. */
  partitions?: readonly string[];
  /** An expression, such as `owner == {me}`. */
  filter?: string;
  /** What `{name}` stands for in it. */
  filterParams?: FilterParams;
  /** A neighbourhood of vectors. */
  near?: SyncNear;
}

/** The rows whose vector is at most `radius` from one of the centers. Searches then say whether their answer is `covered`. */
export interface SyncNear {
  /** A field of type `float_vector`. */
  field: string;
  /** By what the distance goes. The inner product is none. */
  metric: 'L2' | 'COSINE';
  /** Of the field's dimension. */
  centers: readonly (readonly number[] | Float32Array)[];
  /** For L2 the Euclidean distance, not its square; for COSINE 1 minus the cosine, 0 to 2. */
  radius: number;
}

/** How a sync stands. */
export interface SyncStatus {
  /** `offline` waits for the network or the server, `connecting` is on its way, `live` exchanges, `stopped` is over. */
  state: 'offline' | 'connecting' | 'live' | 'stopped';
  /** The server that it exchanges with, as it was given; only while `live`. */
  url?: string;
  /** Rows written here that the server has not acknowledged. */
  pending: number;
  /** Why it is offline or stopped. */
  error?: { kind: ErrorKind; message: string };
  /** When both sides last had everything, in milliseconds since 1970. */
  lastSyncedAt?: number;
  /**
   * How many bytes of the first download are here: a collection that is new here, or was away for long, gets the server's segments with
   * their indexes. What has come is searched already.
   */
  download?: { done: number; total: number };
  /** Changes made here that the server refused, oldest first. They stay in the database. */
  refusals?: { collection: string; error: { kind: ErrorKind; message: string } }[];
}

/** What a comparison of both sides of a sync has changed. */
export interface Reconciled {
  /** Rows and deletes that the server lacked. */
  sent: number;
  /** Rows and deletes that were missing here. */
  received: number;
}

/**
 * A running sync. It belongs to the database, not to the tab: tabs that start the same one share it, and it ends when the last of
 * them stops it or goes away.
 */
export class SyncSession {
  readonly #client: Client;
  readonly #key: string;
  readonly #listeners = new Set<(status: SyncStatus) => void>();
  readonly #forget: () => void;
  #status: SyncStatus = { state: 'connecting', pending: 0 };
  #stopped = false;

  /** @internal */
  constructor(client: Client, options: SyncOptions) {
    const { url, collections, token } = options;
    const urls: readonly unknown[] = Array.isArray(url) ? url : [url];
    if (urls.length === 0) throw new EddyError('invalid_argument', 'url: one address at least expected, got []');
    for (const [index, one] of urls.entries()) {
      if (typeof one !== 'string' || !/^wss?:\/\//.test(one)) {
        throw new EddyError('invalid_argument', `url: an address that starts with ws:// or wss:// expected, got ${JSON.stringify(one)}`);
      }
      if (urls.indexOf(one) < index) throw new EddyError('invalid_argument', `url: ${JSON.stringify(one)} is there twice`);
    }
    const list = Array.isArray(collections);
    const named = list ? collections : collections !== null && typeof collections === 'object' ? Object.keys(collections) : [];
    if (named.length === 0 || named.some((name) => typeof name !== 'string')) {
      throw new EddyError('invalid_argument', 'collections: the names of one or more collections expected');
    }
    const shapes: Record<string, string> = {};
    for (const [name, shape] of list ? [] : Object.entries(collections as { [name: string]: SyncShape | true })) {
      if (shape !== true) shapes[name] = toShape(name, shape);
    }
    const [part] = Object.keys(shapes);
    if (part !== undefined && urls.length > 1) {
      throw new EddyError('invalid_argument', `collections: a part of ${JSON.stringify(part)} is kept of one server, and url names ${urls.length}`);
    }
    if (!['undefined', 'string', 'function'].includes(typeof token)) {
      throw new EddyError('invalid_argument', `token: text, or a function that gets it, expected, got ${typeof token}`);
    }
    this.#client = client;
    const names = [...new Set(named as string[])].sort();
    this.#key = JSON.stringify([urls, ...names.flatMap((name) => (name in shapes ? [name, shapes[name]] : [name]))]);
    this.#forget = client.onEvent((event) => {
      if (this.#stopped) return;
      if (event.event === 'sync' && event.session === this.#key) this.#show(event.status);
      else if (event.event === 'syncToken' && event.session === this.#key) void this.#giveToken(event.ask, token);
    });
    client.retain('syncStart', this.#key, encode({ urls, collections: names, shapes, tokens: token !== undefined })).catch((error: EddyError) => {
      this.#show({ state: 'stopped', pending: this.#status.pending, error: { kind: error.kind, message: error.message } });
      this.#end().catch(() => {});
    });
  }

  /** How it stands now. */
  get status(): SyncStatus {
    return this.#status;
  }

  /** Calls `listener` when the status changes. @returns A function that ends it. */
  onStatus(listener: (status: SyncStatus) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Goes offline until {@link SyncSession.resume}, for all tabs that share it. Writes are kept and sent later. */
  async pause(): Promise<void> {
    await this.#client.request('syncPause', this.#key);
  }

  /** Connects again after {@link SyncSession.pause}, at once. */
  async resume(): Promise<void> {
    await this.#client.request('syncResume', this.#key);
  }

  /**
   * Compares what this database and the server hold of those collections, or of all that are synced, and moves what differs, both ways; the
   * newest change of each row wins, as ever. A sync does so by itself where it sees that one side has lost something; after a server was
   * restored from an older backup, ask every client for it once. Waits for the connection; fails with `unavailable` while the
   * sync is paused or the network is away, with `unsupported` for a collection of which only a part is kept here, and with `forbidden` when what
   * others wrote would have to be given to the server and the token has no `admin` of the collection. In a database that was not opened with
   * `streams: true` it fails with `unsupported`: the build of the engine that pages download first is without it.
   *
   * @returns Of each collection, how many rows and deletes went to the server and came from it.
   */
  async reconcile(collections?: readonly string[]): Promise<{ [collection: string]: Reconciled }> {
    if (collections !== undefined && !(Array.isArray(collections) && collections.every((name) => typeof name === 'string'))) {
      throw new EddyError('invalid_argument', `collections: names expected, got ${describe(collections)}`);
    }
    const changed = await this.#client.request('syncReconcile', this.#key, collections && encode([...collections]));
    return decode(changed!) as { [collection: string]: Reconciled };
  }

  /** Ends it for this tab. What was not sent yet is sent by the next sync. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#show({ state: 'stopped', pending: this.#status.pending });
    await this.#end();
  }

  async #giveToken(ask: number, source: SyncOptions['token']): Promise<void> {
    let answer: { ask: number; token: string } | { ask: number; error: string };
    try {
      const token = typeof source === 'function' ? await source() : source;
      answer = typeof token === 'string' ? { ask, token } : { ask, error: `token: the function gave ${typeof token}, text expected` };
    } catch (error) {
      answer = { ask, error: `token: ${error instanceof Error ? error.message : String(error)}` };
    }
    // When the database is closed meanwhile, nobody needs it.
    await this.#client.request('syncToken', this.#key, encode(answer)).catch(() => {});
  }

  async #end(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#forget();
    await this.#client.release('syncStart', this.#key);
  }

  #show(status: SyncStatusMessage): void {
    this.#status = status;
    for (const listener of this.#listeners) listener(status);
  }
}

/** A shape as the engine reads it. */
function toShape(name: string, shape: SyncShape): string {
  if (shape === null || typeof shape !== 'object') {
    throw new EddyError('invalid_argument', `collections: of ${JSON.stringify(name)} a shape or true expected, got ${describe(shape)}`);
  }
  return JSON.stringify(shape, (key, value: unknown) => {
    if (value instanceof Float32Array) return Array.from(value);
    if (typeof value !== 'bigint') return value;
    if (!Number.isSafeInteger(Number(value))) throw new EddyError('invalid_argument', `${key}: ${value} in a shape; at most 2^53 - 1 expected`);
    return Number(value);
  });
}
