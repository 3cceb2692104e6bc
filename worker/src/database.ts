import { DurableObject } from 'cloudflare:workers';
import { answerToPing, EddyError, type EmbeddedDatabase, faultFrame, type Hub, type HubConnection, openEmbedded, tokenOf } from 'eddydb/embedded';
import wasm from 'eddydb/eddydb_full.wasm';

import { EdgeStorage } from './edge-storage.js';
import { type Env, isSame, limits, upstreamOf } from './env.js';
import { answer, failure, understood } from './http.js';
import { type ArgumentsOf, type Operations, operations } from './operations.js';
import { Upstream } from './upstream.js';

/** Nothing has happened for so long: the database is closed, and its connections rest. The runtime evicts what is quiet for 10 s. */
const REST_AFTER_MS = 2_000;
/** A client shows its token within this. */
const TOKEN_WITHIN_MS = 20_000;
/** The object is woken to end what it was doing when it was last heard of, should it be lost. */
const UNFINISHED_AFTER_MS = 60_000;
/** So long clients wait for collections that the hub above may have. */
const ARRIVED_WITHIN_MS = 5_000;
/** What the runtime keeps beside a socket, with some room. */
const ATTACHMENT_BYTES_MAX = 15_000;

/** What is kept beside a socket, over hibernation: nothing before the client has shown its token. */
type Attached = { state: 'served' } | { state: 'rests'; at: Uint8Array };

/** The database while it is in memory. */
interface Awake {
  db: EmbeddedDatabase;
  storage: EdgeStorage;
  hub: Hub;
  upstream: Upstream | undefined;
  /** Collections that are to come from the hub above are here, or it was waited for them; clients that ask earlier would get none. */
  arrived: Promise<void> | undefined;
}

/**
 * One database: the object owns its storage, so there is one writer by construction.
 *
 * It is in memory while something happens. After that it is closed, which writes everything out, and each connection comes to rest: where it
 * stands is kept beside its socket, so that the runtime can evict the object and the sockets stay. Whatever happens next opens it again, and
 * serves all connections from where they rested; their clients do not notice. A connection that the object lost in the midst of something
 * ends with a fault, after which the client comes by itself; both have what was acknowledged.
 */
export class EddyDatabase extends DurableObject<Env> {
  /** Tells one life of the object from the next. */
  readonly #life = crypto.randomUUID();
  readonly #connections = new Map<WebSocket, HubConnection>();
  /** Sockets whose clients have not shown a token, and when that is too late. */
  readonly #strangers = new Map<WebSocket, number>();
  /** Sockets whose clients have, and that are served once the database is open. */
  readonly #admitted = new Set<WebSocket>();
  #awake: Promise<Awake> | undefined;
  #closing: Promise<void> | undefined;
  /** Connections are being asked whether they can rest: what comes meanwhile waits, and keeps them from it. */
  #asking: Promise<boolean> | undefined;
  #uses = 0;
  /** How often the database was opened in this life. */
  #opened = 0;
  #quiet: number | null = null;

