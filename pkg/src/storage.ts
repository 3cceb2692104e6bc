import type { Bytes } from './codec.js';

/** What the engine asks of a store that is written in JavaScript. @internal */
export type StorageOp = 'list' | 'read' | 'put' | 'append' | 'sync' | 'truncate' | 'remove' | 'close';

/**
 * Named byte objects, kept by JavaScript with calls that wait. The contract is that of the engine's storage trait; what is thrown has
 * `kind` and `message`.
 *
 * @internal
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
  run(op: StorageOp, name: string, from: number, len: number, bytes: Bytes | undefined): Promise<unknown>;
  /** Gives up ownership at once, without waiting for what runs. */
  release(): void;
}
