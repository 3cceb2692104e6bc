import type { SyncSession } from 'eddydb';

import { OWN } from './categories';
import { Chips } from './chips';
import { editSymbol, showShortcuts } from './dialogs';
import { announce, byId, fill, h } from './dom';
import { explain } from './errors';
import { bytes, duration, integer } from './format';
import { LiveView, STIR_ID_MIN } from './live';
import { Results } from './results';
import type { SymbolRow } from './schemas';
import { Finder, type Answer, type Request } from './search';
import { Specimen } from './specimen';
import { Start } from './start';
import { Status } from './status';
import { type Progress, Store } from './store';
import { toggleTheme } from './theme';
import { toast, undoLast } from './toast';
import { Reader } from './words';

const PAGE = 60;
// Ids above the last code point are free for symbols of the user's own; 52 random bits do not collide, and a number holds them.
const OWN_ID_MIN = STIR_ID_MIN + 0x10000;
const OWN_ID_BITS = 52;

const query = byId<HTMLInputElement>('query');
const start = byId('start');
const notice = byId('notice');
const more = byId<HTMLButtonElement>('more');
const likeChip = byId<HTMLButtonElement>('like');
const clearButton = byId<HTMLButtonElement>('clear');

let store: Store | undefined;
let finder: Finder | undefined;
let reader: Reader | undefined;
let sync: SyncSession | undefined;
let complete = false;
let like: SymbolRow | undefined;
let limit = PAGE;
let answer: Answer | undefined;

const status = new Status();
const live = new LiveView(byId('live'), () => void toggleLive(false));
const chips = new Chips(byId('chips'), () => changed());
const examples = new Start(start, (text) => {
  query.value = text;
  query.focus();
  changed();
});
const specimen = new Specimen(byId('specimen'), () => finder, {
  copy: (text, what) => void copy(text, what),
  like: moreLike,
  edit: (row) => edit(row),
  remove: (row) => void remove(row),
  close: () => {
    specimen.close();
    results.focus();
  },
});
const results = new Results(
  byId<HTMLUListElement>('results'),
  (found) => {
    specimen.show(found);
    if (found) query.setAttribute('aria-activedescendant', `symbol-${found.row.id}`);
    else query.removeAttribute('aria-activedescendant');
  },
  ({ row }) => void copy(row.symbol, row.symbol),
);

// Searching. One search runs at a time; of those asked for meanwhile only the last one matters.

let running = false;
let waiting: { readonly since: number; readonly background: boolean } | undefined;

/** Something in the request changed by the user's hand. */
function changed(): void {
  limit = PAGE;
  specimen.close();
  writeAddress();
  search(false);
  void askLive();
}

function search(background: boolean): void {
  // A refresh that meets a request of the user's is part of it.
  waiting = { since: waiting && !background ? performance.now() : (waiting?.since ?? performance.now()), background: background && (waiting?.background ?? true) };
  if (!running) void drain();
}

async function drain(): Promise<void> {
  running = true;
  try {
    while (waiting && finder) {
      const { since, background } = waiting;
      waiting = undefined;
      const request: Request = { text: query.value, like, categories: chips.chosen, limit };
      if (idle(request)) {
        showStart();
        continue;
      }
      try {
        const next = await finder.find(request);
        if (overtaken()) continue;
        show(request, next, background);
        status.searched(next.ms, performance.now() - since, next.rowsScanned);
      } catch (error) {
        fail(error, () => search(false));
      }
    }
  } finally {
    running = false;
  }
}

/** Whether the user has asked for something else meanwhile. */
const overtaken = (): boolean => waiting?.background === false;

const idle = (request: Request): boolean => !request.like && request.text.trim() === '' && request.categories.size === 0;

function showStart(): void {
  answer = undefined;
  results.show([], false);
  results.list.hidden = true;
  notice.hidden = true;
  more.hidden = true;
  start.hidden = false;
  byId('reading').replaceChildren();
  byId('timing').textContent = '';
  query.setAttribute('aria-expanded', 'false');
}

