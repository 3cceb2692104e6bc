import { type Bytes, decode } from './codec.js';
import type { Engine } from './engine.js';
import { EddyError, type ErrorMessage, fromErrorMessage, toEddyError, toErrorMessage } from './error.js';
import { type EngineEvent, type Op, repeatable, type Session, type WriteMark } from './protocol.js';

// Several tabs, one store. Each tab has a worker; the one that holds the Web Lock of the store's name owns the files and runs the
// engine, the others pass their page's requests on to it. All of this happens between workers: no page is in the way, and when a tab
// goes, its worker, its lock and its files go with it, at whatever instant that is.
//
// Channels: `eddydb:<name>` says who the owner is; `eddydb:<name>:<tab>` carries one guest's requests, so that no tab copies another's.
// Locks: `eddydb:<name>` is ownership; `eddydb:<name>:<tab>` is held while a tab lives, and tells the owner when it is gone.

/** On the channel of the store. */
type Announcement = { owner: string } | { hello: string } | { welcome: string; owner: string };

/** On the channel of a guest. */
type GuestMessage = { to: string; id: number; op: Op; target: string | undefined; body: Bytes | undefined; mark: WriteMark | undefined };
type OwnerMessage =
  | { owner: string; id: number; body?: Bytes | undefined }
  | { owner: string; id: number; error: ErrorMessage }
  | { owner: string; event: EngineEvent };

/** How long a new owner waits for the old one's files to be let go after its lock was. */
const RELEASE_MS_MAX = 5_000;
const RELEASE_RETRY_MS = 20;

const ownerGone = Symbol('the owner is gone');

/** @internal */
export interface TabOptions {
  /** The store's name. */
  name: string;
  /** Opens the store here; called when this tab becomes the owner. */
  openEngine(onDeath: (error: EddyError) => void): Promise<Engine>;
  /** Takes the events for this tab's page. */
  send(event: EngineEvent): void;
  /** This tab's database stopped for good. */
  onDeath(error: EddyError): void;
}

/** One tab's line to a store that tabs share. @internal */
export class Tab implements Session {
  readonly #id = crypto.randomUUID();
  readonly #lock: string;
  readonly #options: TabOptions;
  readonly #announcements: BroadcastChannel;
  readonly #channel: BroadcastChannel;
  readonly #abort = new AbortController();
  readonly #watched = new Map<string, number>();
  readonly #lives = new Map<string, Bytes | undefined>();
  readonly #functions = new Map<string, Bytes | undefined>();
  readonly #rows = new Map<string, Bytes | undefined>();
  readonly #syncs = new Map<string, { body: Bytes | undefined; paused: boolean }>();
  /** Writes have numbers by which any owner knows them again: 53 random bits for the tab, and a count. */
  readonly #client = Number(crypto.getRandomValues(new BigUint64Array(1))[0]! >> 11n);
  readonly #unanswered = new Set<number>();
  #writes = 0;
  #line: { session: Session; owner: string } | undefined;
  #lineWaiters: { resolve(session: Session): void; reject(error: EddyError): void }[] = [];
  #ended: EddyError | undefined;
  #release: () => void = () => {};
  #closeEngine: () => Promise<void> = async () => {};

  private constructor(options: TabOptions) {
    this.#options = options;
    this.#lock = `eddydb:${options.name}`;
    this.#announcements = new BroadcastChannel(this.#lock);
    this.#channel = new BroadcastChannel(`${this.#lock}:${this.#id}`);
  }

  /** Joins the tabs of a store: as its owner when there is none. Resolves when requests can be answered. */
  static async open(options: TabOptions): Promise<Tab> {
    const tab = new Tab(options);
    try {
      await tab.#join();
    } catch (error) {
      tab.#end(toEddyError(error));
      throw error;
    }
    return tab;
  }

  async #join(): Promise<void> {
    const gone = new Promise<void>((resolve) => (this.#release = resolve));
    await new Promise<void>((held) => void navigator.locks.request(`${this.#lock}:${this.#id}`, () => (held(), gone)));
    this.#announcements.onmessage = ({ data }: MessageEvent<Announcement>) => this.#hear(data);
    navigator.locks
      .request(this.#lock, { signal: this.#abort.signal }, async () => {
        const stopped = this.#own();
        await Promise.race([stopped, gone]);
        await stopped.catch(() => {});
      })
      .catch(() => {
        // Given up while waiting in line: the tab was closed.
      });
    this.#announce({ hello: this.#id });
    await this.#getLine();
  }

  async request(op: Op, target: string | undefined, body: Bytes | undefined): Promise<Bytes | undefined> {
    this.#remember(op, target, body);
    const number = ++this.#writes;
    if (op === 'write') this.#unanswered.add(number);
    try {
      return await this.#ask(op, target, body, number);
    } finally {
      this.#unanswered.delete(number);
    }
  }

