import { DurableObject } from 'cloudflare:workers';
import type { Schema } from 'eddydb/embedded';
import { type Collection, type Database, EddyError, openEmbedded } from 'eddydb/embedded';
import wasm from 'eddydb/eddydb_relaxed.wasm';

import { failure, type JsonBody, readJson } from './http.js';
import { SqlDirectory } from './sql-directory.js';

/** One database: the object owns its storage, so there is one writer by construction. */
export class EddyDatabase extends DurableObject {
  #database: Promise<Database> | undefined;

  /** The open database. One that stopped or failed to open is opened again at the next request. */
  async #open(): Promise<Database> {
    this.#database ??= openEmbedded({ name: this.ctx.id.toString(), wasm, directory: SqlDirectory.open(this.ctx.storage) });
    try {
      return await this.#database;
    } catch (error) {
      this.#database = undefined;
      throw error;
    }
  }

  /** `/collections[/<name>[/<action>]]`, as the worker forwards it. */
  override async fetch(request: Request): Promise<Response> {
    try {
      const [collection, action] = new URL(request.url).pathname.split('/').slice(2).map(decodeURIComponent);
      return Response.json(await this.#answer(await this.#open(), request, collection, action));
    } catch (error) {
      return failure(error);
    }
  }

  async #answer(db: Database, request: Request, name: string | undefined, action: string | undefined): Promise<unknown> {
    const route = `${request.method} ${name === undefined ? '/collections' : action === undefined ? '/collections/<name>' : `/collections/<name>/${action}`}`;
    if (name === undefined) {
      if (route === 'GET /collections') return { collections: await db.collections() };
      throw new EddyError('not_found', `no ${route}`);
    }
    const collection = db.collection(name);
    const body = request.method === 'POST' || request.method === 'PUT' ? await readJson(request) : {};
    switch (route) {
      case 'GET /collections/<name>':
        return { schema: await collection.schema(), stats: await collection.stats() };
      case 'PUT /collections/<name>':
        await db.createCollection(name, body as unknown as Schema, { ifNotExists: true });
        return { created: name };
      case 'DELETE /collections/<name>':
        await db.dropCollection(name);
        return { dropped: name };
      case 'POST /collections/<name>/insert':
      case 'POST /collections/<name>/upsert': {
        const rows = body.rows as Parameters<Collection['insert']>[0];
        const { count, lsn } = await (action === 'insert' ? collection.insert(rows) : collection.upsert(rows));
        return { count, lsn };
      }
      case 'POST /collections/<name>/delete': {
        const { count, lsn } = await collection.delete(body as { filter: string });
        return { count, lsn };
      }
      case 'POST /collections/<name>/get': {
        const { keys, ...options } = body;
        return { rows: (await collection.get(keys as string[], options)).map(plain) };
      }
      case 'POST /collections/<name>/query':
        return { rows: (await collection.query(body)).map(plain) };
      case 'POST /collections/<name>/count':
        return { count: await collection.count(body) };
      case 'POST /collections/<name>/search': {
        const { hits, ...response } = await collection.search(body as JsonBody & { vector: number[] });
        return { ...response, hits: hits.map((hit) => ({ ...hit, row: plain(hit.row) })) };
      }
      default:
        throw new EddyError('not_found', `no ${route}`);
    }
  }
}

/** A row whose vectors are arrays, as JSON has them. */
function plain(row: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, value instanceof Float32Array ? [...value] : value]));
}
