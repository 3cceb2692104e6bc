import { categoryName } from './categories';
import { codePoints, score as formatScore } from './format';
import { h, setGlyph } from './dom';
import type { Found } from './search';

interface Tile {
  readonly element: HTMLLIElement;
  readonly set: (found: Found, position: number, count: number) => void;
}

/** How the tiles are laid out: a table of glyphs, or rows where the page is narrow. */
interface Layout {
  readonly columns: number;
  readonly width: number;
  readonly height: number;
}

const ROWS_BELOW = 520;
const TILE = { width: 132, height: 158 };
const ROW_HEIGHT = 76;

/**
 * The found symbols as a listbox. Tiles are placed by transform alone, so that they glide when the order changes and nothing ever
 * shifts the layout. One tile is active; it has the focus when the list has.
 */
export class Results {
  readonly list: HTMLUListElement;
  #tiles = new Map<number, Tile>();
  #found: readonly Found[] = [];
  #active: number | undefined;
  #width = 0;
  #layout: Layout = { columns: 1, width: 0, height: ROW_HEIGHT };
  #onActive: (found: Found | undefined) => void;

  constructor(list: HTMLUListElement, onActive: (found: Found | undefined) => void, onChoose: (found: Found) => void) {
    this.list = list;
    this.#onActive = onActive;
    const at = (event: Event): Found | undefined => {
      const tile = (event.target as Element).closest('li');
      return tile ? this.#found.find(({ row }) => row.id === Number(tile.dataset['id'])) : undefined;
    };
    list.addEventListener('click', (event) => {
      const found = at(event);
      if (found) this.activate(found.row.id, true);
    });
    list.addEventListener('dblclick', (event) => {
      const found = at(event);
      if (found) onChoose(found);
    });
    list.addEventListener('focusin', (event) => {
      const found = at(event);
      if (found && found.row.id !== this.#active) this.activate(found.row.id, false);
    });
    // The width is only ever taken from here: to ask for it after a change would cost a layout of the whole page each time.
    new ResizeObserver(([entry]) => {
      this.#width = entry?.contentRect.width ?? 0;
      this.#place();
    }).observe(list.parentElement ?? list);
  }

  get active(): Found | undefined {
    return this.#found.find(({ row }) => row.id === this.#active);
  }

  get count(): number {
    return this.#found.length;
  }

  get focused(): boolean {
    return this.list.contains(document.activeElement);
  }

  /** Shows `found`. Keeps the active tile where it is still there and `keep` is set, else makes the first one active. */
  show(found: readonly Found[], keep: boolean): void {
    const focused = this.focused;
    const next = new Set(found.map(({ row }) => row.id));
    for (const [id, tile] of this.#tiles) {
      if (next.has(id)) continue;
      tile.element.remove();
      this.#tiles.delete(id);
    }
    const before = this.#found.findIndex(({ row }) => row.id === this.#active);
    this.#found = found;
    let previous: Element | null = null;
    found.forEach((one, position) => {
      let tile = this.#tiles.get(one.row.id);
      if (!tile) {
        tile = makeTile(one.row.id);
        this.#tiles.set(one.row.id, tile);
      }
      tile.set(one, position, found.length);
      const place: Element | null = previous ? previous.nextElementSibling : this.list.firstElementChild;
      if (place !== tile.element) this.list.insertBefore(tile.element, place);
      previous = tile.element;
    });
    this.#place();
    if (!(keep && this.#active !== undefined && next.has(this.#active))) {
      const stay = keep && before >= 0 ? found[Math.min(before, found.length - 1)] : found[0];
      this.#active = stay?.row.id;
    }
    this.#mark();
    if (focused) this.focus();
    this.#onActive(this.active);
  }

  /** Makes a symbol the active one. */
  activate(id: number, focus: boolean): void {
    this.#active = id;
    this.#mark();
    if (focus) this.focus();
    this.#onActive(this.active);
  }

  /** Moves the focus to the active tile. */
  focus(): void {
    const tile = this.#active === undefined ? undefined : this.#tiles.get(this.#active);
    tile?.element.focus({ preventScroll: true });
    tile?.element.scrollIntoView({ block: 'nearest' });
  }

  /** Moves by keys. Tells whether there was somewhere to go. */
  move(key: string): boolean {
    const { columns } = this.#layout;
    const at = this.#found.findIndex(({ row }) => row.id === this.#active);
    const last = this.#found.length - 1;
    const to =
      key === 'ArrowLeft' ? at - 1
      : key === 'ArrowRight' ? at + 1
      : key === 'ArrowUp' ? at - columns
      : key === 'ArrowDown' ? (at + columns > last && Math.floor(at / columns) < Math.floor(last / columns) ? last : at + columns)
      : key === 'Home' ? 0
      : key === 'End' ? last
      : at;
    const target = this.#found[to];
    if (!target || to === at) return false;
    this.activate(target.row.id, true);
    return true;
  }

  /** Draws the eye to a symbol that changed. */
  flash(id: number): void {
    const element = this.#tiles.get(id)?.element;
    if (!element) return;
    element.classList.remove('flash');
    void element.offsetWidth;
    element.classList.add('flash');
  }

  #mark(): void {
    for (const [id, { element }] of this.#tiles) {
      const active = id === this.#active;
      element.setAttribute('aria-selected', String(active));
      element.tabIndex = active ? 0 : -1;
    }
  }

  #place(): void {
    const width = this.#width;
    const rows = width < ROWS_BELOW;
    const columns = rows ? 1 : Math.max(1, Math.floor(width / TILE.width));
    this.#layout = { columns, width: width / columns, height: rows ? ROW_HEIGHT : TILE.height };
    this.list.classList.toggle('as-rows', rows);
    const { width: tileWidth, height } = this.#layout;
    this.#found.forEach(({ row }, at) => {
      const style = this.#tiles.get(row.id)?.element.style;
      if (!style) return;
      const [column, line] = [at % columns, Math.floor(at / columns)];
      // Whole pixels keep hairlines sharp; the difference of two edges keeps neighbours touching.
      const [left, right] = [Math.round(column * tileWidth), Math.round((column + 1) * tileWidth)];
      style.width = `${right - left}px`;
      style.height = `${height}px`;
      style.transform = `translate(${left}px, ${line * height}px)`;
    });
    this.list.style.height = `${Math.ceil(this.#found.length / columns) * height}px`;
  }
}