function show(request: Request, next: Answer, background: boolean): void {
  answer = next;
  start.hidden = true;
  const before = background ? new Set(shownIds()) : undefined;
  results.list.hidden = next.found.length === 0;
  results.show(next.found, background || request.limit > PAGE);
  // Which text the list answers: for whoever watches the page from outside.
  results.list.dataset['answers'] = request.text;
  if (before) for (const { row } of next.found) if (!before.has(row.id)) results.flash(row.id);
  query.setAttribute('aria-expanded', String(next.found.length > 0));
  more.hidden = !next.more;
  showReading(next);
  notice.hidden = next.found.length > 0;
  if (next.found.length === 0) {
    const advice =
      !complete ? 'The sample is still loading; more can be found in a moment.'
      : request.categories.has('own') && request.categories.size === 1 ? 'Press n to add a symbol under a name of your own.'
      : request.categories.size > 0 ? 'Nothing in these categories. Try all of them.'
      : 'Try other words: English ones, for what it shows or means.';
    fill(notice, h('p', { class: 'notice-title' }, 'Nothing found'), h('p', null, advice));
  }
  if (!background && !live.isOpen) announce(next.found.length === 0 ? 'Nothing found' : `${next.found.length} symbols. First: ${next.found[0]?.row.name ?? ''}`);
}

const shownIds = (): number[] => [...results.list.children].map((element) => Number((element as HTMLElement).dataset['id']));

/** Says how the text was read: each word as strong as it counts, and which words counted for nothing. */
function showReading({ reading, by, found, ms }: Answer): void {
  const words = reading?.tokens ?? [];
  const known = words.filter((token) => token.known);
  const unknown = words.filter((token) => !token.known).map(({ word }) => word);
  fill(
    byId('reading'),
    known.length > 0 && 'read as ',
    ...known.map(({ word, share }) => h('span', { class: 'word' }, word, h('i', { class: 'figures' }, `${Math.round(share * 100)}%`))),
    unknown.length > 0 && h('span', { class: 'unknown' }, `unknown ${unknown.length === 1 ? 'word' : 'words'}: ${unknown.join(', ')}`),
    by === 'name' && h('span', { class: 'word' }, 'searching names instead'),
  );
  byId('timing').textContent = `${integer(found.length)} ${by === 'meaning' ? 'nearest' : 'found'} in ${duration(ms)}`;
}

function fail(error: unknown, again?: () => void): void {
  const { title, advice, detail, retry } = explain(error);
  start.hidden = true;
  results.list.hidden = true;
  more.hidden = true;
  notice.hidden = false;
  fill(
    notice,
    h('p', { class: 'notice-title' }, title),
    h('p', null, advice),
    h('p', { class: 'notice-detail figures' }, detail),
    retry && again && h('button', { type: 'button', class: 'act', onclick: again }, 'Try again'),
  );
}

// What can be done with a symbol.

async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
  } catch {
    toast('The browser does not let this page write to the clipboard');
  }
}

function moreLike(row: SymbolRow): void {
  // What was looked for before stays one step back.
  history.pushState(null, '', location.href);
  like = row;
  query.value = '';
  showLike();
  changed();
  scrollTo({ top: 0 });
}

function showLike(): void {
  likeChip.hidden = !like;
  if (like) {
    fill(likeChip, h('span', { class: 'like-word' }, 'like'), h('span', { class: 'glyph' }, like.symbol), h('span', { class: 'like-name' }, like.name), h('span', { 'aria-hidden': 'true' }, '×'));
    likeChip.setAttribute('aria-label', `Like ${like.name}. Remove`);
  }
  query.placeholder = like ? 'or describe a symbol' : 'Describe a symbol';
}

function edit(row?: SymbolRow): void {
  if (!store || !reader || !finder) return;
  const symbols = store.symbols;
  const own = row?.category === OWN;
  editSymbol(row ? (own ? 'Rename' : 'Name it yourself') : 'New symbol', row ?? {}, reader, finder, async ({ symbol, name, vector }) => {
    const id = row && own ? row.id : ownId();
    await symbols.upsert([{ id, symbol, category: OWN, name, embedding: vector }]);
    toast(row && own ? `Renamed to “${name}”` : `${symbol} is now “${name}”`);
    // What is kept current stays what was asked.
    if (!row && !live.isOpen) {
      // The new one, with what it is near.
      like = undefined;
      showLike();
      query.value = name;
      chips.restore([]);
      changed();
    } else search(true);
  });
}

