import type { LiveQuery } from 'eddydb';

import { OWN } from './categories';
import { announce, fill, glyph, h, setGlyph } from './dom';
import { type ClosedWindow, type Edit, Edits, type Pulse, SQL, WINDOW_MS } from './edits';
import { explain } from './errors';
import { clock, duration, integer, score as formatScore } from './format';
import { SHOWN, type SymbolRow } from './schemas';
import type { Store, Symbols } from './store';
import type { Reader } from './words';

const SECONDS = 60;
/** Over how long the rate is taken. */
const RATE_SECONDS = 5;
const HITS = 8;
const FEED = 12;
/** The clock of a window that closes: it waits for edits that are late, and for the tick after. */
const LAG_MS = 3_000;
const QUESTION = 'rain and storm';

/** Symbols that come and go by themselves have ids below all that people make, so that none is left behind. */
export const STIR_ID_MIN = 0x110000;
const STIR_COUNT = 12;
const STIR_EVERY_MS = 250;
const STIR_STAY_MS = 2_500;

interface Row {
  readonly element: HTMLLIElement;
  readonly set: (score: number, place: number) => void;
}

/**
 * The live view: how many edits a second, how far time has come, what each window came to when it closed, and a search whose answer
 * is kept current. Nothing of it is loaded before it is opened, and nothing runs once it is closed.
 */
export class LiveView {
  readonly #element: HTMLElement;
  #store: Store | undefined;
  #reader: Reader | undefined;
  #edits: Edits | undefined;
  #opening = 0;
  #query: LiveQuery<unknown, unknown> | undefined;
  #asked = 0;
  #question = '';
  #rows = new Map<number, Row>();
  #seen = new Map<string, Edit>();
  #windows: readonly ClosedWindow[] | undefined;
  #pulse: Pulse | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stirring = false;

  readonly #rate = h('dd', { class: 'live-figure figures', 'data-live': 'rate' }, '0.0');
  readonly #bars = Array.from({ length: SECONDS }, () => h('i'));
  readonly #watermark = h('dd', { class: 'live-figure figures', 'data-live': 'watermark' }, '--:--:--');
  readonly #behind = h('p', { class: 'live-note figures', 'data-live': 'behind' }, '');
  readonly #closes = h('dd', { class: 'live-figure figures', 'data-live': 'closes' }, '-');
  readonly #share = h('i');
  readonly #late = h('p', { class: 'live-note figures', 'data-live': 'late' }, '');
  readonly #windowList = h('ol', { class: 'live-windows', 'data-live': 'windows' });
  readonly #answer = h('ol', { class: 'live-answer', 'data-live': 'answer' });
  readonly #asks = h('p', { class: 'live-asks' });
  readonly #changed = h('p', { class: 'live-note figures', 'data-live': 'differences' });
  readonly #feed = h('ol', { class: 'live-feed', 'data-live': 'feed' });
  readonly #stir = h('button', { type: 'button', class: 'act primary', 'aria-keyshortcuts': 's', onclick: () => void this.stir() }, 'Stir', h('kbd', { class: 'wide-only', 'aria-hidden': 'true' }, 's'));
  readonly #trouble = h('div', { class: 'notice', role: 'alert', hidden: true });
  readonly #body: HTMLElement;

