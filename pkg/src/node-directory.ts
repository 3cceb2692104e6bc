import {
  closeSync, existsSync, fdatasyncSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync, readSync, readdirSync, rmSync,
  statSync, writeSync,
} from 'node:fs';
import { join } from 'node:path';

import type { DirectoryHandle, FileHandle, SyncAccessHandle } from './directory.js';

/** The start of a claim's file name; the native storage knows the same one. */
const LOCK = '.lock';
/** A claim made this much before ours has looked around already: it owns the directory, or is about to go. */
const SETTLED_AFTER_MS = 250;
/** How long claims made at the same time are waited for. */
const PATIENCE_MS = 500;
const LOOK_AGAIN_AFTER_MS = 5;

/** What all handles below one root share. */
interface Shared {
  /** The paths that have an access handle. */
  open: Set<string>;
  /** @throws `NoModificationAllowedError` once another process has taken the directory over. */
  check(): void;
}

/**
 * A directory on disk in the shape of a `FileSystemDirectoryHandle`, with synchronous access to its files.
 *
 * `flush` is one `fdatasync`; a new or removed name is made durable by syncing its directory. The root is owned by one process at a
 * time, of Node or native: see {@link NodeDirectory.open}. When another one has taken it over nothing is written or acknowledged any
 * more: `NoModificationAllowedError`.
 */
export class NodeDirectory implements DirectoryHandle {
  readonly kind = 'directory';
  readonly name: string;
  readonly #path: string;
  readonly #shared: Shared;
  #release: (() => void) | undefined;

  private constructor(path: string, name: string, shared: Shared) {
    this.#path = path;
    this.name = name;
    this.#shared = shared;
  }

