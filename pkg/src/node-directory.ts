import {
  closeSync, fdatasyncSync, fstatSync, fsyncSync, ftruncateSync, linkSync, mkdirSync, openSync, readFileSync, readSync, readdirSync, renameSync,
  rmSync, statSync, unlinkSync, writeFileSync, writeSync,
} from 'node:fs';
import { join } from 'node:path';

import type { DirectoryHandle, FileHandle, SyncAccessHandle } from './directory.js';

const LOCK = '.lock';

/**
 * A directory on disk in the shape of a `FileSystemDirectoryHandle`, with synchronous access to its files.
 *
 * `flush` is one `fdatasync`; a new or removed name is made durable by syncing its directory. The root is owned by one process at a
 * time: see {@link NodeDirectory.open}.
 */
export class NodeDirectory implements DirectoryHandle {
  readonly kind = 'directory';
  readonly name: string;
  readonly #path: string;
  readonly #open: Set<string>;
  #release: (() => void) | undefined;

  private constructor(path: string, name: string, open: Set<string>) {
    this.#path = path;
    this.name = name;
    this.#open = open;
  }

  /**
   * Opens `path`, creating it when it is not there, and takes the lock file `.lock` in it. A lock left by a process that is gone is
   * taken over.
   *
   * @throws `NoModificationAllowedError` while another process, or another database of this one, has it.
   */
  static open(path: string): NodeDirectory {
    translate(path, () => mkdirSync(path, { recursive: true }));
    const release = lock(path);
    const directory = new NodeDirectory(path, '', new Set());
    directory.#release = release;
    return directory;
  }

  /** Gives up the lock. */
  close(): void {
    this.#release?.();
    this.#release = undefined;
  }

