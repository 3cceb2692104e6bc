import { EddyError, type ErrorKind } from './error.js';
import type { ForeignStorage, StorageOp } from './storage.js';

/** Objects lie in pieces of at most this many bytes, so that a range is read without the rest. */
const CHUNK_BYTES = 1 << 20;
/** How long a store that was just given up may take to be free. */
const LOCK_TRIES = 10;
const LOCK_RETRY_MS = 10;

const CHUNKS = 'chunks';
const OWNER = 'owner';
const TOKEN = 'token';

/** The key of a piece says which object it is of, where in it it begins, and how long it is. */
type ChunkKey = [name: string, offset: number, len: number];

interface StoredObject {
  len: number;
  /** Ascending. */
  chunks: ChunkKey[];
  /** After a failure: what it must be cut to before more is added. */
  cutTo?: number | undefined;
}

/** The database of a store. @internal */
export const databaseName = (name: string): string => `eddydb:${name}`;

/**
 * A store in an IndexedDB database: one object store with the pieces of all objects. Every change is one transaction, so it is there
 * wholly or not at all; in a `strict` one it is on disk when it is acknowledged, in others after a sync.
 *
 * One owner at a time holds the Web Lock of the database. Each also writes a token of its own, which every transaction of its looks at
 * first: should the lock have been taken from it, nothing of it is written any more.
 *
 * @internal
 */
export class IndexedDbStorage implements ForeignStorage {
  readonly #database: IDBDatabase;
  readonly #durability: IDBTransactionDurability;
  readonly #objects = new Map<string, StoredObject>();
  readonly #token = String(Math.random()).slice(2) + String(Date.now());
  readonly #running = new Set<Promise<unknown>>();
  #unlock: () => void;
  #closed = false;
  #ended = false;

