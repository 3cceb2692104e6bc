import { EddyError, type ForeignStorage, type StorageOp } from 'eddydb/embedded';

import { SqlFiles } from './sql-files.js';

/** Files of segments: written once, in pieces or at once, synced when they are whole, and never changed. */
const OF_SEGMENTS = /^c\d+\/(?:segment|incoming)\//;
/** What is smaller stays in the object: it is four rows at most there, and the first to be read when the database opens. */
const BUCKET_BYTES_MIN = 256 * 1024;
/** How much of a file is in memory while it goes to the bucket. */
const PIECE_BYTES = 1024 * 1024;
/** A put that was cut off may still arrive within this. */
const ARRIVES_WITHIN_MS = 60 * 60 * 1000;
/** How many keys one call removes from a bucket. */
const REMOVED_AT_ONCE = 1000;
/** A bucket that fails is asked again after so long, and then after so long. */
const AGAIN_AFTER_MS = [50, 500];

/** The engine's own storage in a directory, which databases at the edge had before, has this file. */
const LOCK_FILE = 'LOCK';

/** Who has an object's storage: a second owner in the same isolate is refused. */
const owners = new WeakSet<DurableObjectStorage>();

/** Where what is large goes. */
export interface BucketOptions {
  bucket?: R2Bucket | undefined;
  /** What keys in the bucket begin with. */
  prefix: string;
  /** Whether an object of that name and size goes to the bucket once it is whole. By default files of segments of 256 KiB and more do. */
  belongs?: (name: string, size: number) => boolean;
}

interface Stored {
  size: number;
  /** Its key in the bucket, when it is there. */
  key?: string | undefined;
  /** After a failure: what it must be cut to before more is added. */
  cutTo?: number | undefined;
}

/**
 * The store of a database in a Durable Object: its SQLite storage, and a bucket for large files of segments where one is bound.
 *
 * The object's storage says what there is, and under which key of the bucket; the bucket is never listed. Each put has a key of its own, which is noted
 * as litter before the put begins and no longer is when the put is done, in the transaction that names it; whoever removes an object notes its key in
 * the transaction that forgets it. So what a crash leaves in the bucket is known, and removed at the next opening, and nothing is removed that
 * is still named.
 */
export class EdgeStorage implements ForeignStorage {
  readonly #storage: DurableObjectStorage;
  readonly #files: SqlFiles;
  readonly #options: BucketOptions;
  readonly #objects = new Map<string, Stored>();
  readonly #running = new Set<Promise<unknown>>();
  /** Keys of puts that are under way. */
  readonly #arriving = new Set<string>();
  #sweeping: Promise<void> | undefined;
  #sweepAgain = false;
  /** Takes no more calls. */
  #closed = false;
  /** Has given up the storage: what still runs changes nothing any more. */
  #released = false;

  private constructor(storage: DurableObjectStorage, options: BucketOptions) {
    this.#storage = storage;
    this.#files = new SqlFiles(storage);
    this.#options = options;
  }

  /**
   * Opens the store in an object's storage.
   *
   * @throws `locked` while it is open, `unavailable` when some of it is in a bucket and none is bound.
   */
  static open(storage: DurableObjectStorage, options: BucketOptions): EdgeStorage {
    if (owners.has(storage)) throw new EddyError('locked', 'the storage of this object is in use: close the database that has it first');
    const opened = new EdgeStorage(storage, options);
    opened.#lookAround();
    owners.add(storage);
    return opened;
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
    if (this.#released) return;
    this.#released = true;
    owners.delete(this.#storage);
  }

  async #close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all(this.#running);
    while (this.#sweeping) await this.#sweeping;
    this.release();
  }

  #lookAround(): void {
    const { sql } = this.#storage;
    sql.exec('CREATE TABLE IF NOT EXISTS bucket (path TEXT PRIMARY KEY, key TEXT NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID');
    // `until`: removing a key before that time may be too early to be the last time.
    sql.exec('CREATE TABLE IF NOT EXISTS litter (key TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID');
    for (const { path, size } of this.#files.all()) if (path !== LOCK_FILE) this.#objects.set(nameOf(path), { size });
    const away = sql.exec<{ path: string; key: string; size: number }>('SELECT path, key, size FROM bucket').toArray();
    if (away.length > 0 && !this.#options.bucket) {
      throw new EddyError('unavailable', `${away.length} files of this database are in a bucket, and the worker has none: bind the bucket as SEGMENTS again`);
    }
    for (const { path, key, size } of away) this.#objects.set(nameOf(path), { size, key });
    this.#sweepSoon();
  }

  async #perform(op: StorageOp, name: string, from: number, len: number, bytes: Uint8Array<ArrayBuffer> | undefined): Promise<unknown> {
    switch (op) {
      case 'list':
        // Names are ASCII, so this is the order of their bytes.
        return [...this.#objects].filter(([key]) => key.startsWith(name)).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, { size }]) => [key, size]);
      case 'read':
        return this.#read(name, from, len);
      case 'put':
        if (this.#objects.has(name)) throw new EddyError('already_exists', `${name} is in the store already`);
        return this.#put(name, bytes!);
      case 'append':
        this.#checkCut(name);
        await this.#comeBack(name);
        return this.#append(name, bytes!);
      case 'sync':
        this.#checkCut(name);
        return this.#sync(name);
      case 'truncate':
        return this.#truncate(name, from);
      case 'remove':
        return this.#remove(name);
      default:
        throw new EddyError('internal', `no storage operation ${op}`);
    }
  }

  #object(name: string): Stored {
    const object = this.#objects.get(name);
    if (!object) throw new EddyError('not_found', `${name} is not in the store`);
    return object;
  }

  #checkCut(name: string): void {
    const cutTo = this.#objects.get(name)?.cutTo;
    if (cutTo !== undefined) throw new EddyError('io', `an earlier append, sync or truncate of ${name} failed: cut it to ${cutTo} bytes or fewer first`);
  }

  #belongs(name: string, size: number): boolean {
    const { bucket, belongs = (name, size) => size >= BUCKET_BYTES_MIN && OF_SEGMENTS.test(name) } = this.#options;
    return bucket !== undefined && belongs(name, size);
  }

