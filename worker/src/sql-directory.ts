import type { DirectoryHandle, FileHandle, SyncAccessHandle } from 'eddydb/embedded';

/**
 * How much of a file one row holds. A Durable Object takes values up to 2 MB; a small one makes appending cheap, because the last row of a
 * file is written anew each time.
 */
export const CHUNK_BYTES = 64 * 1024;

/** SQLite's own words for a database that has reached its limit. */
const FULL = /SQLITE_FULL|database or disk is full|exceeded.*(storage|limit)/i;

/**
 * A directory of files in the SQLite storage of a Durable Object, in the shape of a `FileSystemDirectoryHandle`.
 *
 * Byte `n` of a file is in row `n / CHUNK_BYTES`. A write that touches several rows is one transaction. Writes are durable when the object's
 * output gate opens: no response leaves the object before, so `flush` has nothing to wait for.
 */
export class SqlDirectory implements DirectoryHandle {
  readonly kind = 'directory';
  readonly name: string;
  readonly #storage: DurableObjectStorage;
  readonly #prefix: string;
  readonly #open: Set<string>;

  private constructor(storage: DurableObjectStorage, prefix: string, name: string, open: Set<string>) {
    this.#storage = storage;
    this.#prefix = prefix;
    this.name = name;
    this.#open = open;
  }

  /** The directory of an object's storage. One at a time may be used. */
  static open(storage: DurableObjectStorage): SqlDirectory {
    storage.sql.exec('CREATE TABLE IF NOT EXISTS entries (path TEXT PRIMARY KEY, directory INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID');
    storage.sql.exec('CREATE TABLE IF NOT EXISTS chunks (path TEXT, number INTEGER, bytes BLOB NOT NULL, PRIMARY KEY (path, number)) WITHOUT ROWID');
    return new SqlDirectory(storage, '', '', new Set());
  }

  async getDirectoryHandle(name: string, options: { create?: boolean } = {}): Promise<SqlDirectory> {
    const path = this.#entry(name, true, options.create ?? false);
    return new SqlDirectory(this.#storage, `${path}/`, name, this.#open);
  }

  async getFileHandle(name: string, options: { create?: boolean } = {}): Promise<FileHandle> {
    const path = this.#entry(name, false, options.create ?? false);
    const storage = this.#storage;
    const open = this.#open;
    return {
      kind: 'file',
      name,
      createSyncAccessHandle: async () => {
        if (open.has(path)) throw new DOMException(`${path} is open already`, 'NoModificationAllowedError');
        open.add(path);
        return new SqlAccessHandle(storage, path, () => open.delete(path));
      },
    };
  }

  async removeEntry(name: string, options: { recursive?: boolean } = {}): Promise<void> {
    const path = this.#path(name);
    const found = this.#find(path);
    if (!found) throw new DOMException(`${path} does not exist`, 'NotFoundError');
    if (this.#open.has(path)) throw new DOMException(`${path} is open`, 'NoModificationAllowedError');
    // From `path/` up to, but not including, `path0`: '0' is the character after '/'.
    const [first, last] = [`${path}/`, `${path}0`];
    const { sql } = this.#storage;
    if (found.directory && !options.recursive && sql.exec('SELECT 1 FROM entries WHERE path >= ? AND path < ? LIMIT 1', first, last).toArray().length > 0) {
      throw new DOMException(`${path} is not empty`, 'InvalidModificationError');
    }
    this.#storage.transactionSync(() => {
      for (const table of ['entries', 'chunks']) sql.exec(`DELETE FROM ${table} WHERE path = ? OR (path >= ? AND path < ?)`, path, first, last);
    });
  }

  async *entries(): AsyncIterableIterator<[string, DirectoryHandle | FileHandle]> {
    const rows = this.#storage.sql
      .exec<{ path: string; directory: number }>('SELECT path, directory FROM entries WHERE path >= ? AND path < ? ORDER BY path', this.#prefix, `${this.#prefix}\u{10ffff}`)
      .toArray();
    for (const { path, directory } of rows) {
      const name = path.slice(this.#prefix.length);
      if (!name.includes('/')) yield [name, directory ? await this.getDirectoryHandle(name) : await this.getFileHandle(name)];
    }
  }

  #path(name: string): string {
    if (name === '' || name === '.' || name === '..' || name.includes('/')) throw new TypeError(`${JSON.stringify(name)} is no name of an entry`);
    return this.#prefix + name;
  }

  #find(path: string): { directory: number } | undefined {
    return this.#storage.sql.exec<{ directory: number }>('SELECT directory FROM entries WHERE path = ?', path).toArray()[0];
  }