  constructor(element: HTMLElement, onClose: () => void) {
    this.#element = element;
    const figure = (label: string, value: HTMLElement, ...more: Node[]): HTMLElement => h('div', { class: 'live-cell' }, h('dl', null, h('dt', null, label), value), ...more);
    const panel = (title: string, ...children: Node[]): HTMLElement => h('section', { class: 'live-panel', 'aria-label': title }, h('h2', null, title), ...children);
    this.#body = h(
      'div',
      null,
      h(
        'div',
        { class: 'live-figures' },
        figure('edits a second', this.#rate, h('div', { class: 'live-bars', 'aria-hidden': 'true' }, ...this.#bars)),
        figure('watermark', this.#watermark, this.#behind),
        figure('window closes in', this.#closes, h('div', { class: 'live-share', 'aria-hidden': 'true' }, this.#share), this.#late),
      ),
      h(
        'div',
        { class: 'live-panels' },
        panel('Kept current', this.#asks, this.#answer, this.#changed),
        panel(`Windows of ${WINDOW_MS / 1000} seconds`, this.#windowList, h('details', { class: 'live-sql' }, h('summary', null, 'The query that counts them'), h('pre', { class: 'figures', tabindex: 0 }, SQL))),
        panel('Edits', this.#feed),
      ),
    );
    fill(
      element,
      h(
        'header',
        { class: 'live-head' },
        h('p', { class: 'start-lead' }, 'What happens to the symbols, as it happens: here, in other windows, and on whatever syncs. Edit in one window and look at another.'),
        h('div', { class: 'acts' }, this.#stir, h('button', { type: 'button', class: 'act', onclick: onClose }, 'Close', h('kbd', { class: 'wide-only', 'aria-hidden': 'true' }, 'l'))),
      ),
      this.#trouble,
      this.#body,
    );
    this.#empty();
  }

  get isOpen(): boolean {
    return !this.#element.hidden;
  }

  /** Shows the view, and loads what it needs. */
  async open(store: Store, reader: Reader, question: string): Promise<void> {
    this.#element.hidden = false;
    this.#store = store;
    this.#reader = reader;
    this.#trouble.hidden = true;
    this.#body.hidden = false;
    const turn = ++this.#opening;
    this.#element.dataset['state'] = 'opening';
    this.#tick();
    const fail = (error: unknown): void => {
      if (turn === this.#opening) this.#fail(error, question);
    };
    void this.ask(question).catch(fail);
    try {
      // What a window that was closed in mid-stir has left.
      const left = { filter: `id >= ${STIR_ID_MIN} and id < ${STIR_ID_MIN + STIR_COUNT}` };
      if ((await store.symbols.count(left)) > 0) await store.symbols.delete(left);
      const edits = await Edits.open(store, {
        edits: (edits) => this.#came(edits),
        windows: (windows) => this.#closed(windows),
        pulse: (pulse) => {
          this.#pulse = pulse;
          this.#element.dataset['state'] = pulse.watermark === undefined ? 'opening' : 'live';
        },
        failed: fail,
      });
      // Closed meanwhile, or opened again.
      if (turn !== this.#opening) await edits.close();
      else this.#edits = edits;
    } catch (error) {
      fail(error);
    }
  }

  /** Hides the view, and lets go of all that it holds. */
  async close(): Promise<void> {
    this.#element.hidden = true;
    this.#opening++;
    this.#asked++;
    clearTimeout(this.#timer);
    const [edits, query] = [this.#edits, this.#query];
    this.#edits = undefined;
    this.#query = undefined;
    this.#seen.clear();
    this.#windows = undefined;
    this.#pulse = undefined;
    this.#question = '';
    this.#empty();
    await query?.stop();
    await edits?.close();
  }

  #empty(): void {
    for (const { element } of this.#rows.values()) element.remove();
    this.#rows.clear();
    fill(this.#windowList, h('li', { class: 'live-none' }, 'None has closed yet.'));
    fill(this.#feed, h('li', { class: 'live-none' }, 'None in the last minute.'));
    this.#changed.textContent = '';
  }

  /** Keeps the answer to another question current. */
  async ask(text: string, like?: { readonly row: SymbolRow; readonly vector: Float32Array }): Promise<void> {
    if (!this.#store || !this.#reader) return;
    const question = like ? `like ${like.row.name}` : text.trim() || QUESTION;
    if (question === this.#question) return;
    const turn = ++this.#asked;
    const vector = like?.vector ?? (await this.#reader.read(question)).vector;
    if (turn !== this.#asked) return;
    if (!vector) {
      fill(this.#asks, 'No word of “', question, '” is known; the answer below is to the question before.');
      return;
    }
    const query = await this.#store.symbols.live({ vector, limit: HITS, outputFields: [...SHOWN] });
    // Only the last question has an answer.
    if (turn !== this.#asked) return query.stop();
    await this.#query?.stop();
    this.#query = query as LiveQuery<unknown, unknown>;
    this.#question = question;
    fill(this.#asks, 'The nearest to ', h('em', null, question));
    this.#answer.dataset['question'] = question;
    this.#changed.textContent = 'as it was found';
    const show = (): void => this.#answered(query.answer.map(({ row, score }) => ({ row: { ...row, id: Number(row.id) }, score })));
    show();
    query.onUpdate(({ differences }) => {
      if (this.#query !== (query as unknown)) return;
      show();
      const count = (op: string): number => differences.filter((difference) => difference.op === op).length;
      const told = ['entered', 'left', 'moved', 'changed'].flatMap((op) => (count(op) > 0 ? [`${count(op)} ${op}`] : []));
      this.#changed.textContent = told.join(', ');
      for (const difference of differences) if (difference.op === 'entered') this.#flash(Number(difference.hit.key));
      announce(`${told.join(', ')}. First: ${query.answer[0]?.row.name ?? 'nothing'}`);
    });
  }

  #answered(hits: readonly { readonly row: SymbolRow; readonly score: number }[]): void {
    const there = new Set(hits.map(({ row }) => row.id));
    for (const [id, { element }] of this.#rows) {
      if (there.has(id)) continue;
      element.remove();
      this.#rows.delete(id);
    }
    hits.forEach(({ row, score }, place) => {
      let shown = this.#rows.get(row.id);
      if (shown?.element.dataset['name'] !== row.name) {
        shown?.element.remove();
        shown = hit(row);
        this.#rows.set(row.id, shown);
      }
      shown.set(score, place);
      // In the order of the answer for whoever hears it; what is seen is placed by transform.
      const at = this.#answer.children[place];
      if (at !== shown.element) this.#answer.insertBefore(shown.element, at ?? null);
    });
  }

  #flash(id: number): void {
    const element = this.#rows.get(id)?.element;
    element?.classList.remove('flash');
    void element?.offsetWidth;
    element?.classList.add('flash');
  }

  #came(edits: readonly Edit[]): void {
    for (const edit of edits) this.#seen.set(edit.id, edit);
    const newest = [...this.#seen.values()].sort((a, b) => b.at - a.at).slice(0, FEED);
    fill(
      this.#feed,
      ...newest.map(({ op, symbol, name, at }) =>
        h('li', { class: 'live-edit', 'data-op': op }, glyph('span', symbol, { 'aria-hidden': 'true' }), h('span', { class: 'live-name' }, name), h('span', { class: 'live-op' }, OPS[op]), h('span', { class: 'figures live-at' }, clock(at))),
      ),
    );
    this.#draw();
  }

  #closed(windows: readonly ClosedWindow[]): void {
    const newest = this.#windows?.[0]?.end;
    const known = this.#windows !== undefined;
    this.#windows = windows;
    if (windows.length === 0) return;
    const most = Math.max(...windows.map(({ edits }) => edits));
    fill(
      this.#windowList,
      ...windows.map(({ end, edits, symbols, added, renamed, deleted }) => {
        const part = (count: number, name: string): HTMLElement => {
          const bar = h('i', { class: name });
          bar.style.width = `${(100 * count) / most}%`;
          return bar;
        };
        const told = `${integer(edits)} ${edits === 1 ? 'edit' : 'edits'}, ${integer(symbols)} ${symbols === 1 ? 'symbol' : 'symbols'}: ${added} added, ${renamed} renamed, ${deleted} deleted`;
        const fresh = known && end > (newest ?? 0);
        return h(
          'li',
          { class: fresh ? 'live-window flash' : 'live-window', 'data-end': end, 'data-edits': edits, title: told },
          h('span', { class: 'figures live-at' }, clock(end)),
          h('span', { class: 'live-parts', 'aria-hidden': 'true' }, part(added, 'added'), part(renamed, 'renamed'), part(deleted, 'deleted')),
          h('b', { class: 'figures', 'aria-hidden': 'true' }, integer(edits)),
          h('span', { class: 'unseen' }, told),
        );
      }),
    );
  }

  /** Draws what goes by the clock, four times a second. */
  #tick(): void {
    clearTimeout(this.#timer);
    this.#draw();
    this.#timer = setTimeout(() => this.#tick(), 250);
  }

  #draw(): void {
    const now = Date.now();
    const second = Math.floor(now / 1000);
    const counts = new Array<number>(SECONDS).fill(0);
    for (const [id, { at }] of this.#seen) {
      const age = second - Math.floor(at / 1000);
      if (age >= SECONDS) this.#seen.delete(id);
      else if (age >= 0) counts[SECONDS - 1 - age] = (counts[SECONDS - 1 - age] ?? 0) + 1;
    }
    const most = Math.max(1, ...counts);
    counts.forEach((count, at) => {
      const bar = this.#bars[at];
      if (bar) bar.style.transform = `scaleY(${count / most})`;
    });
    const recent = counts.slice(-RATE_SECONDS).reduce((sum, count) => sum + count, 0);
    text(this.#rate, (recent / RATE_SECONDS).toFixed(1));
    const { watermark, late } = this.#pulse ?? {};
    text(this.#watermark, watermark === undefined ? '--:--:--' : clock(watermark));
    text(this.#behind, watermark === undefined ? 'loading the engine with streams' : `${duration(Math.max(0, now - watermark))} behind`);
    const left = WINDOW_MS - ((now - LAG_MS) % WINDOW_MS);
    text(this.#closes, watermark === undefined ? '-' : `${Math.ceil(left / 1000)} s`);
    this.#share.style.transform = `scaleX(${watermark === undefined ? 0 : 1 - left / WINDOW_MS})`;
    text(this.#late, late ? `${integer(late)} came too late to count` : 'none came too late');
  }

  /** Makes edits: symbols near the question that come and, a little later, go again. */
  async stir(): Promise<void> {
    const [store, reader] = [this.#store, this.#reader];
    if (!store || !reader || !this.isOpen || this.#stirring) return;
    this.#stirring = true;
    this.#stir.disabled = true;
    try {
      const { vector } = await reader.read(this.#question || QUESTION);
      const near = await nearRows(store.symbols, vector);
      const stays: Promise<void>[] = [];
      for (const [at, { symbol, name, embedding }] of near.entries()) {
        const id = STIR_ID_MIN + at;
        await store.symbols.upsert([{ id, symbol, category: OWN, name, embedding: mixed(embedding, vector, (at + 1) / near.length) }]);
        stays.push(wait(STIR_STAY_MS).then(() => store.symbols.delete({ keys: [id] })).then(() => undefined));
        await wait(STIR_EVERY_MS);
      }
      await Promise.all(stays);
    } catch (error) {
      if (this.isOpen) this.#fail(error, this.#question);
    } finally {
      this.#stirring = false;
      this.#stir.disabled = false;
    }
  }

  #fail(error: unknown, question: string): void {
    const { title, advice, detail, retry } = explain(error);
    this.#element.dataset['state'] = 'failed';
    this.#trouble.hidden = false;
    this.#body.hidden = true;
    const again = async (): Promise<void> => {
      const [store, reader] = [this.#store, this.#reader];
      await this.close();
      if (store && reader) await this.open(store, reader, question);
    };
    fill(
      this.#trouble,
      h('p', { class: 'notice-title' }, title),
      h('p', null, advice),
      h('p', { class: 'notice-detail figures' }, detail),
      retry && h('button', { type: 'button', class: 'act', onclick: () => void again() }, 'Try again'),
    );
  }
}

const OPS = { insert: 'added', update: 'renamed', delete: 'deleted' } as const;

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function text(element: HTMLElement, value: string): void {
  if (element.textContent !== value) element.textContent = value;
}

function hit(row: SymbolRow): Row {
  const value = h('span', { class: 'figures' });
  const bar = h('i');
  const sign = h('span', { class: 'glyph', 'aria-hidden': 'true' });
  setGlyph(sign, row.symbol);
  const element = h('li', { class: 'live-hit', 'data-id': row.id, 'data-name': row.name }, sign, h('span', { class: 'live-name' }, row.name), value, h('span', { class: 'live-bar', 'aria-hidden': 'true' }, bar));
  const set = (score: number, place: number): void => {
    text(value, formatScore(score));
    bar.style.transform = `scaleX(${Math.max(0, Math.min(1, score))})`;
    element.style.transform = `translateY(${place * 100}%)`;
  };
  return { element, set };
}

type Near = Pick<SymbolRow, 'symbol' | 'name'> & { readonly embedding: Float32Array };

/** Symbols that are not people's own, near a vector. */
async function nearRows(symbols: Symbols, vector: Float32Array | undefined): Promise<Near[]> {
  if (!vector) return [];
  const { hits } = await symbols.search({ vector, limit: STIR_COUNT, filter: `category != "${OWN}"`, outputFields: ['symbol', 'name', 'embedding'] });
  return hits.map(({ row }) => row).sort(() => Math.random() - 0.5);
}

/** A vector between two, of unit length: `share` of the way from the first. */
function mixed(from: Float32Array, to: Float32Array | undefined, share: number): Float32Array {
  const sum = from.map((value, at) => (1 - share) * value + share * (to?.[at] ?? value));
  const length = Math.hypot(...sum);
  return length > 0 ? sum.map((value) => value / length) : from;
}