  async #read(name: string, from: number, len: number): Promise<Uint8Array> {
    const { size, key } = this.#object(name);
    const end = len < 0 ? size : from + len;
    if (end > size) throw new EddyError('corrupt', `${name}: ${len} bytes expected at byte ${from}, but it has ${size} bytes`);
    if (key === undefined || end === from) return this.#files.read(pathOf(name), from, end);
    const bytes = await this.#ask('read', name, async (bucket) => {
      const found = await bucket.get(key, { range: { offset: from, length: end - from } });
      return found && new Uint8Array(await found.arrayBuffer());
    });
    if (!bytes) throw new EddyError('corrupt', `${name}: ${key} is not in the bucket: bind the bucket that it was put into as SEGMENTS, or restore it there`);
    if (bytes.length !== end - from) throw new EddyError('corrupt', `${name}: ${end - from} bytes expected at byte ${from} of ${key} in the bucket, got ${bytes.length}`);
    return bytes;
  }

  async #put(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.#belongs(name, bytes.length)) await this.#send(name, bytes.length, () => bytes);
    else {
      this.#files.append(pathOf(name), 0, bytes);
      this.#objects.set(name, { size: bytes.length });
    }
  }

  #append(name: string, bytes: Uint8Array): void {
    const before = this.#objects.get(name);
    const size = before?.size ?? 0;
    try {
      this.#files.append(pathOf(name), size, bytes);
    } catch (error) {
      if (before) before.cutTo = size;
      throw error;
    }
    this.#objects.set(name, { size: size + bytes.length });
  }

  /** What was appended is durable already. A file of a segment is whole now. */
  async #sync(name: string): Promise<void> {
    const object = this.#object(name);
    if (object.key !== undefined || !this.#belongs(name, object.size)) return;
    try {
      await this.#send(name, object.size, () => this.#stream(name, object.size));
    } catch (error) {
      object.cutTo = object.size;
      throw error;
    }
  }

  async #truncate(name: string, size: number): Promise<void> {
    const object = this.#object(name);
    if (size > object.size) throw new EddyError('invalid_argument', `${name} cannot be cut to ${size} bytes: it has ${object.size}`);
    if (size < object.size) {
      await this.#comeBack(name);
      try {
        this.#files.truncate(pathOf(name), size);
      } catch (error) {
        const there = this.#object(name);
        there.cutTo = Math.min(there.cutTo ?? Infinity, size);
        throw error;
      }
    }
    const { key, cutTo } = this.#object(name);
    this.#objects.set(name, { size, key, ...(cutTo !== undefined && cutTo < size && { cutTo }) });
  }

  #remove(name: string): void {
    const object = this.#objects.get(name);
    if (!object) return;
    if (object.key === undefined) this.#files.remove(pathOf(name));
    else {
      this.#forget(name, object.key);
      this.#sweepSoon();
    }
    this.#objects.delete(name);
  }

  /** What is in the bucket is not added to and not cut: it comes back first. */
  async #comeBack(name: string): Promise<void> {
    const object = this.#objects.get(name);
    if (object?.key === undefined) return;
    const { key, size } = object;
    const bytes = await this.#read(name, 0, size);
    this.#change(() => {
      this.#files.append(pathOf(name), 0, bytes);
      this.#forget(name, key);
    });
    this.#objects.set(name, { size });
    this.#sweepSoon();
  }

  /** Has the bucket take `size` bytes for an object, instead of what the object's storage has of it. */
  async #send(name: string, size: number, body: () => Uint8Array<ArrayBuffer> | ReadableStream): Promise<void> {
    const { sql } = this.#storage;
    const key = `${this.#options.prefix}${name}-${crypto.randomUUID()}`;
    this.#arriving.add(key);
    try {
      sql.exec('INSERT INTO litter VALUES (?, ?)', key, Date.now() + ARRIVES_WITHIN_MS);
      await this.#storage.sync();
      const put = await this.#ask('put', name, (bucket) => bucket.put(key, body()));
      if (put?.size !== size) throw new EddyError('unavailable', `put ${name}: the bucket has ${put?.size ?? 0} of ${size} bytes`);
      this.#change(() => {
        sql.exec('DELETE FROM litter WHERE key = ?', key);
        sql.exec('INSERT INTO bucket VALUES (?, ?, ?)', pathOf(name), key, size);
        this.#files.remove(pathOf(name));
      });
    } finally {
      this.#arriving.delete(key);
    }
    this.#objects.set(name, { size, key });
  }

  /** A file's bytes, a piece at a time. */
  #stream(name: string, size: number): ReadableStream {
    const { readable, writable } = new FixedLengthStream(size);
    const writer = writable.getWriter();
    const write = async () => {
      for (let at = 0; at < size; at += PIECE_BYTES) await writer.write(this.#files.read(pathOf(name), at, Math.min(at + PIECE_BYTES, size)));
      await writer.close();
    };
    // Whoever reads it hears of what went wrong, and says so.
    write().catch((error: unknown) => writer.abort(error).catch(() => {}));
    return readable;
  }

  /** One transaction, when this is still the owner: it may have waited for the bucket. */
  #change(change: () => void): void {
    if (this.#released) throw new EddyError('closed', 'the storage was given up');
    this.#storage.transactionSync(change);
  }

  #forget(name: string, key: string): void {
    this.#change(() => {
      this.#storage.sql.exec('DELETE FROM bucket WHERE path = ?', pathOf(name));
      this.#storage.sql.exec('INSERT INTO litter VALUES (?, 0)', key);
    });
  }

  /** Asks the bucket, again where it fails. */
  async #ask<T>(operation: string, name: string, call: (bucket: R2Bucket) => Promise<T>): Promise<T> {
    for (let tries = 0; ; tries++) {
      try {
        return await call(this.#options.bucket!);
      } catch (error) {
        const wait = AGAIN_AFTER_MS[tries];
        if (wait === undefined) throw new EddyError('unavailable', `${operation} ${name}: the bucket failed ${tries + 1} times: ${(error as Error).message}`, { cause: error });
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }

  #sweepSoon(): void {
    if (!this.#options.bucket) return;
    if (this.#sweeping) {
      this.#sweepAgain = true;
      return;
    }
    this.#sweeping = this.#sweep()
      // It is known what is left, and tried again at the next removal or opening.
      .catch((error: unknown) => console.warn(`litter stays in the bucket: ${(error as Error).message}`))
      .finally(() => {
        this.#sweeping = undefined;
        if (this.#sweepAgain) {
          this.#sweepAgain = false;
          this.#sweepSoon();
        }
      });
  }

  /** Removes from the bucket what nothing names. */
  async #sweep(): Promise<void> {
    const { sql } = this.#storage;
    const litter = sql.exec<{ key: string; until: number }>('SELECT key, until FROM litter').toArray().filter(({ key }) => !this.#arriving.has(key));
    if (litter.length === 0) return;
    // Not before it is durable that nothing names it.
    await this.#storage.sync();
    for (let at = 0; at < litter.length; at += REMOVED_AT_ONCE) {
      const some = litter.slice(at, at + REMOVED_AT_ONCE);
      const now = Date.now();
      await this.#options.bucket!.delete(some.map(({ key }) => key));
      this.#storage.transactionSync(() => {
        for (const { key, until } of some) if (until <= now) sql.exec('DELETE FROM litter WHERE key = ?', key);
      });
    }
  }
}

/** Names have no `~`. */
const pathOf = (name: string): string => name.replaceAll('/', '~');
const nameOf = (path: string): string => path.replaceAll('~', '/');