  #entry(name: string, directory: boolean, create: boolean): string {
    const path = this.#path(name);
    const found = this.#find(path);
    if (found && Boolean(found.directory) !== directory) throw new DOMException(`${path} is of the other kind`, 'TypeMismatchError');
    if (!found && !create) throw new DOMException(`${path} does not exist`, 'NotFoundError');
    if (!found) translate(path, () => this.#storage.sql.exec('INSERT INTO entries VALUES (?, ?, 0)', path, directory ? 1 : 0));
    return path;
  }
}

class SqlAccessHandle implements SyncAccessHandle {
  readonly #storage: DurableObjectStorage;
  readonly #path: string;
  readonly #release: () => void;
  #size: number;
  #position = 0;
  #closed = false;

  constructor(storage: DurableObjectStorage, path: string, release: () => void) {
    this.#storage = storage;
    this.#path = path;
    this.#release = release;
    this.#size = storage.sql.exec<{ size: number }>('SELECT size FROM entries WHERE path = ?', path).one().size;
  }

  read(buffer: Uint8Array, options: { at?: number } = {}): number {
    this.#check();
    const at = options.at ?? this.#position;
    const end = Math.min(at + buffer.length, this.#size);
    if (end <= at) return 0;
    buffer.fill(0, 0, end - at);
    const chunks = this.#storage.sql.exec<{ number: number; bytes: ArrayBuffer }>(
      'SELECT number, bytes FROM chunks WHERE path = ? AND number BETWEEN ? AND ?', this.#path, Math.floor(at / CHUNK_BYTES), Math.floor((end - 1) / CHUNK_BYTES),
    );
    for (const { number, bytes } of chunks) {
      const start = number * CHUNK_BYTES;
      const from = Math.max(at, start);
      const to = Math.min(end, start + bytes.byteLength);
      if (from < to) buffer.set(new Uint8Array(bytes, from - start, to - from), from - at);
    }
    this.#position = end;
    return end - at;
  }

  write(buffer: Uint8Array, options: { at?: number } = {}): number {
    this.#check();
    const at = options.at ?? this.#position;
    const end = at + buffer.length;
    if (buffer.length === 0) return 0;
    const { sql } = this.#storage;
    const size = Math.max(this.#size, end);
    translate(this.#path, () =>
      this.#storage.transactionSync(() => {
        for (let number = Math.floor(at / CHUNK_BYTES); number * CHUNK_BYTES < end; number++) {
          const start = number * CHUNK_BYTES;
          const from = Math.max(at, start);
          const to = Math.min(end, start + CHUNK_BYTES);
          const chunk = this.#chunk(number, Math.min(size - start, CHUNK_BYTES), to - from === CHUNK_BYTES);
          chunk.set(buffer.subarray(from - at, to - at), from - start);
          sql.exec('INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)', this.#path, number, chunk.buffer);
        }
        this.#store(size);
      }),
    );
    this.#size = size;
    this.#position = end;
    return buffer.length;
  }

  truncate(size: number): void {
    this.#check();
    const { sql } = this.#storage;
    translate(this.#path, () =>
      this.#storage.transactionSync(() => {
        if (size < this.#size) {
          const last = Math.floor(size / CHUNK_BYTES);
          const kept = size - last * CHUNK_BYTES;
          const tail = kept > 0 ? this.#chunk(last, kept, false) : undefined;
          sql.exec('DELETE FROM chunks WHERE path = ? AND number >= ?', this.#path, last);
          if (tail) sql.exec('INSERT INTO chunks VALUES (?, ?, ?)', this.#path, last, tail.buffer);
        }
        this.#store(size);
      }),
    );
    this.#size = size;
    this.#position = Math.min(this.#position, size);
  }

  getSize(): number {
    this.#check();
    return this.#size;
  }

  flush(): void {
    this.#check();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#release();
  }

  /** The first `length` bytes of a chunk, zeros where nothing was written. */
  #chunk(number: number, length: number, replaced: boolean): Uint8Array<ArrayBuffer> {
    const chunk = new Uint8Array(length);
    if (replaced) return chunk;
    const [found] = this.#storage.sql.exec<{ bytes: ArrayBuffer }>('SELECT bytes FROM chunks WHERE path = ? AND number = ?', this.#path, number).toArray();
    if (found) chunk.set(new Uint8Array(found.bytes, 0, Math.min(length, found.bytes.byteLength)));
    return chunk;
  }

  #store(size: number): void {
    if (size !== this.#size) this.#storage.sql.exec('UPDATE entries SET size = ? WHERE path = ?', size, this.#path);
  }

  #check(): void {
    if (this.#closed) throw new DOMException(`${this.#path} is closed`, 'InvalidStateError');
  }
}

/** Runs `operation`, with SQLite's word for a full storage as that of the File System standard. */
function translate<T>(path: string, operation: () => T): T {
  try {
    return operation();
  } catch (error) {
    if (FULL.test((error as Error).message)) throw new DOMException(`${path}: ${(error as Error).message}`, 'QuotaExceededError');
    throw error;
  }
}
