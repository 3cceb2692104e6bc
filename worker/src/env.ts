import { EddyError } from 'eddydb/embedded';

import type { EddyDatabase } from './database.js';

/** What the worker is bound to: see the README. */
export interface Env {
  DATABASES: DurableObjectNamespace<EddyDatabase>;
  /** Where large files of segments go; they stay in the objects' storage when it is not bound. */
  SEGMENTS?: R2Bucket;
  /** Who may use it: the token that requests carry and sync clients show. */
  EDDY_TOKEN?: string;
  /** How many bytes of memory a database may take, about. */
  MEMORY_LIMIT_BYTES?: string;
  /** The hub that databases are clients of: `wss://host/sync`; `{database}` stands for the database's name. */
  UPSTREAM_URL?: string;
  /** Who the worker is there. It passes on what browsers write, so it needs `admin` of the collections. */
  UPSTREAM_TOKEN?: string;
  /** Who gives such tokens, where they end: asked by POST, with UPSTREAM_TOKEN as a bearer, when one is needed. */
  UPSTREAM_TOKEN_URL?: string;
  /** The collections to sync with it: names with commas between. */
  UPSTREAM_COLLECTIONS?: string;
  /** How often a database that nobody uses syncs with it. */
  UPSTREAM_EVERY_SECONDS?: string;
}

/** Where a database syncs to. */
export interface Above {
  url: string;
  token: string | (() => Promise<string>) | undefined;
  collections: string[];
  everyMs: number;
}

/** An isolate has 128 MB, of which the engine itself, frames on the way and answers take their part. */
const MEMORY_LIMIT_BYTES = 48 * 1024 * 1024;
const UPSTREAM_EVERY_SECONDS = 300;
/** Whoever gives tokens answers within this. */
const TOKEN_WITHIN_MS = 10_000;

/** What a database may take. */
export function limits(env: Env): { memoryLimitBytes: number } {
  return { memoryLimitBytes: numberOf('MEMORY_LIMIT_BYTES', env.MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES) };
}

/** The hub above, where there is one. `name` is the database's. */
export function upstreamOf(env: Env, name: string | undefined): Above | undefined {
  const { UPSTREAM_URL, UPSTREAM_TOKEN, UPSTREAM_TOKEN_URL, UPSTREAM_COLLECTIONS = '' } = env;
  if (!UPSTREAM_URL) return undefined;
  if (UPSTREAM_URL.includes('{database}') && name === undefined) return undefined;
  const collections = [...new Set(UPSTREAM_COLLECTIONS.split(',').map((collection) => collection.trim()).filter((collection) => collection !== ''))];
  if (collections.length === 0) throw new EddyError('invalid_argument', 'UPSTREAM_COLLECTIONS: the names of one or more collections expected');
  const everyMs = 1000 * numberOf('UPSTREAM_EVERY_SECONDS', env.UPSTREAM_EVERY_SECONDS, UPSTREAM_EVERY_SECONDS);
  const token = UPSTREAM_TOKEN_URL ? () => renewed(UPSTREAM_TOKEN_URL, UPSTREAM_TOKEN, name) : UPSTREAM_TOKEN;
  return { url: UPSTREAM_URL.replaceAll('{database}', encodeURIComponent(name ?? '')), token, collections, everyMs };
}

/** A new token for the hub above, for the database of that name. */
async function renewed(url: string, secret: string | undefined, database: string | undefined): Promise<string> {
  const headers = { 'content-type': 'application/json', ...(secret !== undefined && { authorization: `Bearer ${secret}` }) };
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify({ database }), signal: AbortSignal.timeout(TOKEN_WITHIN_MS) });
  const answer = response.ok ? ((await response.json().catch(() => undefined)) as { token?: unknown } | undefined) : undefined;
  if (typeof answer?.token === 'string') return answer.token;
  throw new EddyError('unavailable', `UPSTREAM_TOKEN_URL: {"token": text} expected of ${url}, got ${response.ok ? 'something else' : response.status}`);
}

/** Whether a database may be called so. */
export function isName(name: unknown): name is string {
  return typeof name === 'string' && /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name);
}

/** Compares in a time that says nothing about the secret but whether the length is its own. */
export function isSame(given: string, secret: string): boolean {
  const [a, b] = [given, secret].map((text) => new TextEncoder().encode(text)) as [Uint8Array, Uint8Array];
  const isAsLong = a.byteLength === b.byteLength;
  return crypto.subtle.timingSafeEqual(isAsLong ? a : b, b) && isAsLong;
}

function numberOf(variable: string, text: string | undefined, otherwise: number): number {
  const number = text === undefined ? otherwise : Number(text);
  if (text?.trim() === '' || !(number > 0)) throw new EddyError('invalid_argument', `${variable}: a number above 0 expected, got ${JSON.stringify(text)}`);
  return number;
}