  /** `/databases/<name>/...`, as the worker forwards it: who asks over HTTP was let in there. */
  override async fetch(request: Request): Promise<Response> {
    const [, , name = '', place, ...rest] = new URL(request.url).pathname.split('/').map(decodeURIComponent);
    try {
      if (place === 'sync') return this.#accept(request, name);
      this.#remember(name);
      if (place === 'object') return Response.json(this.#describe());
      return await this.#use(async ({ db }) => Response.json(await answer(db, request, rest[0], rest[1])));
    } catch (error) {
      return failure(error);
    }
  }

  /** Does an operation for the worker's own entrypoint: see {@link Databases}. */
  async call<O extends keyof Operations>(name: string, operation: O, given: ArgumentsOf<O>): Promise<Awaited<ReturnType<Operations[O]>>> {
    try {
      this.#remember(name);
      return await this.#use(({ db }) => (operations[operation] as (...given: unknown[]) => Promise<any>)(db, ...given));
    } catch (error) {
      const { kind, message, position } = understood(error);
      // Its cause may be what cannot be sent.
      throw new EddyError(kind, message, { position });
    }
  }

  override async webSocketMessage(socket: WebSocket, message: ArrayBuffer | string): Promise<void> {
    try {
      await this.#take(socket, message);
    } catch (error) {
      this.#end(socket, understood(error));
    }
  }

  override webSocketClose(socket: WebSocket): void {
    this.#forget(socket);
    socket.close();
  }

  override webSocketError(socket: WebSocket): void {
    this.#forget(socket);
  }

  /** Ends what was begun, and syncs with the hub above. */
  override async alarm(): Promise<void> {
    await this.#use(async ({ db, upstream }) => {
      await upstream?.settled();
      await db.flush();
    });
  }

  #describe(): { life: string; opened: number; awake: boolean; connections: number; resting: number } {
    const resting = this.ctx.getWebSockets().filter((socket) => attached(socket)?.state === 'rests').length;
    const awake = this.#awake !== undefined || this.#closing !== undefined;
    return { life: this.#life, opened: this.#opened, awake, connections: this.#connections.size, resting };
  }

  #accept(request: Request, name: string): Response {
    if (request.headers.get('upgrade')?.toLowerCase() !== 'websocket') {
      throw new EddyError('invalid_argument', 'this is where sync clients connect: a WebSocket is expected');
    }
    const [client, server] = Object.values(new WebSocketPair()) as [WebSocket, WebSocket];
    this.ctx.acceptWebSocket(server, [name]);
    // An object that is evicted meanwhile ends the socket when it is next woken.
    const late = new EddyError('unauthorized', `no token within ${TOKEN_WITHIN_MS} ms`);
    this.#strangers.set(server, setTimeout(() => this.#end(server, late), TOKEN_WITHIN_MS));
    return new Response(null, { status: 101, webSocket: client });
  }

  /** A message of a client: nothing is done, nor stored, for one that has not shown its token. */
  async #take(socket: WebSocket, message: ArrayBuffer | string): Promise<void> {
    if (typeof message === 'string') throw new EddyError('corrupt', 'a text message; sync messages are binary');
    const frame = new Uint8Array(message);
    const before = attached(socket);
    if (before === undefined && !this.#admitted.has(socket)) {
      this.#admit(tokenOf(frame));
      this.#greet(socket);
    } else if (before?.state === 'rests' && !this.#awake) {
      const pong = answerToPing(frame);
      if (pong) return socket.send(pong);
    }
    await this.#use(async ({ hub, arrived }) => {
      await arrived;
      if (this.#admitted.delete(socket)) this.#serve(hub, socket);
      // One that the object had lost has ended when it woke.
      this.#connections.get(socket)?.receive(frame);
    });
  }

  #admit(token: string | undefined): Record<string, never> {
    const { EDDY_TOKEN } = this.env;
    if (!EDDY_TOKEN) throw new EddyError('unauthorized', 'this worker has no EDDY_TOKEN, so nobody may use it');
    if (token === undefined) throw new EddyError('unauthorized', 'a token is needed, and none was shown');
    if (!isSame(token, EDDY_TOKEN)) throw new EddyError('unauthorized', 'the token is not the one that this worker takes');
    return {};
  }

  /** A client has shown its token. */
  #greet(socket: WebSocket): void {
    clearTimeout(this.#strangers.get(socket) ?? null);
    this.#strangers.delete(socket);
    this.#admitted.add(socket);
    this.#remember(this.ctx.getTags(socket)[0]!);
  }

  #serve(hub: Hub, socket: WebSocket, at?: Uint8Array): void {
    attach(socket, { state: 'served' });
    const close = () => {
      this.#connections.delete(socket);
      socket.close(1000);
    };
    this.#connections.set(socket, hub.connect({ send: (frame) => socket.send(frame), close }, at));
  }

  #forget(socket: WebSocket): void {
    clearTimeout(this.#strangers.get(socket) ?? null);
    this.#strangers.delete(socket);
    this.#admitted.delete(socket);
    this.#connections.get(socket)?.closed();
    this.#connections.delete(socket);
    this.#restSoon();
  }

  #end(socket: WebSocket, error: EddyError): void {
    try {
      socket.send(faultFrame(error));
      socket.close(1000);
    } catch {
      // It is closed already.
    }
    this.#forget(socket);
  }

  /** Runs `work` on the open database. */
  async #use<T>(work: (awake: Awake) => Promise<T>): Promise<T> {
    this.#uses += 1;
    try {
      await this.#asking;
      return await work(await this.#wake());
    } catch (error) {
      if (error instanceof EddyError && (error.kind === 'internal' || error.kind === 'closed')) this.#lose(error);
      throw error;
    } finally {
      this.#uses -= 1;
      void this.#awake?.then(({ upstream }) => upstream?.look(), () => {});
      this.#restSoon();
    }
  }

  async #wake(): Promise<Awake> {
    // Read again once the one before is closed: it may be open again then.
    while (this.#closing) await this.#closing;
    this.#awake ??= this.#open();
    try {
      return await this.#awake;
    } catch (error) {
      this.#awake = undefined;
      throw error;
    }
  }

  async #open(): Promise<Awake> {
    this.#opened += 1;
    await this.ctx.storage.setAlarm(Date.now() + UNFINISHED_AFTER_MS);
    const { memoryLimitBytes } = limits(this.env);
    const name = this.ctx.id.toString();
    const storage = EdgeStorage.open(this.ctx.storage, { bucket: this.env.SEGMENTS, prefix: `${name}/` });
    let db: EmbeddedDatabase | undefined;
    try {
      db = await openEmbedded({ name, wasm, build: 'full', storage, memoryLimitBytes });
      return await this.#begin(db, storage);
    } catch (error) {
      await db?.close().catch(() => {});
      storage.release();
      throw error;
    }
  }

  async #begin(db: EmbeddedDatabase, storage: EdgeStorage): Promise<Awake> {
    const hub = db.hub({ admit: (token) => this.#admit(token) });
    for (const socket of this.ctx.getWebSockets()) {
      const before = attached(socket);
      if (before?.state === 'rests') this.#goOn(hub, socket, before.at);
      else if (before?.state === 'served' && !this.#connections.has(socket)) {
        this.#end(socket, new EddyError('unavailable', 'the object was restarted in the midst of something: come again'));
      }
    }
    const above = upstreamOf(this.env, this.#name());
    const upstream = above && new Upstream(db, await db.collections(), above);
    return { db, storage, hub, upstream, arrived: upstream?.isComplete === false ? upstream.settled(ARRIVED_WITHIN_MS) : undefined };
  }

  #goOn(hub: Hub, socket: WebSocket, at: Uint8Array): void {
    try {
      this.#serve(hub, socket, at);
    } catch (error) {
      this.#end(socket, understood(error));
    }
  }

  /** The engine stopped: what it has stored is sound, and is opened again by whatever comes next. */
  #lose(error: EddyError): void {
    void this.#awake?.then(({ storage }) => storage.release(), () => {});
    this.#awake = undefined;
    for (const socket of [...this.#connections.keys()]) this.#end(socket, new EddyError('unavailable', error.message));
  }

  #restSoon(): void {
    clearTimeout(this.#quiet);
    if (this.#awake) this.#quiet = setTimeout(() => this.ctx.waitUntil(this.#rest()), REST_AFTER_MS);
  }

  /** Gives up the memory, when nothing needs it. */
  async #rest(): Promise<void> {
    const opening = this.#awake;
    const awake = await opening?.catch(() => undefined);
    if (!awake || this.#awake !== opening) return;
    const { db, hub, upstream } = awake;
    // Whoever is connected sees at once what the hub above has, so the connection to that stays.
    const needed = () => this.#uses > 0 || this.#admitted.size > 0 || !db.isIdle || (upstream !== undefined && (this.#connections.size > 0 || !upstream.isSettled));
    if (needed()) return this.#restSoon();
    this.#asking = this.#putToRest(hub, needed);
    const rests = await this.#asking.finally(() => (this.#asking = undefined));
    if (!rests) return this.#restSoon();
    await this.#closing;
  }

  /** Puts all connections to rest and begins to close the database, or neither. */
  async #putToRest(hub: Hub, needed: () => boolean): Promise<boolean> {
    const rested = new Map<WebSocket, Uint8Array>();
    for (const [socket, connection] of this.#connections) {
      const at = await connection.rest();
      if (at) rested.set(socket, at);
    }
    const still = [...this.#connections.keys()];
    if (needed() || !still.every((socket) => rested.has(socket))) {
      for (const socket of still) if (rested.has(socket)) this.#serve(hub, socket, rested.get(socket));
      return false;
    }
    this.#connections.clear();
    for (const socket of still) {
      const at = rested.get(socket)!;
      if (at.length <= ATTACHMENT_BYTES_MAX) attach(socket, { state: 'rests', at });
      else this.#end(socket, new EddyError('unavailable', 'the object comes to rest, and the connection stands at too much to keep: come again'));
    }
    const awake = this.#awake!;
    this.#awake = undefined;
    this.#closing = awake.then((awake) => this.#close(awake)).finally(() => (this.#closing = undefined));
    return true;
  }

  async #close({ db, upstream }: Awake): Promise<void> {
    await upstream?.stop();
    try {
      await db.close();
    } catch (error) {
      // All of it is in the log: an alarm opens the database again, which then writes it out.
      console.warn(`not everything was written out: ${(error as Error).message}`);
      return this.ctx.storage.setAlarm(Date.now() + UNFINISHED_AFTER_MS);
    }
    const { everyMs } = upstream ?? {};
    await (everyMs === undefined ? this.ctx.storage.deleteAlarm() : this.ctx.storage.setAlarm(Date.now() + everyMs));
  }

  /** The object does not know its own name when an alarm wakes it. */
  #remember(name: string): void {
    if (this.#name() !== name) this.ctx.storage.kv.put('name', name);
  }

  #name(): string | undefined {
    return this.ctx.storage.kv.get<string>('name');
  }
}

function attached(socket: WebSocket): Attached | undefined {
  return (socket.deserializeAttachment() as Attached | null) ?? undefined;
}

function attach(socket: WebSocket, state: Attached): void {
  socket.serializeAttachment(state);
}