async function remove(row: SymbolRow): Promise<void> {
  if (!store || row.category !== OWN) {
    toast('Only symbols of your own can be deleted');
    return;
  }
  const symbols = store.symbols;
  try {
    const [whole] = await symbols.get([row.id], { outputFields: ['id', 'symbol', 'category', 'name', 'embedding'] });
    await symbols.delete({ keys: [row.id] });
    toast(`Deleted “${row.name}”`, () => {
      if (whole) symbols.upsert([whole]).catch((error: unknown) => toast(explain(error).title));
    });
    search(true);
  } catch (error) {
    toast(`${explain(error).title}: ${explain(error).detail}`);
  }
}

function ownId(): number {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  const id = (high % 2 ** (OWN_ID_BITS - 32)) * 2 ** 32 + low;
  return id < OWN_ID_MIN ? id + OWN_ID_MIN : id;
}

// The live view takes the place of the results; what is looked for there is kept current.

const liveButton = byId<HTMLButtonElement>('live-toggle');

async function toggleLive(on: boolean): Promise<void> {
  if (!store || !reader || !complete || on === live.isOpen) return;
  showLive(on);
  writeAddress();
  if (on) {
    specimen.close();
    await live.open(store, reader, query.value);
    await askLive();
  } else {
    liveButton.focus();
    await live.close();
    search(false);
  }
}

function showLive(on: boolean): void {
  document.documentElement.toggleAttribute('data-live', on);
  liveButton.setAttribute('aria-pressed', String(on));
}

async function askLive(): Promise<void> {
  if (!live.isOpen) return;
  const row = like;
  try {
    const vector = row && (await finder?.vectorOf(row.id));
    await live.ask(query.value, row && vector && { row, vector });
  } catch (error) {
    toast(explain(error).title);
  }
}

// The address holds what is looked for, so that it can be sent and the back button works.

function writeAddress(): void {
  const parts = new URLSearchParams();
  if (like) parts.set('like', String(like.id));
  if (query.value.trim()) parts.set('q', query.value.trim());
  if (chips.chosen.size > 0) parts.set('in', [...chips.chosen].join(','));
  if (document.documentElement.hasAttribute('data-live')) parts.set('view', 'live');
  const hash = parts.toString();
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search);
  clearButton.hidden = query.value === '' && !like && chips.chosen.size === 0;
}

async function readAddress(): Promise<void> {
  const parts = new URLSearchParams(location.hash.slice(1));
  query.value = parts.get('q') ?? '';
  chips.restore((parts.get('in') ?? '').split(','));
  const id = Number(parts.get('like'));
  like = id > 0 && finder ? await finder.row(id).catch(() => undefined) : undefined;
  showLike();
  clearButton.hidden = query.value === '' && !like && chips.chosen.size === 0;
  void toggleLive(parts.get('view') === 'live');
}

// The keyboard.

function escape(): void {
  if (specimen.close()) return results.focus();
  if (query.value === '' && !like && chips.chosen.size === 0) return void toggleLive(false);
  query.value = '';
  like = undefined;
  showLike();
  chips.restore([]);
  changed();
  query.focus();
}

document.addEventListener('keydown', (event) => {
  if (event.defaultPrevented || document.querySelector('dialog[open]') || event.isComposing) return;
  const typing = event.target instanceof HTMLInputElement;
  const inQuery = event.target === query;
  const button = event.target instanceof HTMLButtonElement;
  const take = (act: () => void): void => {
    event.preventDefault();
    act();
  };
  if ((event.ctrlKey || event.metaKey) && event.key === 'k') return take(focusQuery);
  if ((event.ctrlKey || event.metaKey) && event.key === 'z' && !typing) return take(() => undoLast());
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape') return document.querySelector(':popover-open') ? undefined : take(escape);
  const active = results.active?.row;
  if (inQuery) {
    if (event.key === 'ArrowDown' && results.count > 0) return take(() => results.focus());
    if (event.key === 'Enter' && active) return take(() => void copy(active.symbol, active.symbol));
    return;
  }
  if (typing) return;
  if (event.key === '/') return take(focusQuery);
  if (event.key === '?') return take(showShortcuts);
  if (event.key === 'n') return take(() => edit());
  if (event.key === 'l') return take(() => void toggleLive(!live.isOpen));
  if (event.key === 's' && live.isOpen) return take(() => void live.stir());
  if (event.key === 'u') return take(() => undoLast());
  if (active && event.key === 'm') return take(() => moreLike(active));
  if (active && event.key === 'e') return take(() => edit(active));
  if (active && event.key === 'Delete') return take(() => void remove(active));
  if (button) return;
  if (active && event.key === 'Enter') return take(() => void copy(active.symbol, active.symbol));
  if (results.focused && (event.key.startsWith('Arrow') || event.key === 'Home' || event.key === 'End'))
    return take(() => {
      if (!results.move(event.key) && event.key === 'ArrowUp') query.focus();
    });
});

