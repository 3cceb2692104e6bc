// Keeps the page itself on the device, so that it opens without a network. The data is not its business: that is in the store.

import { bestBuild, type EngineBuild } from 'eddydb/build';

const worker = globalThis as unknown as ServiceWorkerGlobalScope;
/** The files of this build, and a name for them all. The build fills these in. */
declare const BUILD: string;
declare const NEEDED: readonly string[];
declare const LATER: readonly string[];
declare const ENGINES: Readonly<Record<EngineBuild, string>>;

const PREFIX = 'eddy-console:';
const CACHE = PREFIX + BUILD;
const NETWORK_MS = 3000;

const here = (path: string): string => new URL(path, worker.registration.scope).href;

worker.addEventListener('install', (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      // The page has the same name in every build: never an old one from the browser's own cache.
      await cache.addAll([...NEEDED, ENGINES[bestBuild()]].map((path) => new Request(here(path), { cache: path === './' ? 'reload' : 'default' })));
      await worker.skipWaiting();
    })(),
  );
});

worker.addEventListener('activate', (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
      await worker.clients.claim();
    })(),
  );
});

// What a page asks for once it has time: so that glyphs that nobody has looked at yet can be drawn without a network too.
worker.addEventListener('message', (event) => {
  if (event.data !== 'keep the rest') return;
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      for (const path of LATER) if (!(await cache.match(here(path)))) await cache.add(here(path)).catch(() => undefined);
    })(),
  );
});

worker.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method !== 'GET') return;
  const url = new URL(request.url);
  url.hash = '';
  url.search = '';
  const index = here('./');
  if (request.mode === 'navigate' && (url.href === index || url.href === here('index.html'))) event.respondWith(page(request, index));
  else if (files.has(url.href)) event.respondWith(file(request, url.href));
});

const files = new Set([...NEEDED, ...LATER, ...Object.values(ENGINES)].map(here));

/** The page: the network's where it answers soon, so that a new build is seen at once; else the kept one. */
async function page(request: Request, index: string): Promise<Response> {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request, { signal: AbortSignal.timeout(NETWORK_MS) });
    if (response.ok) return response;
  } catch {
    // No network: that is what the cache is for.
  }
  return (await cache.match(index)) ?? Response.error();
}

/** A file: its name changes with its content, so the kept one is the right one. */
async function file(request: Request, url: string): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(url);
  if (kept) return kept;
  const response = await fetch(request);
  // A full disk costs the copy, never the answer.
  if (response.ok) cache.put(url, response.clone()).catch(() => undefined);
  return response;
}
