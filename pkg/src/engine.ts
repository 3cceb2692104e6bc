import { type Bytes, decode, encode } from './codec.js';
import { EddyError, toEddyError, toErrorMessage } from './error.js';
import { Hub, type HubOptions, toAdmitted } from './hub.js';
import { Pipes } from './pipes.js';
import type { SearchPool } from './pool.js';
import type { EngineEvent, Op, Session, SyncStatusMessage, WriteMark } from './protocol.js';
import type { LiveKind } from './stream-live.js';
import type { Wasm, WasmArchive, WasmChangeStream, WasmCollection, WasmDatabase, WasmImport, WasmIterator, WasmLiveQueries, WasmSyncSession } from './wasm.js';

/** @internal */
export interface EngineHooks {
  /** A macrotask: whatever the host has queued before runs first. */
  pause(): Promise<void>;
  /** The engine stopped for good. */
  onDeath(error: EddyError): void;
  /** Calls `listener` when the host meets an error that nobody waits for: a trap in a task of the engine is one. */
  onUncaught(listener: (message: string) => void): void;
  /** Starts the workers that search beside it, where there are to be any. */
  startPool?(): SearchPool | undefined;
}

/** A little more than the half second after which the engine syncs what was written with durability `buffered`. */
const syncedAfterMs = 550;
/** Who is asked for a token has so long. */
const tokenWithinMs = 30_000;

/** What no collection's name starts with. */
const snapshotPrefix = 'snapshot:';

/** A sync that one or more sessions share. */
interface SharedSync {
  /** Tokens that are being waited for. */
  asked: Map<number, { resolve(token: string): void; reject(error: EddyError): void }>;
  session: WasmSyncSession;
  clients: Set<EngineSession>;
  paused: boolean;
  status: SyncStatusMessage | undefined;
}

/** The live queries of a collection. */
interface SharedLive {
  queries: Promise<WasmLiveQueries>;
  /** By number. */
  told: Map<number, { key: string; bigint: boolean; client: EngineSession }>;
  /** How many there are, those included that are being added. */
  count: number;
}

/**
 * An open store and everyone who talks to it, in the thread that holds it.
 *
 * Background work runs in slices between requests, which always go first. After a panic nothing is asked of the instance again: its
 * memory may be half changed, while the storage is as sound as after a crash.
 *
 * @internal
 */
export class Engine {
  readonly #db: WasmDatabase;
  readonly #hooks: EngineHooks;
  readonly #collections = new Map<string, WasmCollection>();
  readonly #sessions = new Set<EngineSession>();
  readonly #running = new Set<(error: EddyError) => void>();
  readonly #snapshots = new Map<string, WasmCollection>();
  readonly #exports = new Map<string, WasmArchive>();
  readonly #imports = new Map<string, WasmImport>();
  readonly #iterators = new Map<string, WasmIterator>();
  readonly #changes = new Map<string, WasmChangeStream>();
  readonly #lives = new Map<string, SharedLive>();
  #nextSnapshot = 1;
  readonly #watches = new Map<string, number>();
  readonly #syncs = new Map<string, SharedSync>();
  #nextAsk = 1;
  #online = true;
  #idle: (() => void)[] = [];
  #maintenance: Promise<void> | undefined;
  #maintainAgain = false;
  #later: ReturnType<typeof setTimeout> | undefined;
  #due: ReturnType<typeof setTimeout> | undefined;
  #maintenanceError: { kind: string; message: string } | undefined;
  #ended: EddyError | undefined;
  #pool: SearchPool | undefined;
  readonly #pipes: Pipes | undefined;

