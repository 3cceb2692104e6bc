import { EddyError } from 'eddydb/embedded';

/**
 * How much of a file one row holds. A Durable Object takes values up to 2 MB; a small one makes appending cheap, because the last row of a
 * file is written anew each time.
 */
export const CHUNK_BYTES = 64 * 1024;

/** SQLite's own words for a database that has reached its limit. */
const FULL = /SQLITE_FULL|database or disk is full|exceeded.*(storage|limit)/i;

/**
 * Files in the SQLite storage of a Durable Object: byte `n` of a file is in row `n / CHUNK_BYTES`. Every change is one transaction, and durable
 * when the object's output gate opens: no answer leaves the object before.
 *
 * Callers keep sizes, and tell them.
 */
export class SqlFiles {
  readonly #storage: DurableObjectStorage;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    storage.sql.exec('CREATE TABLE IF NOT EXISTS entries (path TEXT PRIMARY KEY, directory INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID');
    storage.sql.exec('CREATE TABLE IF NOT EXISTS chunks (path TEXT, number INTEGER, bytes BLOB NOT NULL, PRIMARY KEY (path, number)) WITHOUT ROWID');
  }

  /** All files with their sizes. */
  all(): { path: string; size: number }[] {
    return this.#storage.sql.exec<{ path: string; size: number }>('SELECT path, size FROM entries WHERE directory = 0').toArray();
  }

  /** The bytes of a file from `from` up to `to`, which it has. */
  read(path: string, from: number, to: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(to - from);
    if (to === from) return bytes;
    const chunks = this.#storage.sql.exec<{ number: number; bytes: ArrayBuffer }>(
      'SELECT number, bytes FROM chunks WHERE path = ? AND number BETWEEN ? AND ?', path, Math.floor(from / CHUNK_BYTES), Math.floor((to - 1) / CHUNK_BYTES),
    );
    for (const { number, bytes: chunk } of chunks) {
      const start = number * CHUNK_BYTES;
      const [first, last] = [Math.max(from, start), Math.min(to, start + chunk.byteLength)];
      if (first < last) bytes.set(new Uint8Array(chunk, first - start, last - first), first - from);
    }
    return bytes;
  }

  /** Adds `bytes` at the end of a file of `size` bytes, creating it when it is not there. */
  append(path: string, size: number, bytes: Uint8Array): void {
    const { sql } = this.#storage;
    const end = size + bytes.length;
    this.#change(path, () => {
      for (let number = Math.floor(size / CHUNK_BYTES); number * CHUNK_BYTES < end; number++) {
        const start = number * CHUNK_BYTES;
        const [first, last] = [Math.max(size, start), Math.min(end, start + CHUNK_BYTES)];
        const chunk = new Uint8Array(last - start);
        if (first > start) chunk.set(this.read(path, start, first));
        chunk.set(bytes.subarray(first - size, last - size), first - start);
        sql.exec('INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)', path, number, chunk.buffer);
      }
      sql.exec('INSERT OR REPLACE INTO entries VALUES (?, 0, ?)', path, end);
    });
  }

  /** Cuts a file to `size` bytes. */
  truncate(path: string, size: number): void {
    const { sql } = this.#storage;
    this.#change(path, () => {
      const last = Math.floor(size / CHUNK_BYTES);
      const kept = this.read(path, last * CHUNK_BYTES, size);
      sql.exec('DELETE FROM chunks WHERE path = ? AND number >= ?', path, last);
      if (kept.length > 0) sql.exec('INSERT INTO chunks VALUES (?, ?, ?)', path, last, kept.buffer);
      sql.exec('UPDATE entries SET size = ? WHERE path = ?', size, path);
    });
  }

  remove(path: string): void {
    this.#change(path, () => {
      for (const table of ['entries', 'chunks']) this.#storage.sql.exec(`DELETE FROM ${table} WHERE path = ?`, path);
    });
  }

  /** One transaction; what SQLite says in the kinds of the package. */
  #change(path: string, change: () => void): void {
    try {
      this.#storage.transactionSync(change);
    } catch (error) {
      const { message } = error as Error;
      throw new EddyError(FULL.test(message) ? 'storage_full' : 'io', `${path}: ${message}`, { cause: error });
    }
  }
}