  /** Asks one owner after the other until there is an answer. */
  async #ask(op: Op, target: string | undefined, body: Bytes | undefined, number: number): Promise<Bytes | undefined> {
    for (let again = false; ; again = true) {
      const session = await this.#getLine();
      // Numbers are added as they grow: the first of the set is the least.
      const [settled = number] = this.#unanswered;
      const mark = op === 'write' ? { client: this.#client, number, settled, again } : undefined;
      try {
        const answer = await session.request(op, target, body, mark);
        if (op === 'watch' && answer) this.#watched.set(target!, decode(answer) as number);
        return answer;
      } catch (error) {
        if (error === ownerGone) {
          if (mark || repeatable.has(op)) continue;
          throw new EddyError('interrupted', `the tab that held the database went away during this ${op}, which was done wholly or not at all: look which`);
        }
        if (mark && again && toEddyError(error).kind === 'unavailable') throw new EddyError('interrupted', toEddyError(error).message);
        throw error;
      }
    }
  }

  async close(): Promise<void> {
    if (this.#ended) return;
    const closeEngine = this.#closeEngine;
    this.#ended = new EddyError('closed', 'the database is closed: open it again');
    try {
      await closeEngine();
    } finally {
      this.#end(this.#ended);
    }
  }

  #end(error: EddyError): void {
    this.#ended ??= error;
    this.#abort.abort();
    this.#loseLine();
    for (const waiter of this.#lineWaiters.splice(0)) waiter.reject(this.#ended);
    this.#announcements.close();
    this.#channel.close();
    this.#release();
  }

  #announce(announcement: Announcement): void {
    this.#announcements.postMessage(announcement);
  }

  // As a guest.

  #hear(announcement: Announcement): void {
    if (this.#ended || this.#line?.owner === this.#id) return;
    if ('welcome' in announcement) {
      if (announcement.welcome === this.#id && this.#line?.owner !== announcement.owner) {
        this.#takeLine(new GuestSession(this.#channel, announcement.owner, this.#forward), announcement.owner);
      }
    } else if ('owner' in announcement && this.#line?.owner !== announcement.owner) {
      this.#loseLine();
      this.#announce({ hello: this.#id });
    }
  }

  readonly #forward = (event: EngineEvent): void => {
    if (event.event === 'change' && this.#watched.has(event.collection)) this.#watched.set(event.collection, event.lsn);
    this.#options.send(event);
  };

  #getLine(): Promise<Session> {
    if (this.#ended) return Promise.reject(this.#ended);
    if (this.#line) return Promise.resolve(this.#line.session);
    return new Promise((resolve, reject) => this.#lineWaiters.push({ resolve, reject }));
  }

  #loseLine(): void {
    const line = this.#line;
    this.#line = undefined;
    if (line && line.session instanceof GuestSession) line.session.lose();
  }

  #takeLine(session: Session, owner: string): void {
    this.#loseLine();
    this.#line = { session, owner };
    for (const waiter of this.#lineWaiters.splice(0)) waiter.resolve(session);
    void this.#resume(session);
  }

  /** What this tab's page wants to go on whoever owns the store. */
  #remember(op: Op, target: string | undefined, body: Bytes | undefined): void {
    if (op === 'watch') this.#watched.set(target!, this.#watched.get(target!) ?? Number.MAX_SAFE_INTEGER);
    else if (op === 'unwatch') this.#watched.delete(target!);
    else if (op === 'liveStart') this.#lives.set(target!, body);
    else if (op === 'liveStop') this.#lives.delete(target!);
    else if (op === 'setFunction') this.#functions.set(target!, body);
    else if (op === 'removeFunction') this.#functions.delete(target!);
    else if (op === 'rowsStart') this.#rows.set(target!, body);
    else if (op === 'rowsStop') this.#rows.delete(target!);
    else if (op === 'syncStart') this.#syncs.set(target!, { body, paused: false });
    else if (op === 'syncStop') this.#syncs.delete(target!);
    else if (op === 'syncPause' || op === 'syncResume') {
      const sync = this.#syncs.get(target!);
      if (sync) sync.paused = op === 'syncPause';
    }
  }

