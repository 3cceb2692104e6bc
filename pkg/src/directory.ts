/**
 * What the engine needs of a directory: a `FileSystemDirectoryHandle` has it, and anything of the same shape will do. Failures are
 * `DOMException`s by the File System standard's names: `NotFoundError`, `NoModificationAllowedError`, `QuotaExceededError`,
 * `TypeMismatchError`.
 */
export interface DirectoryHandle {
  readonly kind: 'directory';
  readonly name: string;
  getDirectoryHandle(name: string, options?: { create?: boolean }): Promise<DirectoryHandle>;
  getFileHandle(name: string, options?: { create?: boolean }): Promise<FileHandle>;
  removeEntry(name: string, options?: { recursive?: boolean }): Promise<void>;
  entries(): AsyncIterableIterator<[string, DirectoryHandle | FileHandle]>;
}

/** A file of a {@link DirectoryHandle}. */
export interface FileHandle {
  readonly kind: 'file';
  readonly name: string;
  createSyncAccessHandle(): Promise<SyncAccessHandle>;
}

/** An open file: reads and writes at once, without promises. One per file at a time. */
export interface SyncAccessHandle {
  read(buffer: Uint8Array, options?: { at?: number }): number;
  write(buffer: Uint8Array, options?: { at?: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}