function makeTile(id: number): Tile {
  const code = h('span', { class: 'tile-code figures', 'aria-hidden': 'true' });
  const glyph = h('span', { class: 'tile-glyph glyph', 'aria-hidden': 'true' });
  const name = h('span', { class: 'tile-name' });
  const by = h('span', { class: 'tile-by' });
  const value = h('span', { class: 'tile-score figures' });
  const meaning = h('i', { class: 'by-meaning' });
  const literal = h('i', { class: 'by-name' });
  const bar = h('span', { class: 'tile-bar' }, meaning, literal);
  const element = h('li', { class: 'tile', role: 'option', id: `symbol-${id}`, 'data-id': id, tabindex: -1 }, code, glyph, name, by, value, bar);
  const set = (found: Found, position: number, count: number): void => {
    const { row, score } = found;
    const codes = codePoints(row.symbol);
    text(code, codes.length === 1 ? (codes[0] ?? '') : `${codes.length} points`);
    setGlyph(glyph, row.symbol);
    text(name, row.name);
    const matched = matchedBy(found);
    text(by, matched);
    text(value, score === undefined ? '' : formatScore(score));
    element.classList.toggle('named', found.name > 0);
    bar.hidden = score === undefined;
    const share = Math.max(0, Math.min(1, found.meaning ?? 0));
    meaning.style.transform = `scaleX(${share})`;
    literal.style.transform = `translateX(${share * 100}%) scaleX(${Math.min(found.name, 1 - share)})`;
    element.setAttribute('aria-posinset', String(position + 1));
    element.setAttribute('aria-setsize', String(count));
  };
  return { element, set };
}

/** What a symbol was found by, in a word or two. */
export function matchedBy(found: Found): string {
  if (found.score === undefined) return found.name > 0 ? 'name' : categoryName(found.row.category);
  return found.name > 0 ? 'meaning + name' : 'meaning';
}

function text(element: HTMLElement, value: string): void {
  if (element.textContent !== value) element.textContent = value;
}
