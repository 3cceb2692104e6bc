import { EddyError } from 'eddydb';

/** An error as a person wants to read it. */
export interface Explained {
  readonly title: string;
  readonly advice: string;
  /** The words of the error itself, for whoever reports it. */
  readonly detail: string;
  /** Whether trying the same again may help. */
  readonly retry: boolean;
}

const KINDS: Readonly<Record<string, readonly [title: string, advice: string, retry: boolean]>> = {
  locked: ['Open somewhere else', 'Another window owns this database and does not answer. Close it there, then try again.', true],
  storage_full: ['No room left', 'The disk or this browser’s quota is full. Free some room, then try again. Nothing was half written.', true],
  corrupt: ['The database on this device is damaged', 'Clear this site’s data to start afresh; a synced copy comes back from the server.', false],
  unsupported: ['This browser is too old', 'Eddy needs WebAssembly, module workers and the origin private file system: Chrome 102, Firefox 111, Safari 16.4 or newer.', false],
  unavailable: ['Nobody answers', 'The network or the server is away. What you have here still works.', true],
  closed: ['The database was closed', 'Reload the page to open it again.', true],
  io: ['The browser refused to read or write', 'Private windows and some settings forbid a page to keep data. Open the page in a normal window.', true],
  invalid_argument: ['That does not fit', 'The database refused it as it is.', false],
  not_found: ['It is not there', 'Somebody may have deleted it meanwhile.', false],
  already_exists: ['It is there already', 'A symbol with this id exists.', false],
  internal: ['Something broke', 'This is a fault in Eddy. Please report it with the words below.', true],
};

/** Explains whatever was thrown. */
export function explain(error: unknown): Explained {
  const detail = error instanceof Error ? error.message : String(error);
  const kind = error instanceof EddyError ? error.kind : error instanceof TypeError && /fetch|network/i.test(detail) ? 'unavailable' : 'internal';
  const [title, advice, retry] = KINDS[kind] ?? (KINDS['internal'] as readonly [string, string, boolean]);
  return { title, advice, detail, retry };
}