  private constructor(db: WasmDatabase, hooks: EngineHooks) {
    this.#db = db;
    this.#hooks = hooks;
    this.#pipes = Pipes.of(db, hooks.pause, (error) => this.#note(error));
    db.onProgress((collection, work, rowsDone, rows) => {
      const event = { event: 'progress', collection, work: work as 'index' | 'flush' | 'compaction', rowsDone, rows } as const;
      for (const session of this.#sessions) session.send(event);
    });
  }

  /** Opens a store; a panic on the way rejects. */
  static async open(wasm: Wasm, open: (database: Wasm['Database']) => Promise<WasmDatabase>, hooks: EngineHooks): Promise<Engine> {
    let die: (error: EddyError) => void;
    const death = new Promise<never>((_, reject) => (die = reject));
    wasm.onPanic((message) => die(panicked(message)));
    hooks.onUncaught((message) => die(panicked(message)));
    const engine = new Engine(await Promise.race([open(wasm.Database), death]), hooks);
    engine.#startPool();
    death.catch((error: EddyError) => engine.die(error));
    engine.#wake();
    engine.#pipes?.wake();
    return engine;
  }

  #startPool(): void {
    this.#pool = this.#hooks.startPool?.();
    if (this.#pool) this.#db.usePool(this.#pool, this.#pool.size);
  }

  /** A line for one client; `send` takes the events that it asked for. */
  connect(send: (event: EngineEvent) => void): Session {
    const session = new EngineSession(this, send);
    this.#sessions.add(session);
    return session;
  }

  /** Stops for good: everything that waits, and everything later, fails with `error`. */
  die(error: EddyError): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#pipes?.end(error);
    this.#pool?.endAll();
    for (const reject of [...this.#running]) reject(error);
    this.#hooks.onDeath(error);
  }

  /** Lets what runs come to its end, then writes everything out and gives up the storage. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = new EddyError('closed', 'the database is closed: open it again');
    for (const { session } of this.#syncs.values()) session.stop();
    this.#syncs.clear();
    clearTimeout(this.#later);
    clearTimeout(this.#due);
    await this.#pipes?.close();
    while (this.#running.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
    await this.#maintenance;
    try {
      await this.#db.close();
    } finally {
      this.#pool?.endAll();
    }
  }

  /** @internal */
  forget(session: EngineSession): void {
    this.#pipes?.forget(session);
    this.#sessions.delete(session);
  }

  /** Runs one request to its end, or to the engine's. @internal */
  run(op: Op, target: string | undefined, body: Bytes | undefined, mark?: WriteMark, piper?: EngineSession): Promise<Bytes | undefined> {
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      this.#running.add(reject);
      const settle = () => {
        this.#running.delete(reject);
        if (this.#running.size === 0) for (const resume of this.#idle.splice(0)) resume();
      };
      (piper ? this.#pipes!.perform(op, target, body, piper) : this.#perform(op, target, body, mark)).then(
        (value) => (settle(), resolve(value)),
        (error: unknown) => (settle(), reject(this.#understand(error))),
      );
    });
  }

  /** Does what concerns pipelines, to its end or to the engine's. @internal */
  pipe(op: Op, target: string | undefined, body: Bytes | undefined, session: EngineSession): Promise<Bytes | undefined> {
    if (!this.#pipes) {
      return Promise.reject(new EddyError('unsupported', 'the database was opened without streams, here or in the tab that holds it: open it with streams: true'));
    }
    return this.run(op, target, body, undefined, session);
  }

  #note(error: unknown): void {
    const understood = this.#understand(error);
    if (understood.kind === 'closed') return;
    this.#maintenanceError = { kind: understood.kind, message: understood.message };
  }

  #understand(error: unknown): EddyError {
    // A trap (out of memory, out of stack) leaves the instance as unusable as a panic does.
    if (error instanceof WebAssembly.RuntimeError) this.die(panicked(error.message));
    return this.#ended?.kind === 'internal' ? this.#ended : toEddyError(error);
  }

  async #perform(op: Op, target: string | undefined, body: Bytes | undefined, mark: WriteMark | undefined): Promise<Bytes | undefined> {
    switch (op) {
      case 'collections':
        return encode(this.#db.collections());
      case 'createCollection': {
        const { schema, options, ifNotExists } = decode(body!) as { schema: Uint8Array; options: Uint8Array; ifNotExists: boolean };
        this.#keep(target!, await this.#db.createCollection(target!, schema, options, ifNotExists));
        return undefined;
      }
      case 'dropCollection': {
        const aliases = decode(this.#db.aliases()) as [string, string][];
        await this.#db.dropCollection(target!);
        this.#forgetCollection(target!);
        for (const [alias, collection] of aliases) if (collection === target) this.#forgetCollection(alias);
        return undefined;
      }
      case 'setAlias': {
        const { collection, there } = decode(body!) as { collection: string; there: boolean };
        await this.#db.setAlias(target!, collection, there);
        this.#forgetCollection(target!);
        return undefined;
      }
      case 'dropAlias':
        await this.#db.dropAlias(target!);
        this.#forgetCollection(target!);
        return undefined;
      case 'aliases':
        return this.#db.aliases();
      case 'loadDataset':
        this.#keep(target!, await this.#db.loadDataset(target!, body!));
        this.#wake();
        return undefined;
      case 'exportFile': {
        const key = `export:${this.#nextSnapshot++}`;
        this.#exports.set(key, await this.#db.exportArchive());
        return encode(key);
      }
      case 'exportPiece': {
        const archive = this.#exports.get(target!);
        if (!archive) throw new EddyError('gone', 'the tab that wrote the file is gone: export it again');
        return archive.next();
      }
      case 'exportEnd':
        this.endExport(target!);
        return undefined;
      case 'importStart': {
        const key = `import:${this.#nextSnapshot++}`;
        this.#imports.set(key, this.#db.importArchive());
        return encode(key);
      }
      case 'importPiece':
        await this.#import(target!).push(body!);
        return undefined;
      case 'importFinish': {
        const names = await this.#import(target!).finish();
        this.#wake();
        return encode(names);
      }
      case 'importEnd':
        await this.endImport(target!);
        return undefined;
      case 'databaseStats': {
        const stats = decode(await this.#db.stats()) as Record<string, unknown>;
        return encode({ ...stats, maintenanceError: this.#maintenanceError });
      }
      case 'describe':
        return this.#collection(target!).describe();
      case 'addField':
        await this.#collection(target!).addField(body!);
        return undefined;
      case 'createIndex': {
        const { field, index } = decode(body!) as { field: string; index: Uint8Array };
        await this.#collection(target!).createIndex(field, index);
        this.#wake();
        return undefined;
      }
      case 'dropIndex':
        await this.#collection(target!).dropIndex(textOf('field', decode(body!)));
        this.#wake();
        return undefined;
      case 'setTtl':
        await this.#collection(target!).setTtl((decode(body!) as number | null) ?? undefined);
        this.#wake();
        return undefined;
      case 'options':
        return this.#collection(target!).options();
      case 'evaluate':
        return this.#collection(target!).evaluate(body!);
      case 'tune': {
        const { recall, store, ...rest } = decode(body!) as { recall: number; store: boolean };
        return this.#collection(target!).tune(encode(rest), recall, store);
      }
      case 'setOptions':
        await this.#collection(target!).setOptions(body!);
        this.#wake();
        return undefined;
      case 'conflicts':
        return this.#collection(target!).conflicts((decode(body!) as { bigint: boolean }).bigint);
      case 'partitions':
        return encode(this.#collection(target!).partitions());
      case 'createPartition':
        await this.#collection(target!).createPartition(textOf('partition', decode(body!)));
        return undefined;
      case 'dropPartition':
        await this.#collection(target!).dropPartition(textOf('partition', decode(body!)));
        this.#wake();
        return undefined;
      case 'write': {
        const numbers = mark && Float64Array.of(mark.client, mark.number, mark.settled, Number(mark.again));
        const written = await this.#collection(target!).write(body!, numbers);
        this.#wake();
        this.#wakeLater();
        return written;
      }
      case 'snapshot': {
        const { at } = decode(body!, true) as { at?: bigint | number };
        const snapshot = this.#collection(target!).snapshot(at === undefined ? undefined : BigInt(at));
        const key = `${snapshotPrefix}${this.#nextSnapshot++}`;
        this.#snapshots.set(key, snapshot);
        return encode(key);
      }
      case 'releaseSnapshot':
        this.releaseSnapshot(target!);
        return undefined;
      case 'get':
      case 'query':
      case 'search':
        return this.#collection(target!)[op](body!);
      case 'atLeast': {
        const { level, bounded, tokens, timeoutMs } = decode(body!) as { level: string; bounded?: number; tokens: string[]; timeoutMs?: number };
        await this.#collection(target!).atLeast(level, bounded, tokens, timeoutMs);
        return undefined;
      }
      case 'explain': {
        const { request, query, profile } = decode(body!) as { request: Uint8Array; query: boolean; profile: boolean };
        return this.#collection(target!).explain(request, query, profile);
      }
      case 'count': {
        const { filter, partitions = [] } = decode(body!) as { filter?: unknown; partitions?: unknown };
        if (!Array.isArray(partitions)) {
          throw new EddyError('invalid_argument', `partitions: an array of names expected, got ${typeof partitions}`);
        }
        for (const name of partitions) textOf('partitions', name);
        if (filter !== undefined) textOf('filter', filter);
        return encode(await this.#collection(target!).count(body!));
      }
      case 'searchIterator':
      case 'queryIterator': {
        const iterator = await this.#collection(target!)[op](body!);
        const key = `iterator:${this.#nextSnapshot++}`;
        this.#iterators.set(key, iterator);
        return encode(key);
      }
      case 'iteratorNext': {
        const iterator = this.#iterators.get(target!);
        if (!iterator) throw new EddyError('gone', 'the iterator ended, or the tab that kept it is gone: begin another one');
        return iterator.next(decode(body!) as number);
      }
      case 'iteratorEnd':
        this.endIterator(target!);
        return undefined;
      case 'changes': {
        const { key, request, open, again } = decode(body!) as { key: string; request: Uint8Array; open: boolean; again: boolean };
        let stream = this.#changes.get(key);
        if (!stream) {
          if (again) throw new EddyError('gone', 'the tab that read the rows is gone: begin anew');
          stream = await this.#collection(target!).changes(request);
          this.#changes.set(key, stream);
        }
        return open ? undefined : stream.ready();
      }
      case 'changesEnd':
        this.endChanges(target!);
        return undefined;
      case 'acknowledge': {
        const { key, subscription, token } = decode(body!) as { key: string; subscription: string; token: string };
        const stream = this.#changes.get(key);
        await (stream ? stream.acknowledge(textOf('token', token)) : this.#collection(target!).acknowledge(subscription, textOf('token', token)));
        return undefined;
      }
      case 'subscriptions':
        return this.#collection(target!).subscriptions();
      case 'unsubscribe':
        return encode(await this.#collection(target!).unsubscribe(textOf('subscription', decode(body!))));
      case 'compact': {
        const collection = this.#collection(target!);
        await collection.beginCompaction();
        while (collection.isCompacting() && !this.#ended) {
          await this.#hooks.pause();
          await this.#slice();
        }
        return undefined;
      }
      case 'memory':
        return this.#db.memory();
      case 'flush':
        await this.#collection(target!).flush();
        return undefined;
      case 'stats':
        return this.#collection(target!).stats();
      default:
        throw new EddyError('internal', `no operation ${op}`);
    }
  }

  /** Lets go of what an archive is made of. @internal */
  endExport(key: string): void {
    this.#exports.get(key)?.end();
    this.#exports.delete(key);
  }

  #import(key: string): WasmImport {
    const archive = this.#imports.get(key);
    if (!archive) throw new EddyError('gone', 'the tab that read the file is gone: import it again');
    return archive;
  }

  /** Gives an import up, when it is not at its end. @internal */
  async endImport(key: string): Promise<void> {
    const archive = this.#imports.get(key);
    this.#imports.delete(key);
    await archive?.abort();
  }

  /** Lets go of what an iterator sees. @internal */
  endIterator(key: string): void {
    this.#iterators.get(key)?.end();
    this.#iterators.delete(key);
  }

  /** Lets go of what a stream of changes keeps. @internal */
  endChanges(key: string): void {
    this.#changes.get(key)?.end();
    this.#changes.delete(key);
  }

  /** Lets go of what a snapshot sees, once what runs on it has ended. @internal */
  releaseSnapshot(key: string): void {
    this.#snapshots.get(key)?.release();
    this.#snapshots.delete(key);
  }

  #collection(name: string): WasmCollection {
    if (name.startsWith(snapshotPrefix)) {
      const snapshot = this.#snapshots.get(name);
      if (!snapshot) throw new EddyError('gone', 'the snapshot was released, or the tab that kept it is gone: take another one');
      return snapshot;
    }
    let collection = this.#collections.get(name);
    if (!collection) {
      collection = this.#db.collection(name);
      this.#collections.set(name, collection);
    }
    return collection;
  }

  #keep(name: string, collection: WasmCollection): void {
    this.#forgetCollection(name);
    this.#collections.set(name, collection);
  }

  // Not freed by hand: a request may still run on it. The generated class frees it when nothing holds it.
  #forgetCollection(name: string): void {
    this.#collections.delete(name);
    this.#watches.delete(name);
  }

  /** The newest position of a collection's log, and from then on an event to every session that watches it. @internal */
  async watch(name: string): Promise<number> {
    const { lsn } = decode(await this.#collection(name).stats()) as { lsn: number };
    if (!this.#watches.has(name)) {
      this.#watches.set(name, lsn);
      void this.#follow(name, this.#collection(name), lsn);
    }
    return lsn;
  }

  async #follow(name: string, collection: WasmCollection, lsn: number): Promise<void> {
    try {
      while (!this.#ended && this.#collections.get(name) === collection) {
        lsn = await collection.changedAfter(lsn);
        for (const session of this.#sessions) session.changed(name, lsn);
      }
    } catch (error) {
      // The end of the collection or of the store ends its events; anything else is a failure of the engine.
      const { kind } = this.#understand(error);
      if (kind === 'internal') this.die(toEddyError(error));
      else for (const session of this.#sessions) session.ended(name);
    } finally {
      this.#watches.delete(name);
    }
  }

  /** Keeps an answer current for a session, and tells it, then what happens to it. @internal */
  async startLive(key: string, body: Bytes, client: EngineSession): Promise<void> {
    if (this.#ended) throw this.#ended;
    const { collection: name, request, kind, bigint } = decode(body) as { collection: string; request: Uint8Array; kind: LiveKind; bigint: boolean };
    let live = this.#lives.get(name);
    if (!live) {
      const collection = this.#collection(name);
      live = { queries: collection.live(), told: new Map(), count: 0 };
      this.#lives.set(name, live);
      void this.#keepCurrent(name, collection, live);
    }
    live.count += 1;
    try {
      const queries = await live.queries;
      const answer = await addLive(queries, kind, request);
      live.told.set((decode(answer) as { id: number }).id, { key, bigint, client });
      client.send({ event: 'live', key, body: answer });
    } catch (error) {
      this.#letGo(name, live);
      throw this.#understand(error);
    }
  }

  /** @internal */
  async stopLive(key: string, client: EngineSession): Promise<void> {
    for (const [name, live] of this.#lives) {
      for (const [id, told] of live.told) {
        if (told.key !== key || told.client !== client) continue;
        live.told.delete(id);
        await (await live.queries).remove(id);
        this.#letGo(name, live);
      }
    }
  }

  #letGo(name: string, live: SharedLive): void {
    live.count -= 1;
    if (live.count > 0) return;
    if (this.#lives.get(name) === live) this.#lives.delete(name);
    live.queries.then((queries) => queries.end()).catch(() => {});
  }

  async #keepCurrent(name: string, collection: WasmCollection, live: SharedLive): Promise<void> {
    try {
      const queries = await live.queries;
      for (let lsn = 0; !this.#ended && this.#lives.get(name) === live; ) {
        lsn = await collection.changedAfter(lsn);
        for (const id of await queries.update()) {
          const told = live.told.get(id);
          if (told) told.client.send({ event: 'live', key: told.key, body: queries.differences(id, told.bigint) });
        }
      }
    } catch (error) {
      const understood = this.#understand(error);
      if (understood.kind === 'internal') this.die(understood);
      // When the database is closed here, another tab may go on with it; the clients of this one hear of it anyway.
      if (!this.#ended) for (const { key, client } of live.told.values()) client.send({ event: 'live', key, error: toErrorMessage(understood) });
      if (this.#lives.get(name) === live) this.#lives.delete(name);
      live.queries.then((queries) => queries.end()).catch(() => {});
    }
  }

  /** A hub for sync clients, in builds that have one. @internal */
  hub({ admit, createCollections = true }: HubOptions): Hub {
    if (this.#ended) throw this.#ended;
    if (!this.#db.hub) throw new EddyError('unsupported', "this build of the engine is no hub: give eddydb_full.wasm, and build: 'full'");
    const hub = this.#db.hub(admit && toAdmitted(admit), createCollections);
    return new Hub(hub, () => this.#wake(), (error) => this.#understand(error));
  }

  /** Whether nothing is asked of it, and no background work is waiting. @internal */
  get isIdle(): boolean {
    return this.#running.size === 0 && this.#maintenance === undefined && !this.#maintainAgain;
  }

  /** Starts a sync for a session, or lets it share the one that runs. @internal */
  startSync(key: string, body: Bytes, client: EngineSession): void {
    const running = this.#syncs.get(key);
    if (running) {
      running.clients.add(client);
      if (running.status) client.send({ event: 'sync', session: key, status: running.status });
      for (const ask of running.asked.keys()) client.send({ event: 'syncToken', session: key, ask });
      return;
    }
    if (this.#ended) throw this.#ended;
    const sync: Omit<SharedSync, 'session'> = { clients: new Set([client]), paused: false, status: undefined, asked: new Map() };
    const { tokens, ...request } = decode(body) as { tokens: boolean };
    const told = (bytes: Bytes) => {
      const status = decode(bytes) as SyncStatusMessage;
      sync.status = status;
      for (const told of sync.clients) told.send({ event: 'sync', session: key, status });
      if (status.state === 'live') this.#wake();
    };
    const session = this.#db.sync(encode(request), told, tokens ? () => this.#askForToken(key, sync) : undefined);
    this.#syncs.set(key, Object.assign(sync, { session }));
    if (!this.#online) session.pause();
  }

  /** Any of the tabs that share a sync may have a token; the first answer counts. */
  #askForToken(key: string, sync: Omit<SharedSync, 'session'>): Promise<string> {
    const ask = this.#nextAsk++;
    return new Promise<string>((resolve, reject) => {
      const late = setTimeout(() => reject(new EddyError('unavailable', `no token within ${tokenWithinMs / 1000} s`)), tokenWithinMs);
      const ended = () => {
        clearTimeout(late);
        sync.asked.delete(ask);
      };
      sync.asked.set(ask, { resolve: (token) => (ended(), resolve(token)), reject: (error) => (ended(), reject(error)) });
      for (const client of sync.clients) client.send({ event: 'syncToken', session: key, ask });
    });
  }

  /** A tab has got a token, or could not. @internal */
  giveToken(key: string, body: Bytes): void {
    const { ask, token, error } = decode(body) as { ask: number; token?: string; error?: string };
    const asked = this.#syncs.get(key)?.asked.get(ask);
    if (token !== undefined) asked?.resolve(token);
    else asked?.reject(new EddyError('unauthorized', error ?? 'no token'));
  }

  /** Ends a sync for a session, and for good when it was the last one. @internal */
  stopSync(key: string, client: EngineSession): void {
    const sync = this.#syncs.get(key);
    if (!sync?.clients.delete(client) || sync.clients.size > 0) return;
    this.#syncs.delete(key);
    sync.session.stop();
  }

  /** @internal */
  pauseSync(key: string, paused: boolean): void {
    const sync = this.#syncs.get(key);
    if (!sync) throw new EddyError('closed', 'the sync was stopped');
    sync.paused = paused;
    this.#steer(sync);
  }

  /** Compares what both sides of a sync hold. @internal */
  async reconcile(key: string, names: string[] | undefined): Promise<Bytes> {
    const sync = this.#syncs.get(key);
    if (!sync) throw new EddyError('closed', 'the sync was stopped');
    return sync.session.reconcile(names);
  }

  /** The host's network came or went. @internal */
  setOnline(online: boolean): void {
    this.#online = online;
    for (const sync of this.#syncs.values()) this.#steer(sync);
  }

  #steer({ session, paused }: SharedSync): void {
    if (paused || !this.#online) session.pause();
    else session.resume();
  }

  /** Starts background work, or has it look again. */
  #wake(): void {
    this.#maintainAgain = true;
    this.#maintenance ??= this.#maintain();
  }

  /** Has background work look again once a write that did not wait for its sync is due for one. */
  #wakeLater(): void {
    this.#later ??= setTimeout(() => {
      this.#later = undefined;
      if (!this.#ended) this.#wake();
    }, syncedAfterMs);
  }

  /** Has background work look again when a segment is due for its age or for having been idle. */
  #wakeWhenDue(): void {
    const dueMs = this.#db.sealDueMs();
    clearTimeout(this.#due);
    this.#due = dueMs === undefined ? undefined : setTimeout(() => !this.#ended && this.#wake(), Math.min(dueMs + 1, 2 ** 31 - 1));
  }

  async #maintain(): Promise<void> {
    try {
      while (this.#maintainAgain && !this.#ended) {
        await this.#hooks.pause();
        while (this.#running.size > 0 && !this.#ended) await new Promise<void>((resolve) => this.#idle.push(resolve));
        if (this.#ended) return;
        this.#maintainAgain = false;
        if (await this.#slice()) this.#maintainAgain = true;
      }
      if (!this.#ended) this.#wakeWhenDue();
    } catch (error) {
      const understood = this.#understand(error);
      this.#maintenanceError = { kind: understood.kind, message: understood.message };
    } finally {
      this.#maintenance = undefined;
    }
  }

  async #slice(): Promise<boolean> {
    const more = await this.#db.maintain();
    this.#maintenanceError = undefined;
    return more;
  }
}

class EngineSession implements Session {
  readonly #engine: Engine;
  /** Takes the events that this client asked for. */
  readonly send: (event: EngineEvent) => void;
  readonly #watched = new Set<string>();
  readonly #snapshots = new Set<string>();
  readonly #iterators = new Set<string>();
  readonly #exports = new Set<string>();
  readonly #imports = new Set<string>();
  readonly #changes = new Set<string>();
  readonly #lives = new Set<string>();
  readonly #syncs = new Set<string>();

  constructor(engine: Engine, send: (event: EngineEvent) => void) {
    this.#engine = engine;
    this.send = send;
  }

  async request(op: Op, target: string | undefined, body: Bytes | undefined, mark?: WriteMark): Promise<Bytes | undefined> {
    if (op === 'watch') {
      this.#watched.add(target!);
      return encode(await this.#engine.watch(target!));
    }
    if (op === 'unwatch') {
      this.#watched.delete(target!);
      return undefined;
    }
    switch (op) {
      case 'syncStart':
        this.#engine.startSync(target!, body!, this);
        this.#syncs.add(target!);
        return undefined;
      case 'syncToken':
        this.#engine.giveToken(target!, body!);
        return undefined;
      case 'syncStop':
        this.#engine.stopSync(target!, this);
        this.#syncs.delete(target!);
        return undefined;
      case 'liveStart':
        this.#lives.add(target!);
        await this.#engine.startLive(target!, body!, this);
        return undefined;
      case 'liveStop':
        this.#lives.delete(target!);
        await this.#engine.stopLive(target!, this);
        return undefined;
      case 'syncPause':
      case 'syncResume':
        this.#engine.pauseSync(target!, op === 'syncPause');
        return undefined;
      case 'syncReconcile':
        return this.#engine.reconcile(target!, body && (decode(body) as string[]));
      case 'snapshot': {
        const key = (await this.#engine.run(op, target, body))!;
        this.#snapshots.add(decode(key) as string);
        return key;
      }
      case 'exportFile': {
        const key = (await this.#engine.run(op, target, body))!;
        this.#exports.add(decode(key) as string);
        return key;
      }
      case 'importStart': {
        const key = (await this.#engine.run(op, target, body))!;
        this.#imports.add(decode(key) as string);
        return key;
      }
      case 'importEnd':
        this.#imports.delete(target!);
        return this.#engine.run(op, target, body);
      case 'searchIterator':
      case 'queryIterator': {
        const key = (await this.#engine.run(op, target, body))!;
        this.#iterators.add(decode(key) as string);
        return key;
      }
      case 'changes':
        this.#changes.add((decode(body!) as { key: string }).key);
        return this.#engine.run(op, target, body);
      case 'changesEnd':
        this.#changes.delete(target!);
        return this.#engine.run(op, target, body);
      case 'iteratorEnd':
        this.#iterators.delete(target!);
        return this.#engine.run(op, target, body);
      case 'exportEnd':
        this.#exports.delete(target!);
        return this.#engine.run(op, target, body);
      case 'releaseSnapshot':
        this.#snapshots.delete(target!);
        return this.#engine.run(op, target, body);
      case 'network':
        this.#engine.setOnline(target === 'online');
        return undefined;
      case 'sql':
      case 'createPipeline':
      case 'pipelines':
      case 'explainSpec':
      case 'pipelineStatus':
      case 'pipelineExplain':
      case 'dropPipeline':
      case 'pausePipeline':
      case 'recoverPipeline':
      case 'savepoint':
      case 'savepoints':
      case 'removeSavepoint':
      case 'unreadRows':
      case 'acknowledgeRows':
      case 'rowsStart':
      case 'rowsStop':
      case 'setFunction':
      case 'removeFunction':
      case 'functionAnswer':
      case 'busConfigure':
      case 'busStatus':
      case 'busPublish':
      case 'busReplay':
      case 'busCancel':
        return this.#engine.pipe(op, target, body, this);
      default:
        return this.#engine.run(op, target, body, mark);
    }
  }

  changed(collection: string, lsn: number): void {
    if (this.#watched.has(collection)) this.send({ event: 'change', collection, lsn });
  }

  ended(collection: string): void {
    if (this.#watched.has(collection)) this.send({ event: 'ended', collection });
  }

  async close(): Promise<void> {
    for (const key of this.#changes) this.#engine.endChanges(key);
    for (const key of this.#lives) await this.#engine.stopLive(key, this);
    for (const key of this.#syncs) this.#engine.stopSync(key, this);
    for (const key of this.#snapshots) this.#engine.releaseSnapshot(key);
    for (const key of this.#exports) this.#engine.endExport(key);
    for (const key of this.#iterators) this.#engine.endIterator(key);
    for (const key of this.#imports) await this.#engine.endImport(key).catch(() => {});
    this.#engine.forget(this);
  }
}

function addLive(queries: WasmLiveQueries, kind: LiveKind, request: Uint8Array): Promise<Bytes> {
  if (kind === 'query') return queries.addQuery(request);
  if (kind === 'search') return queries.addSearch(request);
  if (queries.addHybrid) return queries.addHybrid(request);
  return Promise.reject(new EddyError('unsupported', 'live queries of several searches need streams, here or in the tab that holds the database: open it with streams: true'));
}

function panicked(message: string): EddyError {
  return new EddyError(
    'internal',
    `the engine stopped: ${message}; open the database again (what was acknowledged is stored), and please report it`,
  );
}

function textOf(what: string, value: unknown): string {
  if (typeof value === 'string') return value;
  throw new EddyError('invalid_argument', `${what}: text expected, got ${typeof value}`);
}