  /**
   * Opens `path`, creating it when it is not there, and claims it with a file `.lock.PID-STARTED-BOOT-TOKEN` in it. Claims left by
   * processes that are gone do not count, and are removed.
   *
   * @throws `NoModificationAllowedError` while another process, or another database of this one, has it.
   */
  static open(path: string): NodeDirectory {
    translate(path, () => mkdirSync(path, { recursive: true }));
    const { claim, release } = lock(path);
    const check = () => {
      if (existsSync(claim)) return;
      throw new DOMException(`another process has taken over ${path}, or it is closed`, 'NoModificationAllowedError');
    };
    const directory = new NodeDirectory(path, '', { open: new Set(), check });
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
        this.#shared.check();
        mkdirSync(path);
        this.#sync();
      }
      return new NodeDirectory(path, name, this.#shared);
    });
  }

  async getFileHandle(name: string, options: { create?: boolean } = {}): Promise<FileHandle> {
    const path = this.#child(name);
    return translate(path, () => {
      const found = statSync(path, { throwIfNoEntry: false });
      if (found && !found.isFile()) throw new DOMException(`${path} is a directory`, 'TypeMismatchError');
      if (!found) {
        if (!options.create) throw new DOMException(`${path} does not exist`, 'NotFoundError');
        this.#shared.check();
        closeSync(openSync(path, 'wx'));
        this.#sync();
      }
      return new NodeFile(path, name, this.#shared);
    });
  }

  async removeEntry(name: string, options: { recursive?: boolean } = {}): Promise<void> {
    const path = this.#child(name);
    translate(path, () => {
      if (this.#shared.open.has(path)) throw new DOMException(`${path} is open`, 'NoModificationAllowedError');
      this.#shared.check();
      rmSync(path, { recursive: options.recursive ?? false });
      this.#sync();
    });
  }

  async *entries(): AsyncIterableIterator<[string, NodeDirectory | FileHandle]> {
    for (const entry of translate(this.#path, () => readdirSync(this.#path, { withFileTypes: true }))) {
      const path = join(this.#path, entry.name);
      if (entry.isDirectory()) yield [entry.name, new NodeDirectory(path, entry.name, this.#shared)];
      else if (entry.isFile() && !isLock(entry.name)) yield [entry.name, new NodeFile(path, entry.name, this.#shared)];
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
  readonly #shared: Shared;

  constructor(path: string, name: string, shared: Shared) {
    this.#path = path;
    this.name = name;
    this.#shared = shared;
  }

  async createSyncAccessHandle(): Promise<SyncAccessHandle> {
    const { open } = this.#shared;
    if (open.has(this.#path)) throw new DOMException(`${this.#path} is open already`, 'NoModificationAllowedError');
    const file = translate(this.#path, () => openSync(this.#path, 'r+'));
    open.add(this.#path);
    return new NodeAccessHandle(this.#path, file, this.#shared);
  }

  async getFile(): Promise<Blob & { name: string }> {
    const bytes = translate(this.#path, () => readFileSync(this.#path));
    return Object.assign(new Blob([bytes]), { name: this.name });
  }
}

class NodeAccessHandle implements SyncAccessHandle {
  readonly #path: string;
  readonly #shared: Shared;
  #file: number | undefined;
  #position = 0;

  constructor(path: string, file: number, shared: Shared) {
    this.#path = path;
    this.#file = file;
    this.#shared = shared;
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
      this.#shared.check();
      let done = 0;
      while (done < buffer.length) done += writeSync(file, buffer, done, buffer.length - done, at + done);
      this.#position = at + done;
      return done;
    });
  }

  truncate(size: number): void {
    this.#use((file) => {
      this.#shared.check();
      ftruncateSync(file, size);
    });
    this.#position = Math.min(this.#position, size);
  }

  getSize(): number {
    return this.#use((file) => fstatSync(file).size);
  }

  flush(): void {
    this.#use((file) => {
      fdatasyncSync(file);
      // Whoever takes the directory over removes our claim before reading: what was durable while it stood is among what is read.
      this.#shared.check();
    });
  }

  close(): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#file = undefined;
    this.#shared.open.delete(this.#path);
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

/** A process that claims a directory: what the name of its claim says. `'0'` stands for what the system does not tell. */
interface Claimant {
  pid: number;
  /** When it started, in clock ticks since the machine did. */
  started: string;
  /** Which start of the machine that was. */
  boot: string;
  token: string;
}

const claimPattern = /^\.lock\.(\d+)-(\d+)-([0-9a-f]{16})-([0-9a-f]{16})$/;
const nobodyKnows = '0'.repeat(16);

function parseClaim(name: string): Claimant | undefined {
  const parts = claimPattern.exec(name);
  return parts ? { pid: Number(parts[1]), started: parts[2]!, boot: parts[3]!, token: parts[4]! } : undefined;
}

/**
 * Claims a directory; the answer has the file that says so, and gives it up.
 *
 * Everyone creates an empty file with its own name first and then looks for others, so of two at least one sees the other. Among
 * claims made at the same moment the one with the lowest token waits for the others to go. The winner removes the claims of dead
 * processes before it reads anything.
 */
function lock(directory: string): { claim: string; release: () => void } {
  const token = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  const own = `${LOCK}.${process.pid}-${statOf(process.pid)?.(22) ?? '0'}-${boot() ?? nobodyKnows}-${token}`;
  const claim = join(directory, own);
  const release = () => {
    process.off('exit', release);
    rmSync(claim, { force: true });
  };
  translate(claim, () => closeSync(openSync(claim, 'wx')));
  process.on('exit', release);
  try {
    translate(claim, () => settle(directory, own, token));
  } catch (error) {
    release();
    throw error;
  }
  return { claim, release };
}

/** Looks for others until there are none. @throws `NoModificationAllowedError` when one of them stays, or goes first. */
function settle(directory: string, own: string, token: string): void {
  const made = modified(join(directory, own)) ?? 0;
  for (let waited = 0; ; waited += LOOK_AGAIN_AFTER_MS) {
    const rivals: [string, Claimant][] = [];
    const stale: string[] = [];
    for (const name of readdirSync(directory)) {
      const claimant = name === own ? undefined : parseClaim(name);
      if (claimant && isAlive(claimant)) rivals.push([join(directory, name), claimant]);
      else if (claimant) stale.push(join(directory, name));
    }
    if (rivals.length === 0) {
      for (const path of stale) rmSync(path, { force: true });
      return;
    }
    for (const [path, rival] of rivals) {
      const theirs = modified(path);
      if (waited < PATIENCE_MS && rival.token > token && (theirs === undefined || made <= theirs + SETTLED_AFTER_MS)) continue;
      throw new DOMException(
        `${directory} is in use by process ${rival.pid} (should that be no Eddy, remove ${path})`,
        'NoModificationAllowedError',
      );
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_AGAIN_AFTER_MS);
  }
}

function modified(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs;
}

/**
 * Whether the process may still be there. An id alone may be another process's by now, so start and machine count too. One that ended but
 * that its parent has not asked about yet is gone: it has nothing open any more.
 */
function isAlive(claimant: Claimant): boolean {
  try {
    process.kill(claimant.pid, 0);
  } catch (error) {
    // Any other error than "no such process" means that there is one.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const differs = (then: string, now: string | undefined) => !/^0+$/.test(then) && now !== undefined && now !== then;
  const stat = statOf(claimant.pid);
  return !differs(claimant.boot, boot()) && !differs(claimant.started, stat?.(22)) && !(stat && /^[ZX]$/.test(stat(3) ?? '') && Number(stat(20)) <= 1);
}

/** Which start of the machine this is, where the system tells. */
function boot(): string | undefined {
  return readSystem('/proc/sys/kernel/random/boot_id')?.replace(/[^0-9a-f]/g, '').slice(0, 16);
}

/** What Linux tells of a process: its fields are counted from 1, and those after the second are there. */
function statOf(pid: number): ((field: number) => string | undefined) | undefined {
  const stat = readSystem(`/proc/${pid}/stat`);
  // The second, the command in parentheses, may itself contain spaces and parentheses.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields && ((field) => fields[field - 3]);
}

function readSystem(path: string): string | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
