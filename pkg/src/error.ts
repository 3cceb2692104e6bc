/**
 * What to do about an {@link EddyError}:
 *
 * - `invalid_argument`: the request is wrong; fix it.
 * - `not_found`, `already_exists`: what was named is not there, or is there already.
 * - `conflict`: what a write was conditional on is not so; read again, then decide again. Nothing was written.
 * - `gone`: a time before those that are kept; ask for a later one.
 * - `unauthorized`: the server does not know who asks, or not any more; come with a token that is valid.
 * - `forbidden`: who asks may not do that; the same token fails again.
 * - `locked`: another process owns the store; close it there.
 * - `storage_full`: the disk or the browser's quota is full; free some room and retry. Nothing was half written.
 * - `corrupt`: stored bytes are not what was written; restore them from a replica or a backup.
 * - `unsupported`: written by another version, or a host that lacks something; the message says what.
 * - `unavailable`: a passing failure; retry.
 * - `interrupted`: the tab that held the database went away during a call that may have been done, wholly, or not; look which. Reads and
 *   writes of rows never say so: they go on with the next tab, and are done once.
 * - `closed`: the database was closed; open it again.
 * - `io`: the host refused an operation on the storage.
 * - `internal`: an invariant of this library does not hold; please report it.
 */
export type ErrorKind =
  | 'invalid_argument'
  | 'not_found'
  | 'already_exists'
  | 'conflict'
  | 'gone'
  | 'unauthorized'
  | 'forbidden'
  | 'locked'
  | 'storage_full'
  | 'corrupt'
  | 'unsupported'
  | 'unavailable'
  | 'interrupted'
  | 'closed'
  | 'io'
  | 'internal';

const kinds: ReadonlySet<string> = new Set<ErrorKind>([
  'invalid_argument', 'not_found', 'already_exists', 'conflict', 'gone', 'unauthorized', 'forbidden', 'locked', 'storage_full', 'corrupt', 'unsupported', 'unavailable', 'interrupted', 'closed', 'io', 'internal',
]);

/** Each entry of the package is a file of its own, with a class of its own: what one of them throws is an `EddyError` of all. */
const brand = Symbol.for('eddydb.EddyError');

/** Every error of this package: a `kind` that says what to do, and a message that says what was got, what was expected and where. */
export class EddyError extends Error {
  override readonly name = 'EddyError';
  /** What the caller can do about it. */
  readonly kind: ErrorKind;
  /** The character of the filter that the error points at, counted from 0. */
  declare readonly position?: number;

  static {
    Object.defineProperty(this.prototype, brand, { value: true });
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && brand in value;
  }

  constructor(kind: ErrorKind, message: string, options: { position?: number | undefined; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    if (options.position !== undefined) this.position = options.position;
  }
}

/** An error as it crosses between threads. @internal */
export interface ErrorMessage {
  kind: ErrorKind;
  message: string;
  position?: number;
}

/** @internal */
export function toErrorMessage(error: unknown): ErrorMessage {
  const { kind, message, position } = toEddyError(error);
  return position === undefined ? { kind, message } : { kind, message, position };
}

/** @internal */
export function fromErrorMessage({ kind, message, position }: ErrorMessage): EddyError {
  return new EddyError(kind, message, { position });
}

/** Whatever was thrown, as an error of this package: what the engine throws has a kind; anything else is our own failure. @internal */
export function toEddyError(error: unknown): EddyError {
  if (error instanceof EddyError) return error;
  const { kind, message, position } = (error ?? {}) as { kind?: unknown; message?: unknown; position?: unknown };
  const text = typeof message === 'string' ? message : String(error);
  if (typeof kind === 'string') {
    const known = kinds.has(kind) ? (kind as ErrorKind) : 'internal';
    return new EddyError(known, text, { position: typeof position === 'number' ? position : undefined });
  }
  return new EddyError('internal', text, { cause: error });
}