  private constructor(database: IDBDatabase, durability: IDBTransactionDurability, unlock: () => void) {
    this.#database = database;
    this.#durability = durability;
    this.#unlock = unlock;
    // Someone removes the database: let it go. The browser may also end the connection itself, as when site data is cleared.
    database.onversionchange = () => database.close();
    database.onclose = () => (this.#ended = true);
  }

  /**
   * Opens the store `name`, creating it when it is not there. `strict`: appends are on disk when they are acknowledged, not only after
   * a sync.
   *
   * @throws `locked` while it is open elsewhere, `unsupported` where there is no IndexedDB or it was written by a later version,
   *   `corrupt` when the browser says that it found the database damaged and has removed it.
   */
  static async open(name: string, strict: boolean): Promise<IndexedDbStorage> {
    const unlock = await lock(databaseName(name));
    let database: IDBDatabase | undefined;
    try {
      database = await connect(name);
      await startNewLog(name);
      const storage = new IndexedDbStorage(database, strict ? 'strict' : 'relaxed', unlock);
      await storage.#lookAround();
      return storage;
    } catch (error) {
      database?.close();
      unlock();
      throw error;
    }
  }

  /** Removes the store, with all that it holds. */
  static async remove(name: string): Promise<void> {
    const unlock = await lock(databaseName(name));
    try {
      await new Promise<void>((resolve, reject) => {
        const request = factory().deleteDatabase(databaseName(name));
        request.onsuccess = () => resolve();
        request.onerror = () => reject(failed('remove', name, request.error));
        request.onblocked = () => reject(new EddyError('locked', `store ${JSON.stringify(name)} is open elsewhere: close it there first`));
      });
    } finally {
      unlock();
    }
  }

  run(op: StorageOp, name: string, from: number, len: number, bytes: Uint8Array<ArrayBuffer> | undefined): Promise<unknown> {
    if (op === 'close') return this.#close();
    if (this.#closed) return Promise.reject(new EddyError('closed', 'the storage was closed'));
    const done = this.#perform(op, name, from, len, bytes);
    const settled: Promise<unknown> = done.then(
      () => this.#running.delete(settled),
      () => this.#running.delete(settled),
    );
    this.#running.add(settled);
    return done;
  }

  release(): void {
    this.#closed = true;
    this.#database.close();
    this.#unlock();
  }

  async #close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all(this.#running);
    this.release();
  }

  async #perform(op: StorageOp, name: string, from: number, len: number, bytes: Uint8Array<ArrayBuffer> | undefined): Promise<unknown> {
    switch (op) {
      case 'list':
        // Names are ASCII, so this is the order of their bytes.
        return [...this.#objects].filter(([key]) => key.startsWith(name)).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, object]) => [key, object.len]);
      case 'read':
        return this.#read(name, from, len);
      case 'put':
        if (this.#objects.has(name)) throw new EddyError('already_exists', `${name} is in the store already`);
        return this.#add('put', name, bytes!, 'strict');
      case 'append':
        this.#checkCut(name);
        return this.#add('append', name, bytes!, this.#durability);
      case 'sync':
        this.#object(name);
        this.#checkCut(name);
        // A transaction that is on disk has all those before it there too.
        if (this.#durability === 'relaxed') await this.#change('sync', name, 'strict', () => {});
        return undefined;
      case 'truncate':
        return this.#truncate(name, from);
      case 'remove':
        if (!this.#objects.has(name)) return undefined;
        await this.#change('remove', name, 'strict', (chunks) => chunks.delete(ofObject(name)));
        this.#objects.delete(name);
        return undefined;
      default:
        throw new EddyError('internal', `no storage operation ${op}`);
    }
  }

  #object(name: string): StoredObject {
    const object = this.#objects.get(name);
    if (!object) throw new EddyError('not_found', `${name} is not in the store`);
    return object;
  }

  #checkCut(name: string): void {
    const cutTo = this.#objects.get(name)?.cutTo;
    if (cutTo !== undefined) throw new EddyError('io', `an earlier append, sync or truncate of ${name} failed: cut it to ${cutTo} bytes or fewer first`);
  }

  /** Learns which objects there are, and becomes their owner. */
  async #lookAround(): Promise<void> {
    const transaction = this.#transaction('strict');
    transaction.objectStore(OWNER).put(this.#token, TOKEN);
    const keys = transaction.objectStore(CHUNKS).getAllKeys();
    await this.#finish('open', 'the store', transaction);
    for (const key of keys.result as ChunkKey[]) {
      const [name, offset, len] = key;
      const object = this.#objects.get(name) ?? { len: 0, chunks: [] };
      object.chunks.push(key);
      object.len = Math.max(object.len, offset + len);
      this.#objects.set(name, object);
    }
  }

  async #read(name: string, from: number, len: number): Promise<Uint8Array> {
    const object = this.#object(name);
    const end = len < 0 ? object.len : from + len;
    if (end > object.len) throw new EddyError('corrupt', `${name}: ${len} bytes expected at byte ${from}, but it has ${object.len} bytes`);
    const bytes = new Uint8Array(end - from);
    const found = object.chunks.filter(([, offset, len]) => len > 0 && offset < end && offset + len > from);
    if (found.length === 0) return bytes;
    const transaction = this.#transaction(undefined);
    const request = transaction.objectStore(CHUNKS).getAll(IDBKeyRange.bound(found[0], found.at(-1)));
    await this.#finish('read', name, transaction);
    const pieces = request.result as Uint8Array[];
    for (const [index, [, offset, len]] of found.entries()) {
      const piece = pieces[index];
      if (piece?.length !== len) throw new EddyError('corrupt', `${name}: ${len} bytes expected at byte ${offset}, got ${piece?.length}`);
      const [start, stop] = [Math.max(from - offset, 0), Math.min(end - offset, len)];
      bytes.set(piece.subarray(start, stop), offset + start - from);
    }
    return bytes;
  }

  /** Adds `bytes` at the end of an object, creating it when needed. */
  async #add(operation: string, name: string, bytes: Uint8Array<ArrayBuffer>, durability: IDBTransactionDurability): Promise<void> {
    const before = this.#objects.get(name);
    const start = before?.len ?? 0;
    const pieces: [ChunkKey, Uint8Array][] = [];
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      // A view would be stored with all of its buffer.
      const piece = bytes.length <= CHUNK_BYTES ? bytes : bytes.slice(at, at + CHUNK_BYTES);
      pieces.push([[name, start + at, piece.length], piece]);
    }
    if (!before && pieces.length === 0) pieces.push([[name, 0, 0], bytes]);
    try {
      await this.#change(operation, name, durability, (chunks) => {
        for (const [key, piece] of pieces) chunks.put(piece, key);
      });
    } catch (error) {
      if (before) before.cutTo = start;
      throw error;
    }
    const object = before ?? { len: 0, chunks: [] };
    object.chunks.push(...pieces.map(([key]) => key));
    object.len += bytes.length;
    this.#objects.set(name, object);
  }

  async #truncate(name: string, len: number): Promise<void> {
    const object = this.#object(name);
    if (len > object.len) throw new EddyError('invalid_argument', `${name} cannot be cut to ${len} bytes: it has ${object.len}`);
    const kept = object.chunks.filter(([, offset, length]) => offset + length <= len);
    const cut = object.chunks.find(([, offset, length]) => offset < len && offset + length > len);
    const rest: ChunkKey | undefined = cut ? [name, cut[1], len - cut[1]] : kept.length === 0 ? [name, 0, 0] : undefined;
    if (len < object.len || this.#durability === 'relaxed') {
      try {
        await this.#change('truncate', name, 'strict', (chunks) => {
          const write = (piece: Uint8Array) => {
            chunks.delete(IDBKeyRange.bound(kept.at(-1) ?? [name], [name, []], kept.length > 0));
            if (rest) chunks.put(piece.slice(0, rest[2]), rest);
          };
          if (len === object.len) return;
          if (!cut) return write(new Uint8Array(0));
          const request = chunks.get(cut);
          request.onsuccess = () => write(request.result as Uint8Array);
        });
      } catch (error) {
        object.cutTo = Math.min(object.cutTo ?? Infinity, len);
        throw error;
      }
      object.chunks = rest ? [...kept, rest] : kept;
      object.len = len;
    }
    if (object.cutTo !== undefined && object.cutTo >= len) object.cutTo = undefined;
  }

  /** One transaction of the owner: all of `change` or nothing. */
  async #change(operation: string, name: string, durability: IDBTransactionDurability, change: (chunks: IDBObjectStore) => void): Promise<void> {
    const transaction = this.#transaction(durability);
    const owner = transaction.objectStore(OWNER);
    const token = owner.get(TOKEN);
    let failure: unknown;
    token.onsuccess = () => {
      try {
        if (token.result !== this.#token) throw new EddyError('locked', 'another owner has taken over this store: open it again');
        // Written again, so that an otherwise empty transaction has something to sync.
        owner.put(this.#token, TOKEN);
        change(transaction.objectStore(CHUNKS));
      } catch (error) {
        failure = error;
        transaction.abort();
      }
    };
    try {
      await this.#finish(operation, name, transaction);
    } catch (error) {
      throw failure === undefined ? error : failure instanceof EddyError ? failure : failed(operation, name, failure);
    }
  }

  /** A transaction that writes with that durability, or one that reads. */
  #transaction(durability: IDBTransactionDurability | undefined): IDBTransaction {
    if (this.#ended) throw new EddyError('io', 'the browser has closed the database, as when site data is cleared: open it again');
    try {
      return durability === undefined
        ? this.#database.transaction(CHUNKS, 'readonly')
        : this.#database.transaction([CHUNKS, OWNER], 'readwrite', { durability });
    } catch (error) {
      throw failed('begin a transaction in', 'the store', error);
    }
  }

  /** Waits for the end of a transaction. */
  #finish(operation: string, name: string, transaction: IDBTransaction): Promise<void> {
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(failed(operation, name, transaction.error));
    });
  }
}

