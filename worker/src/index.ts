import { EddyError } from 'eddydb/embedded';

import type { EddyDatabase } from './database.js';
import { failure } from './http.js';

export { EddyDatabase } from './database.js';

interface Env {
  DATABASES: DurableObjectNamespace<EddyDatabase>;
  /** Who may use it: the token that requests carry. */
  EDDY_TOKEN?: string;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** `/health`, and `/databases/<name>/collections...`, which goes to the database's own object. */
export default {
  async fetch(request, env): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === '/health') return Response.json({ ok: true });
    if (!(await isAllowed(request, env.EDDY_TOKEN))) {
      const hint = env.EDDY_TOKEN ? 'send Authorization: Bearer <token>' : 'set the secret EDDY_TOKEN first: npx wrangler secret put EDDY_TOKEN';
      return Response.json({ error: { kind: 'unauthorized', message: hint } }, { status: 401, headers: { 'www-authenticate': 'Bearer' } });
    }
    const [, databases, name, ...rest] = pathname.split('/');
    if (databases !== 'databases' || !name || !NAME.test(name) || rest[0] !== 'collections') {
      return failure(new EddyError('not_found', `no ${pathname}; expected /databases/<name>/collections...`));
    }
    const url = new URL(request.url);
    url.pathname = `/${rest.join('/')}`;
    return env.DATABASES.get(env.DATABASES.idFromName(name)).fetch(new Request(url, request));
  },
} satisfies ExportedHandler<Env>;

/** Compares digests, so that the time taken says nothing about the token. */
async function isAllowed(request: Request, token: string | undefined): Promise<boolean> {
  const given = /^Bearer (.+)$/.exec(request.headers.get('authorization') ?? '')?.[1];
  if (!token || !given) return false;
  const digest = (text: string) => crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  const [a, b] = await Promise.all([digest(given), digest(token)]);
  return crypto.subtle.timingSafeEqual(a, b);
}
