import type { SyncSession, SyncStatus } from 'eddydb';

import { byId, fill, h } from './dom';
import { ago, bytes, duration, integer } from './format';
import { explain } from './errors';
import type { Store } from './store';
import { toast } from './toast';

const LABELS: Readonly<Record<string, string>> = {
  opening: 'Opening',
  loading: 'Loading',
  alone: 'This device only',
  memory: 'Nothing is kept',
  offline: 'Offline',
  connecting: 'Connecting',
  live: 'Live',
  stopped: 'Stopped',
  failed: 'Not working',
};

/** The pill in the header, the panel behind it, the switch, and the line at the bottom. */
export class Status {
  #state = 'opening';
  #sync: SyncSession | undefined;
  #store: Store | undefined;
  #trouble: string | undefined;
  #facts = new Map<string, HTMLElement>();

  constructor() {
    const fact = (id: string, label: string): HTMLElement => {
      const value = h('dd');
      this.#facts.set(id, value);
      return h('div', { 'data-fact': id, class: 'unknown-fact' }, h('dt', null, label), value);
    };
    fill(
      byId('status'),
      h('dl', null, fact('rows', 'rows'), fact('disk', 'on disk'), fact('memory', 'in memory'), fact('index', 'graph'), fact('open', 'opened in'), fact('search', 'search'), fact('total', 'total'), fact('scanned', 'rows scanned')),
    );
    byId('online').addEventListener('click', () => this.#setOnline(this.#store?.offline === true));
    byId('sync-panel').addEventListener('beforetoggle', (event) => {
      if ((event as ToggleEvent).newState === 'open') this.#panel();
    });
  }

  /** The state of the page before there is a session, or without one. */
  state(state: 'opening' | 'loading' | 'alone' | 'memory' | 'failed'): void {
    if (this.#sync) return;
    this.#state = state;
    this.#pill(0);
  }

  opened(store: Store): void {
    this.#store = store;
    this.#set('open', duration(store.openMs));
  }

  synced(sync: SyncSession): void {
    this.#sync = sync;
    const button = byId<HTMLButtonElement>('online');
    button.disabled = false;
    this.update(sync.status);
  }

  update(status: SyncStatus): void {
    const offline = this.#store?.offline === true;
    this.#state = offline ? 'offline' : status.state;
    this.#pill(status.pending);
    byId('online').setAttribute('aria-checked', String(!offline));
    if (byId('sync-panel').matches(':popover-open')) this.#panel();
  }

  async #setOnline(online: boolean): Promise<void> {
    try {
      await this.#store?.setOnline(online);
    } catch (error) {
      toast(explain(error).title);
    }
    if (this.#sync) this.update(this.#sync.status);
  }

  searched(searchMs: number, totalMs: number, rowsScanned: number): void {
    this.#set('search', duration(searchMs));
    this.#set('total', duration(totalMs));
    this.#set('scanned', integer(rowsScanned));
  }

  /** Asks the store again what it holds. */
  async measure(): Promise<void> {
    const store = this.#store;
    if (!store) return;
    const { collections, maintenanceError } = await store.db.stats();
    const sum = (field: 'storageBytes' | 'memoryBytes'): number => collections.reduce((total, collection) => total + collection[field], 0);
    const [symbols, words] = ['symbols', 'words'].map((name) => collections.find((collection) => collection.name === name));
    this.#set('rows', `${integer(symbols?.rows ?? 0)} + ${integer(words?.rows ?? 0)}`);
    this.#set('disk', bytes(sum('storageBytes')));
    this.#set('memory', bytes(sum('memoryBytes')));
    if (symbols && symbols.rows > 0) this.#set('index', `${Math.floor(100 * (1 - Math.min(1, symbols.rowsUnindexed / symbols.rows)))} %`);
    // Told once: it goes on trying by itself, and nothing acknowledged is lost by it.
    const trouble = maintenanceError?.message;
    if (trouble && trouble !== this.#trouble) toast(`Background work failed: ${trouble}`);
    this.#trouble = trouble;
  }

  #set(fact: string, value: string): void {
    const element = this.#facts.get(fact);
    if (!element || element.textContent === value) return;
    element.textContent = value;
    element.parentElement?.classList.remove('unknown-fact');
  }

  #pill(pending: number): void {
    const pill = byId('sync');
    const label = LABELS[this.#state] ?? this.#state;
    pill.dataset['state'] = this.#state;
    const count = pending > 0 ? `${integer(pending)} pending` : '';
    // New elements every time: these sit at the right end of their room, and what is new cannot have moved.
    fill(pill, count !== '' && h('b', null, count), h('i', { 'aria-hidden': 'true' }), h('span', null, label));
    pill.setAttribute('aria-label', count ? `Sync: ${label}, ${count}` : `Sync: ${label}`);
  }

  #panel(): void {
    const status = this.#sync?.status;
    const row = (label: string, value: string): HTMLElement => h('div', null, h('dt', null, label), h('dd', { class: 'figures' }, value));
    const words: Readonly<Record<string, string>> = {
      alone: 'This page comes from a plain host. What you add stays in this browser.',
      memory: 'This browser gives the page no disk, as in some private windows. All works until the page is closed.',
      live: 'Changes travel both ways as they happen.',
      offline: 'You work on your own copy. Changes wait here until you are back.',
      connecting: 'Looking for the server. Everything works meanwhile.',
      loading: 'The sample is on its way to your disk.',
    };
    fill(
      byId('sync-panel'),
      h('h2', null, LABELS[this.#state] ?? this.#state),
      h('p', null, words[this.#state] ?? ''),
      status && h('dl', null, row('Waiting to be sent', integer(status.pending)), row('Last synced', status.lastSyncedAt ? ago(status.lastSyncedAt) : 'not yet'), row('Server', location.host)),
      status?.error && h('p', { class: 'wrong' }, `${status.error.kind}: ${status.error.message}`),
    );
  }
}
