import { EddyError } from 'eddydb/embedded';

import { type Env, isName, isSame } from './env.js';
import { failure } from './http.js';

export { EddyDatabase } from './database.js';
export { Databases } from './databases.js';
export type { Described, Found, PlainFilter, PlainQuery, PlainRow, PlainSearch, PlainTarget, Written } from './operations.js';

/**
 * `/health`, and `/databases/<name>/...`, which goes to the database's own object: `collections...` and `object` with the token in a header,
 * and `sync`, a WebSocket, whose first frame shows the token.
 */
export default {
  async fetch(request, env): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === '/health') return Response.json({ ok: true });
    const [, databases, name, place, ...rest] = pathname.split('/');
    const isSync = place === 'sync' && rest.length === 0;
    if (!isSync && !isAllowed(request, env.EDDY_TOKEN)) {
      const hint = env.EDDY_TOKEN ? 'send Authorization: Bearer <token>' : 'set the secret EDDY_TOKEN first: npx wrangler secret put EDDY_TOKEN';
      return Response.json({ error: { kind: 'unauthorized', message: hint } }, { status: 401, headers: { 'www-authenticate': 'Bearer' } });
    }
    if (databases !== 'databases' || !isName(name) || !(isSync || place === 'collections' || place === 'object')) {
      return failure(new EddyError('not_found', `no ${pathname}; expected /databases/<name>/collections..., /databases/<name>/object or /databases/<name>/sync`));
    }
    return env.DATABASES.get(env.DATABASES.idFromName(name)).fetch(request);
  },
} satisfies ExportedHandler<Env>;

function isAllowed(request: Request, token: string | undefined): boolean {
  const given = /^Bearer (.+)$/.exec(request.headers.get('authorization') ?? '')?.[1];
  return token !== undefined && token !== '' && given !== undefined && isSame(given, token);
}
