/** What the engine asks of a store that is written in JavaScript. */
export type StorageOp = 'list' | 'read' | 'put' | 'append' | 'sync' | 'truncate' | 'remove' | 'close';

/**
 * Named byte objects, kept by JavaScript with calls that wait. The contract is that of the engine's storage trait (`src/storage/mod.rs` of the
 * repository), whose suite it must pass; what is thrown has `kind` and `message`, as an `EddyError` has.
 */
export interface ForeignStorage {
  /**
   * | op | `name` | `from` | `len` | `bytes` | answer |
   * |---|---|---|---|---|---|
   * | `list` | the prefix | | | | `[name, length][]`, ascending |
   * | `read` | the object | the offset | how many bytes; below 0: all | | `Uint8Array` |
   * | `put`, `append` | the object | | | what to write | |
   * | `truncate` | the object | the length | | | |
   * | `sync`, `remove` | the object | | | | |
   * | `close` | | | | | |
   */
  run(op: StorageOp, name: string, from: number, len: number, bytes: Uint8Array<ArrayBuffer> | undefined): Promise<unknown>;
  /** Gives up ownership at once, without waiting for what runs. */
  release(): void;
}