  async getDirectoryHandle(name: string, options: { create?: boolean } = {}): Promise<NodeDirectory> {
    const path = this.#child(name);
    return translate(path, () => {
      const found = statSync(path, { throwIfNoEntry: false });
      if (found && !found.isDirectory()) throw new DOMException(`${path} is a file`, 'TypeMismatchError');
      if (!found) {
        if (!options.create) throw new DOMException(`${path} does not exist`, 'NotFoundError');
        mkdirSync(path);
        this.#sync();
      }
      return new NodeDirectory(path, name, this.#open);
    });
  }

  async getFileHandle(name: string, options: { create?: boolean } = {}): Promise<FileHandle> {
    const path = this.#child(name);
    return translate(path, () => {
      const found = statSync(path, { throwIfNoEntry: false });
      if (found && !found.isFile()) throw new DOMException(`${path} is a directory`, 'TypeMismatchError');
      if (!found) {
        if (!options.create) throw new DOMException(`${path} does not exist`, 'NotFoundError');
        closeSync(openSync(path, 'wx'));
        this.#sync();
      }
      return new NodeFile(path, name, this.#open);
    });
  }

  async removeEntry(name: string, options: { recursive?: boolean } = {}): Promise<void> {
    const path = this.#child(name);
    translate(path, () => {
      if (this.#open.has(path)) throw new DOMException(`${path} is open`, 'NoModificationAllowedError');
      rmSync(path, { recursive: options.recursive ?? false });
      this.#sync();
    });
  }

  async *entries(): AsyncIterableIterator<[string, NodeDirectory | FileHandle]> {
    for (const entry of translate(this.#path, () => readdirSync(this.#path, { withFileTypes: true }))) {
      const path = join(this.#path, entry.name);
      if (entry.isDirectory()) yield [entry.name, new NodeDirectory(path, entry.name, this.#open)];
      else if (entry.isFile() && !isLock(entry.name)) yield [entry.name, new NodeFile(path, entry.name, this.#open)];
    }
  }

  async *keys(): AsyncIterableIterator<string> {
    for await (const [name] of this.entries()) yield name;
  }

  async *values(): AsyncIterableIterator<NodeDirectory | FileHandle> {
    for await (const [, handle] of this.entries()) yield handle;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<[string, NodeDirectory | FileHandle]> {
    return this.entries();
  }

  #child(name: string): string {
    if (name === '' || name === '.' || name === '..' || /[/\\\0]/.test(name) || isLock(name)) {
      throw new TypeError(`${JSON.stringify(name)} is no name of an entry`);
    }
    return join(this.#path, name);
  }

  #sync(): void {
    // Windows has no handles on directories, and makes names durable by itself.
    if (process.platform === 'win32') return;
    const directory = openSync(this.#path, 'r');
    try {
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  }
}

class NodeFile implements FileHandle {
  readonly kind = 'file';
  readonly name: string;
  readonly #path: string;
  readonly #open: Set<string>;

  constructor(path: string, name: string, open: Set<string>) {
    this.#path = path;
    this.name = name;
    this.#open = open;
  }

  async createSyncAccessHandle(): Promise<SyncAccessHandle> {
    if (this.#open.has(this.#path)) throw new DOMException(`${this.#path} is open already`, 'NoModificationAllowedError');
    const file = translate(this.#path, () => openSync(this.#path, 'r+'));
    this.#open.add(this.#path);
    return new NodeAccessHandle(this.#path, file, () => this.#open.delete(this.#path));
  }

  async getFile(): Promise<Blob & { name: string }> {
    const bytes = translate(this.#path, () => readFileSync(this.#path));
    return Object.assign(new Blob([bytes]), { name: this.name });
  }
}

class NodeAccessHandle implements SyncAccessHandle {
  readonly #path: string;
  readonly #release: () => void;
  #file: number | undefined;
  #position = 0;

  constructor(path: string, file: number, release: () => void) {
    this.#path = path;
    this.#file = file;
    this.#release = release;
  }

  read(buffer: Uint8Array, options: { at?: number } = {}): number {
    const at = options.at ?? this.#position;
    return this.#use((file) => {
      let done = 0;
      while (done < buffer.length) {
        const count = readSync(file, buffer, done, buffer.length - done, at + done);
        if (count === 0) break;
        done += count;
      }
      this.#position = at + done;
      return done;
    });
  }

  write(buffer: Uint8Array, options: { at?: number } = {}): number {
    const at = options.at ?? this.#position;
    return this.#use((file) => {
      let done = 0;
      while (done < buffer.length) done += writeSync(file, buffer, done, buffer.length - done, at + done);
      this.#position = at + done;
      return done;
    });
  }

  truncate(size: number): void {
    this.#use((file) => ftruncateSync(file, size));
    this.#position = Math.min(this.#position, size);
  }

  getSize(): number {
    return this.#use((file) => fstatSync(file).size);
  }

  flush(): void {
    this.#use((file) => fdatasyncSync(file));
  }

  close(): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    this.#release();
    closeSync(file);
  }

  #use<T>(operation: (file: number) => T): T {
    const file = this.#file;
    if (file === undefined) throw new DOMException(`${this.#path} is closed`, 'InvalidStateError');
    return translate(this.#path, () => operation(file));
  }
}

/** Runs `operation`, with the errors of Node as those of the File System standard. */
function translate<T>(path: string, operation: () => T): T {
  try {
    return operation();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const name = { ENOSPC: 'QuotaExceededError', EDQUOT: 'QuotaExceededError', EFBIG: 'QuotaExceededError', ENOENT: 'NotFoundError',
      ENOTDIR: 'TypeMismatchError', EISDIR: 'TypeMismatchError', ENOTEMPTY: 'InvalidModificationError', EACCES: 'NotAllowedError',
      EPERM: 'NotAllowedError', EROFS: 'NoModificationAllowedError' }[code ?? ''];
    if (name && !(error instanceof DOMException)) throw new DOMException(`${path}: ${message}`, name);
    throw error;
  }
}

function isLock(name: string): boolean {
  return name === LOCK || name.startsWith(`${LOCK}.`);
}

interface Owner {
  pid: number;
  /** What tells this process from an earlier one with its id. */
  started: string;
}

/** Takes the lock file of a directory; the answer gives it up. */
function lock(directory: string): () => void {
  const path = join(directory, LOCK);
  const self = JSON.stringify({ pid: process.pid, started: startOf(process.pid) ?? '' } satisfies Owner);
  const own = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}`;
  // Written whole under another name and then linked: whoever finds the lock finds its owner in it.
  translate(own, () => writeFileSync(own, self, { flag: 'wx' }));
  try {
    for (;;) {
      try {
        linkSync(own, path);
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return translate(path, () => { throw error; });
      }
      removeStale(path, directory);
    }
  } finally {
    unlinkSync(own);
  }
  const release = () => {
    process.off('exit', release);
    try {
      if (readFileSync(path, 'utf8') === self) unlinkSync(path);
    } catch {
      // The directory is gone, and the lock with it.
    }
  };
  process.on('exit', release);
  return release;
}

/** Removes a lock whose owner is gone. @throws `NoModificationAllowedError` when it is not. */
function removeStale(path: string, directory: string): void {
  const text = readLock(path);
  if (text === undefined) return;
  const owner = parseOwner(text);
  if (owner && isAlive(owner)) {
    throw new DOMException(`${directory} is in use by process ${owner.pid}`, 'NoModificationAllowedError');
  }
  // Another process may have come to the same conclusion, removed it and taken a lock of its own: what was moved away is looked
  // at again, and given back when it is not the stale one.
  const aside = `${path}.${process.pid}.stale`;
  try {
    renameSync(path, aside);
  } catch {
    return;
  }
  if (readLock(aside) !== text) {
    try {
      linkSync(aside, path);
    } catch {
      // Someone holds a lock again; the one moved away is told so when it looks for its file.
    }
  }
  unlinkSync(aside);
}

function readLock(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function parseOwner(text: string): Owner | undefined {
  try {
    const { pid, started } = JSON.parse(text) as Owner;
    return Number.isInteger(pid) && typeof started === 'string' ? { pid, started } : undefined;
  } catch {
    return undefined;
  }
}

function isAlive({ pid, started }: Owner): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // Any other error than "no such process" means that there is one.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const now = startOf(pid);
  return now === undefined || started === '' || now === started;
}

/** When a process started, where the system tells: an id alone may be another process's by now. */
function startOf(pid: number): string | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    // Field 22, counted after the command's closing parenthesis, which may itself contain spaces and parentheses.
    return `${boot} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`;
  } catch {
    return undefined;
  }
}