/** All keys of one object: an array sorts after every number. */
function ofObject(name: string): IDBKeyRange {
  return IDBKeyRange.bound([name], [name, []]);
}

function factory(): IDBFactory {
  // Some private windows have none, or throw when asked.
  try {
    if (globalThis.indexedDB) return globalThis.indexedDB;
  } catch {
    // As if there were none.
  }
  throw new EddyError('unsupported', "this context has no IndexedDB, as some private windows: open with storage: 'memory'");
}

function connect(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = factory().open(databaseName(name), 1);
    let lost: string | undefined;
    request.onupgradeneeded = (event: ChromiumUpgrade) => {
      // Told once: the database is new for whoever opens it next.
      if (event.dataLoss === 'total') lost = event.dataLossMessage;
      request.result.createObjectStore(CHUNKS);
      request.result.createObjectStore(OWNER);
    };
    request.onblocked = () => reject(new EddyError('locked', `store ${JSON.stringify(name)} is being removed elsewhere: try again`));
    request.onsuccess = () => {
      if (lost === undefined) return resolve(request.result);
      request.result.close();
      const what = `the browser found its storage damaged (${lost}) and has removed all that was in store ${JSON.stringify(name)}`;
      reject(new EddyError('corrupt', `${what}: open it again to begin with an empty one`));
    };
    request.onerror = () => {
      const { error } = request;
      // What private windows without storage answer.
      const refused = error?.name === 'InvalidStateError' || error?.name === 'SecurityError';
      reject(refused ? new EddyError('unsupported', `IndexedDB cannot be used here (private window?): ${error.message}`, { cause: error }) : failed('open', name, error));
    };
  });
}

