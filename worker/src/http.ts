import { EddyError, type ErrorKind } from 'eddydb/embedded';

/** A request's JSON object. */
export type JsonBody = Record<string, unknown>;

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

/** An error as HTTP carries it: `{ error: { kind, message, position? } }`. */
export function failure(error: unknown): Response {
  const { kind, message, position } = error instanceof EddyError ? error : new EddyError('internal', String(error));
  return Response.json({ error: { kind, message, position } }, { status: statuses[kind] });
}

/** The request's body. */
export async function readJson(request: Request): Promise<JsonBody> {
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
