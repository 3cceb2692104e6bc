import { bestBuild, type EngineBuild } from './build.js';
import { Engine, type EngineHooks } from './engine.js';
import { databaseName, IndexedDbStorage } from './indexeddb.js';
import { type PoolThread, SearchPool } from './pool.js';
import type { OpenMessage } from './protocol.js';
import type { Opener } from './serve.js';
import { Tab } from './tab.js';
import { engineOptions, start, type Wasm } from './wasm.js';

/**
 * Opens a store for a client of a browser, in the thread that this runs in. `poolThread` makes a thread for a worker that searches beside it,
 * where that can be. @internal
 */
export function browserOpener(onUncaught: EngineHooks['onUncaught'], poolThread?: () => PoolThread): Opener {
  return async (open, send, onDeath) => {
    // Begun at once, so that a tab that waits in line has it when its turn comes.
    let module: WebAssembly.Module | undefined;
    const build = bestBuild(open);
    const wasm = start(async () => (module = await compile(build)), build);
    wasm.catch(() => {});
    const synced = open.durability === 'synced';
    const startPool = () => {
      const threads = poolThread && module ? Array.from({ length: open.workers ?? 0 }, poolThread) : [];
      return threads.length > 0 ? new SearchPool(threads, { module: module!, build }) : undefined;
    };
    const openEngine = async (openStore: (database: Wasm['Database']) => ReturnType<Wasm['Database']['openMemory']>, died: typeof onDeath) => {
      return Engine.open(await wasm, openStore, { pause, onDeath: died, onUncaught, startPool });
    };
    if (open.storage === 'memory') {
      const engine = await openEngine((database) => database.openMemory(engineOptions(open)), onDeath);
      const session = engine.connect(send);
      return { request: (op, target, body) => session.request(op, target, body), close: () => engine.close() };
    }
    const storage = open.storage === 'auto' ? await choose(open.name) : open.storage;
    return Tab.open({
      name: storage === 'indexeddb' ? `indexeddb:${open.name}` : open.name,
      openEngine: (died) =>
        openEngine(async (database) => {
          if (storage !== 'indexeddb') return database.openOpfs(open.name, engineOptions(open));
          return database.openForeign(await IndexedDbStorage.open(open.name, synced), engineOptions(open));
        }, died),
      send,
      onDeath,
    });
  };
}

/** Where a database lives that does not say so. It stays where it is, also when the browser has learned more since it was made. */
async function choose(name: string): Promise<OpenMessage['open']['storage']> {
  const there = await globalThis.indexedDB?.databases?.().catch(() => []);
  if (there?.some((database) => database.name === databaseName(name))) return 'indexeddb';
  try {
    // Some private windows have the method and refuse the call; files with synchronous access are for dedicated workers only.
    await navigator.storage.getDirectory();
    return 'createSyncAccessHandle' in FileSystemFileHandle.prototype ? 'opfs' : 'indexeddb';
  } catch {
    return 'indexeddb';
  }
}

/** Each file by its whole name: so bundlers find it. */
const files: Record<EngineBuild, () => URL> = {
  relaxed: () => new URL('./eddydb_relaxed.wasm', import.meta.url),
  simd: () => new URL('./eddydb_simd.wasm', import.meta.url),
  plain: () => new URL('./eddydb_plain.wasm', import.meta.url),
  full: () => new URL('./eddydb_full.wasm', import.meta.url),
};

async function compile(build: EngineBuild): Promise<WebAssembly.Module> {
  const url = files[build]();
  const response = await fetch(url, { credentials: 'same-origin' });
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  // A host that does not know the type of .wasm files is served too, only without compiling while downloading.
  if (response.headers.get('content-type')?.split(';')[0]?.trim() === 'application/wasm') return WebAssembly.compileStreaming(response);
  return WebAssembly.compile(await response.arrayBuffer());
}

const channel = new MessageChannel();
let resumes: (() => void)[] = [];
channel.port1.onmessage = () => {
  const due = resumes;
  resumes = [];
  for (const resume of due) resume();
};

/** A macrotask, queued behind the messages that have arrived: a timer would wait 4 ms each time. */
function pause(): Promise<void> {
  return new Promise((resolve) => {
    resumes.push(resolve);
    channel.port2.postMessage(undefined);
  });
}