function focusQuery(): void {
  query.focus();
  query.select();
}

query.addEventListener('input', () => {
  if (query.value !== '' && like) {
    like = undefined;
    showLike();
  }
  changed();
});
likeChip.addEventListener('click', () => {
  like = undefined;
  showLike();
  changed();
  query.focus();
});
clearButton.addEventListener('click', escape);
more.addEventListener('click', () => {
  limit += PAGE;
  search(false);
});
byId('results').addEventListener('click', () => specimen.open());
liveButton.addEventListener('click', () => void toggleLive(!live.isOpen));
byId('theme').addEventListener('click', toggleTheme);
byId('help').addEventListener('click', showShortcuts);
byId('new').addEventListener('click', () => edit());
const scrolled = (): void => void document.documentElement.toggleAttribute('data-scrolled', scrollY > 4);
addEventListener('scroll', scrolled, { passive: true });
addEventListener('popstate', () => void readAddress().then(() => search(false)));

// Opening.

const progress = byId('progress');

function showProgress({ bytes: received, bytesTotal, rows, rowsTotal }: Progress): void {
  // Half of the way is the network's, half the disk's.
  const share = Math.round(50 * (received / bytesTotal) + 50 * (rows / rowsTotal));
  progress.hidden = share >= 100;
  progress.setAttribute('aria-valuenow', String(share));
  (progress.firstElementChild as HTMLElement).style.transform = `scaleX(${share / 100})`;
  if (!answer) byId('timing').textContent = received < bytesTotal ? `${bytes(received)} of ${bytes(bytesTotal)}` : rows < rowsTotal ? `${integer(rows)} of ${integer(rowsTotal)} rows` : '';
}

let refreshing = false;

/** Shows again what has changed underneath: at most once in a quarter of a second, however many rows come in. */
function refresh(): void {
  if (refreshing) return;
  refreshing = true;
  setTimeout(async () => {
    refreshing = false;
    search(true);
    try {
      if (store) await Promise.all([chips.count(store.symbols), status.measure()]);
    } catch {
      // A store that is closing; the next search says so.
    }
  }, 250);
}

async function boot(): Promise<void> {
  status.state('opening');
  store ??= await Store.open();
  status.opened(store);
  const opened = store;
  const ready = new Set<string>();
  const onCollection = (name: 'words' | 'symbols'): void => {
    if (ready.has(name)) return;
    ready.add(name);
    if (ready.size < 2) return;
    reader = new Reader(opened.words, () => complete);
    finder = new Finder(opened.symbols, reader);
    opened.symbols.onChange(refresh);
    void readAddress().then(() => search(false));
    refresh();
  };
  complete = await opened.complete();
  if (complete) {
    onCollection('words');
    onCollection('symbols');
  } else {
    status.state('loading');
    await opened.load(showProgress, onCollection);
    progress.hidden = true;
    complete = true;
  }
  document.documentElement.dataset['ready'] = 'yes';
  if (finder) void examples.show(finder);
  liveButton.disabled = false;
  if (new URLSearchParams(location.hash.slice(1)).get('view') === 'live') void toggleLive(true);
  refresh();
  sync = await opened.sync((changed) => status.update(changed));
  if (sync) status.synced(sync);
  else status.state(opened.kept ? 'alone' : 'memory');
  if ('serviceWorker' in navigator) void navigator.serviceWorker.ready.then(({ active }) => active?.postMessage('keep the rest'));
  // The graph and the disk catch up after the rows are there.
  for (let turn = 0; turn < 20; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await status.measure();
  }
}

function run(): void {
  notice.hidden = true;
  start.hidden = false;
  boot().catch((error: unknown) => {
    status.state('failed');
    progress.hidden = true;
    fail(error, run);
  });
}

if ('serviceWorker' in navigator) navigator.serviceWorker.register('service-worker.js').catch(() => undefined);
run();