/** What Chromium tells besides: whether the database is new because a damaged one was removed. */
interface ChromiumUpgrade extends IDBVersionChangeEvent {
  dataLoss?: 'none' | 'total';
  dataLossMessage?: string;
}

/**
 * Has Chromium begin a new log below IndexedDB. All databases of an origin share a LevelDB; killed in the middle of a write, its log ends
 * with half a record, and the next browser writes on behind that. The one after it takes the half record for damage, and removes every
 * database of the origin, acknowledged writes and all (LevelDB's issue 1287). Removing a database compacts its keys, for which what is in
 * the log goes to a table, and a new log begins. In other browsers nothing is to be done.
 */
async function startNewLog(name: string): Promise<void> {
  if (!('dataLoss' in IDBVersionChangeEvent.prototype)) return;
  const passing = `eddydb-log:${name}`;
  await new Promise<void>((resolve, reject) => {
    const opened = factory().open(passing, 1);
    opened.onsuccess = () => {
      opened.result.close();
      const removed = factory().deleteDatabase(passing);
      removed.onsuccess = () => resolve();
      removed.onerror = () => reject(failed('begin a log for', name, removed.error));
    };
    // A full disk takes no new database, nor anything else to write; what is there can be read.
    opened.onerror = () => (opened.error?.name === 'QuotaExceededError' ? resolve() : reject(failed('begin a log for', name, opened.error)));
  });
}

/** Takes a Web Lock; the answer gives it up. */
async function lock(name: string): Promise<() => void> {
  const { locks } = globalThis.navigator ?? {};
  if (!locks) throw new EddyError('unsupported', 'this context has no Web Locks (they need https or localhost), without which two owners could write at once');
  for (let tries = 1; ; tries++) {
    const unlock = await new Promise<(() => void) | undefined>((resolve, reject) => {
      const held = (granted: Lock | null) => {
        if (granted) return new Promise<void>((release) => resolve(release));
        resolve(undefined);
        return undefined;
      };
      locks.request(name, { ifAvailable: true }, held).catch(reject);
    });
    if (unlock) return unlock;
    if (tries === LOCK_TRIES) throw new EddyError('locked', 'it is open in another tab, worker or handle: close it there first');
    await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
  }
}

const kinds: Record<string, ErrorKind> = { QuotaExceededError: 'storage_full', VersionError: 'unsupported', NotAllowedError: 'unsupported' };

/** Says what failed where. */
function failed(operation: string, name: string, error: unknown): EddyError {
  const { name: thrown = 'Error', message = 'no reason was given' } = (error ?? {}) as Partial<Error>;
  return new EddyError(kinds[thrown] ?? 'io', `${operation} ${name}: ${thrown}: ${message}`, { cause: error });
}
