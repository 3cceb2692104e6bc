import { type Collection, type Database, EddyError, open, type SyncSession, type SyncStatus } from 'eddydb';

import { SETTINGS, SYMBOLS, WORDS } from './schemas';

export type Symbols = Collection<typeof SYMBOLS>;
export type Words = Collection<typeof WORDS>;

/** A file of the sample, by where it is and how long. The build fills this in. */
interface Sample {
  readonly url: string;
  readonly bytes: number;
  readonly rows: number;
}
declare const SAMPLE: { readonly symbols: Sample; readonly words: Sample };
const SAMPLES = `${SAMPLE.symbols.url} ${SAMPLE.words.url}`;

/** How far the first load has got: bytes that came over the network, rows that can be searched. */
export interface Progress {
  readonly bytes: number;
  readonly bytesTotal: number;
  readonly rows: number;
  readonly rowsTotal: number;
}

const NAME = 'eddy-console';
/** What the page remembers. */
interface Settings {
  /** Which sample files this store has all rows of. */
  loaded: string;
  /** Whether a server stood behind this page when it was last asked: a page that starts without network tries it again later. */
  server: 'yes' | 'no';
  /** Whether the user has switched sync off. */
  offline: 'yes' | 'no';
}

/** The page's database: two collections, and the sync session where the page's host is an Eddy server. */
export class Store {
  readonly db: Database;
  /** How long opening took. */
  readonly openMs: number;
  /** Whether it outlives the page. */
  readonly kept: boolean;

  #settings: Partial<Settings> = {};
  #sync: SyncSession | undefined;

  private constructor(db: Database, openMs: number, kept: boolean) {
    this.db = db;
    this.openMs = openMs;
    this.kept = kept;
  }

  /** Opens the database on disk; in memory where the browser gives the page no disk, as some do in private windows. */
  static async open(): Promise<Store> {
    const started = performance.now();
    const since = (): number => performance.now() - started;
    const make = async (): Promise<Store> => {
      try {
        return new Store(await open({ name: NAME }), since(), true);
      } catch (error) {
        if (!(error instanceof EddyError && (error.kind === 'unsupported' || error.kind === 'io'))) throw error;
        return new Store(await open({ name: NAME, storage: 'memory' }), since(), false);
      }
    };
    const store = await make();
    await store.db.createCollection('settings', SETTINGS, { ifNotExists: true });
    await store.#readSettings();
    return store;
  }