  /** Tells a new owner what this tab waits for, and the page what it has missed. */
  async #resume(session: Session): Promise<void> {
    try {
      for (const [collection, seen] of [...this.#watched]) {
        const answer = await session.request('watch', collection, undefined);
        const lsn = decode(answer!) as number;
        if (lsn > seen) this.#forward({ event: 'change', collection, lsn });
      }
      for (const [name, body] of [...this.#functions]) await session.request('setFunction', name, body);
      for (const [key, body] of [...this.#rows]) await session.request('rowsStart', key, body);
      for (const [key, body] of [...this.#lives]) await session.request('liveStart', key, body);
      for (const [key, { body, paused }] of [...this.#syncs]) {
        await session.request('syncStart', key, body);
        if (paused) await session.request('syncPause', key, undefined);
      }
    } catch {
      // The owner is gone again, and the next one will be told; or the collection is gone, and its events with it.
    }
  }

  // As the owner.

  /** Opens the store and serves the other tabs; resolves when this tab no longer owns it. */
  async #own(): Promise<void> {
    this.#loseLine();
    let lost!: () => void;
    const ended = new Promise<void>((resolve) => (lost = resolve));
    const onDeath = (error: EddyError) => {
      this.#options.onDeath(error);
      this.#end(error);
      lost();
    };
    let engine: Engine;
    try {
      engine = await this.#openEngine(onDeath);
    } catch (error) {
      const understood = toEddyError(error);
      this.#options.onDeath(understood);
      this.#end(understood);
      return;
    }
    const guests = new Map<string, BroadcastChannel>();
    this.#closeEngine = async () => {
      try {
        await engine.close();
      } finally {
        for (const channel of guests.values()) channel.close();
        lost();
      }
    };
    if (this.#ended) return this.#closeEngine();
    this.#announcements.onmessage = ({ data }: MessageEvent<Announcement>) => {
      if (!('hello' in data) || data.hello === this.#id || this.#ended) return;
      if (!guests.has(data.hello)) this.#serve(engine, data.hello, guests);
      this.#announce({ welcome: data.hello, owner: this.#id });
    };
    this.#takeLine(engine.connect(this.#forward), this.#id);
    this.#announce({ owner: this.#id });
    return ended;
  }

  async #openEngine(onDeath: (error: EddyError) => void): Promise<Engine> {
    const deadline = performance.now() + RELEASE_MS_MAX;
    for (;;) {
      try {
        return await this.#options.openEngine(onDeath);
      } catch (error) {
        // A tab that was closed or killed gives up its lock first and its files a moment later.
        if (toEddyError(error).kind !== 'locked' || performance.now() > deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, RELEASE_RETRY_MS));
      }
    }
  }

  #serve(engine: Engine, guest: string, guests: Map<string, BroadcastChannel>): void {
    const owner = this.#id;
    const channel = new BroadcastChannel(`${this.#lock}:${guest}`);
    guests.set(guest, channel);
    const tell = (message: OwnerMessage) => {
      if (guests.has(guest)) channel.postMessage(message);
    };
    const session = engine.connect((event) => tell({ owner, event }));
    channel.onmessage = async ({ data }: MessageEvent<GuestMessage>) => {
      if (data.to !== owner) return;
      const { id, op, target, body, mark } = data;
      try {
        tell({ owner, id, body: await session.request(op, target, body, mark) });
      } catch (error) {
        // Not answered: the guest asks the next owner.
        if (toEddyError(error).kind === 'closed') return;
        tell({ owner, id, error: toErrorMessage(error) });
      }
    };
    const gone = () => {
      guests.delete(guest);
      channel.close();
      void session.close();
    };
    navigator.locks.request(`${this.#lock}:${guest}`, { signal: this.#abort.signal }, gone).catch(() => {});
  }
}

class GuestSession implements Session {
  readonly #channel: BroadcastChannel;
  readonly #owner: string;
  readonly #waiting = new Map<number, { resolve(body: Bytes | undefined): void; reject(error: unknown): void }>();
  static #next = 1;
  #lost = false;

  constructor(channel: BroadcastChannel, owner: string, send: (event: EngineEvent) => void) {
    this.#channel = channel;
    this.#owner = owner;
    channel.onmessage = ({ data }: MessageEvent<OwnerMessage>) => {
      if (data.owner !== owner) return;
      if ('event' in data) return send(data.event);
      const waiting = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if ('error' in data) waiting?.reject(fromErrorMessage(data.error));
      else waiting?.resolve(data.body);
    };
  }

  request(op: Op, target: string | undefined, body: Bytes | undefined, mark?: WriteMark): Promise<Bytes | undefined> {
    if (this.#lost) return Promise.reject(ownerGone);
    return new Promise((resolve, reject) => {
      const id = GuestSession.#next++;
      this.#waiting.set(id, { resolve, reject });
      this.#channel.postMessage({ to: this.#owner, id, op, target, body, mark } satisfies GuestMessage);
    });
  }

  async close(): Promise<void> {
    this.lose();
  }

  lose(): void {
    this.#lost = true;
    for (const waiting of this.#waiting.values()) waiting.reject(ownerGone);
    this.#waiting.clear();
  }
}
