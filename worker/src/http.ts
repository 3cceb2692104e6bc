import { type Database, EddyError, type ErrorKind } from 'eddydb/embedded';

import { isBatch, operations } from './operations.js';

/** What one request may bring: the memory of an isolate is small. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;

const statuses: Record<ErrorKind, number> = {
  invalid_argument: 400,
  not_found: 404,
  already_exists: 409,
  conflict: 409,
  gone: 410,
  unauthorized: 401,
  forbidden: 403,
  locked: 423,
  storage_full: 507,
  corrupt: 500,
  unsupported: 501,
  unavailable: 503,
  interrupted: 503,
  closed: 503,
  io: 500,
  internal: 500,
};

/** Does what a request asks of `/collections[/<name>[/<action>]]`. */
export async function answer(db: Database, request: Request, name: string | undefined, action: string | undefined): Promise<unknown> {
  const route = `${request.method} ${name === undefined ? '/collections' : action === undefined ? '/collections/<name>' : `/collections/<name>/${action}`}`;
  if (name === undefined) {
    if (route === 'GET /collections') return { collections: await operations.collections(db) };
    throw new EddyError('not_found', `no ${route}`);
  }
  // Whatever it is, the database checks it.
  const body = (request.method === 'POST' || request.method === 'PUT' ? await readJson(request) : {}) as any;
  switch (route) {
    case 'GET /collections/<name>':
      return operations.describe(db, name);
    case 'PUT /collections/<name>':
      await operations.createCollection(db, name, body);
      return { created: name };
    case 'DELETE /collections/<name>':
      await operations.dropCollection(db, name);
      return { dropped: name };
    case 'POST /collections/<name>/insert':
      return operations.insert(db, name, body.rows);
    case 'POST /collections/<name>/upsert':
      return operations.upsert(db, name, body.rows);
    case 'POST /collections/<name>/delete':
      return operations.delete(db, name, body);
    case 'POST /collections/<name>/get': {
      const { keys, ...options } = body;
      return { rows: await operations.get(db, name, keys, options) };
    }
    case 'POST /collections/<name>/query':
      return { rows: await operations.query(db, name, body) };
    case 'POST /collections/<name>/count':
      return { count: await operations.count(db, name, body) };
    case 'POST /collections/<name>/search':
      return isBatch(body) ? operations.searchBatch(db, name, body) : operations.search(db, name, body);
    case 'POST /collections/<name>/hybrid-search':
      return operations.hybridSearch(db, name, body);
    default:
      throw new EddyError('not_found', `no ${route}`);
  }
}

/** An error as HTTP carries it: `{ error: { kind, message, position? } }`. */
export function failure(error: unknown): Response {
  const { kind, message, position } = understood(error);
  return Response.json({ error: { kind, message, position } }, { status: statuses[kind] });
}

/** The error of a caller, by the kinds of the package. */
export function understood(error: unknown): EddyError {
  return error instanceof EddyError ? error : new EddyError('internal', String(error));
}

/** The request's body. */
async function readJson(request: Request): Promise<object> {
  const bytes = Number(request.headers.get('content-length') ?? 0);
  const text = bytes > BODY_BYTES_MAX ? undefined : await request.text();
  if (text === undefined || text.length > BODY_BYTES_MAX) {
    throw new EddyError('invalid_argument', `the body is larger than ${BODY_BYTES_MAX} bytes: send fewer rows at once`);
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    throw new EddyError('invalid_argument', `the body is no JSON: ${(error as Error).message}`);
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new EddyError('invalid_argument', 'the body is no JSON object');
  return body;
}
