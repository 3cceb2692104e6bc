import { type Collection, type Database, EddyError, type ErrorKind, type Schema } from 'eddydb/embedded';

/** A request's JSON object. */
type JsonBody = Record<string, unknown>;

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

/** An error as HTTP carries it: `{ error: { kind, message, position? } }`. */
export function failure(error: unknown): Response {
  const { kind, message, position } = error instanceof EddyError ? error : new EddyError('internal', String(error));
  return Response.json({ error: { kind, message, position } }, { status: statuses[kind] });
}

/** The request's body. */
async function readJson(request: Request): Promise<JsonBody> {
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
  return body as JsonBody;
}

/** A row whose vectors are arrays, as JSON has them. */
function plain(row: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, value instanceof Float32Array ? [...value] : value]));
}