  async #readSettings(): Promise<void> {
    const rows = await this.db.collection('settings', SETTINGS).query();
    this.#settings = Object.fromEntries(rows.map(({ key, value }) => [key, value]));
  }

  async #remember<K extends keyof Settings>(key: K, value: Settings[K]): Promise<void> {
    if (this.#settings[key] === value) return;
    this.#settings[key] = value;
    await this.db.collection('settings', SETTINGS).upsert([{ key, value }]);
  }

  /** Whether the user has switched sync off. */
  get offline(): boolean {
    return this.#settings.offline === 'yes';
  }

  get symbols(): Symbols {
    return this.db.collection('symbols', SYMBOLS);
  }

  get words(): Words {
    return this.db.collection('words', WORDS);
  }

  /** Whether every row of the sample is here. */
  async complete(): Promise<boolean> {
    const names = await this.#names();
    return names.has('symbols') && names.has('words') && this.#settings.loaded === SAMPLES;
  }

  /**
   * Downloads the sample and loads it, the words first: without them no text is a query. Rows can be searched as they arrive. Two tabs
   * that start at once do this once.
   */
  async load(onProgress: (progress: Progress) => void, onCollection: (name: 'words' | 'symbols') => void): Promise<void> {
    await exclusively(`${NAME}:load`, async () => {
      // Another tab may have done it meanwhile.
      await this.#readSettings();
      if (await this.complete()) {
        onCollection('words');
        onCollection('symbols');
        return;
      }
      const samples = [
        ['words', SAMPLE.words],
        ['symbols', SAMPLE.symbols],
      ] as const;
      const received = { words: 0, symbols: 0 };
      const loaded = { words: 0, symbols: 0 };
      const report = () =>
        onProgress({
          bytes: received.words + received.symbols,
          bytesTotal: SAMPLE.words.bytes + SAMPLE.symbols.bytes,
          rows: loaded.words + loaded.symbols,
          rowsTotal: SAMPLE.words.rows + SAMPLE.symbols.rows,
        });
      report();
      const downloads = samples.map(async ([name, sample]) =>
        download(sample, (bytes) => {
          received[name] = bytes;
          report();
        }),
      );
      // The one that is waited for later must not be an unhandled rejection meanwhile.
      for (const started of downloads) started.catch(() => undefined);
      for (const [at, [name, sample]] of samples.entries()) {
        const bytes = await (downloads[at] as Promise<Uint8Array<ArrayBuffer>>);
        const stop = this.#watch(name, (rows) => {
          loaded[name] = Math.min(rows, sample.rows);
          report();
        }, () => onCollection(name));
        try {
          await this.db.loadDataset(name, bytes);
        } finally {
          stop();
        }
        loaded[name] = sample.rows;
        onCollection(name);
        report();
      }
      await this.#remember('loaded', SAMPLES);
    });
  }

  /** Counts the rows of a collection as they come in, from the moment when it exists. */
  #watch(name: 'words' | 'symbols', onRows: (rows: number) => void, onExists: () => void): () => void {
    let stopped = false;
    let exists = false;
    const look = async (): Promise<void> => {
      if (stopped) return;
      try {
        exists ||= (await this.#names()).has(name);
        if (exists && !stopped) {
          const { rows } = await this.db.collection(name).stats();
          if (stopped) return;
          onRows(rows);
          onExists();
        }
      } catch {
        // The load itself says what is wrong.
      }
      if (!stopped) setTimeout(look, 150);
    };
    void look();
    return () => {
      stopped = true;
    };
  }

  async #names(): Promise<Set<string>> {
    return new Set(await this.db.collections());
  }

  /** Starts to sync where the host of this page is an Eddy server, or was when the page last could ask. */
  async sync(onStatus: (status: SyncStatus) => void): Promise<SyncSession | undefined> {
    const base = new URL('./', document.baseURI);
    const answer = await isServer(new URL('health', base));
    if (answer !== undefined) await this.#remember('server', answer ? 'yes' : 'no');
    if (!(answer ?? this.#settings.server === 'yes')) return undefined;
    const url = new URL('sync', base);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const sync = this.db.sync({ url: url.href, collections: ['symbols'] });
    if (this.offline) await sync.pause();
    this.#sync = sync;
    sync.onStatus(onStatus);
    // The switch of another tab is this one's too.
    this.db.collection('settings', SETTINGS).onChange(() => void this.#readSettings().then(() => onStatus(sync.status), () => undefined));
    return sync;
  }

  /** Pauses or resumes sync. It stays so, over reloads and crashes, until it is changed again. */
  async setOnline(online: boolean): Promise<void> {
    if (!online) await this.#sync?.pause();
    await this.#remember('offline', online ? 'no' : 'yes');
    if (online) await this.#sync?.resume();
  }
}

async function download({ url, bytes: length }: Sample, onBytes: (bytes: number) => void): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(new URL(url, document.baseURI));
  if (!response.ok || !response.body) throw new Error(`the host answered ${response.status} to ${url}`);
  const whole = new Uint8Array(length);
  let filled = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (filled + part.value.length > length) throw new Error(`${url} is longer than its ${length} bytes`);
    whole.set(part.value, filled);
    filled += part.value.length;
    onBytes(filled);
  }
  if (filled !== length) throw new Error(`${url} ended after ${filled} of ${length} bytes`);
  return whole;
}

/** Whether an Eddy server answers there; nothing when nobody answers. */
async function isServer(url: URL): Promise<boolean | undefined> {
  try {
    const response = await fetch(url, { headers: { accept: 'application/json' }, cache: 'no-store', signal: AbortSignal.timeout(5000) });
    if (!response.ok || !response.headers.get('content-type')?.includes('json')) return false;
    const health: unknown = await response.json();
    return typeof health === 'object' && health !== null && 'replica' in health;
  } catch {
    return undefined;
  }
}

async function exclusively(name: string, work: () => Promise<void>): Promise<void> {
  if (!('locks' in navigator)) return work();
  await navigator.locks.request(name, work);
}
