import { categoryName, OWN } from './categories';
import { fill, glyph, h, icon } from './dom';
import { codePoints, score as formatScore } from './format';
import type { Finder, Found } from './search';
import { matchedBy } from './results';
import type { SymbolRow } from './schemas';

/** What the panel can be asked to do with its symbol. */
export interface Actions {
  readonly copy: (text: string, what: string) => void;
  readonly like: (row: SymbolRow) => void;
  readonly edit: (row: SymbolRow) => void;
  readonly remove: (row: SymbolRow) => void;
  readonly close: () => void;
}

const NEAR = 6;

/** The panel that shows one symbol large, with its facts and its neighbours. On a phone it is a sheet at the bottom. */
export class Specimen {
  #element: HTMLElement;
  #actions: Actions;
  #finder: () => Finder | undefined;
  #shown: string | undefined;
  #near = h('div', { class: 'near-list' });

  constructor(element: HTMLElement, finder: () => Finder | undefined, actions: Actions) {
    this.#element = element;
    this.#finder = finder;
    this.#actions = actions;
    this.show(undefined);
  }

  /** Opens the sheet, where the panel is one. */
  open(): void {
    if (this.#shown !== undefined) this.#element.classList.add('open');
  }

  /** Closes the sheet; tells whether it was open. */
  close(): boolean {
    const open = this.#element.classList.contains('open');
    this.#element.classList.remove('open');
    return open;
  }

  show(found: Found | undefined): void {
    const key = found && JSON.stringify(found);
    if (key === this.#shown && this.#element.firstChild) return;
    this.#shown = key;
    if (!found) {
      this.close();
      fill(this.#element, keys());
      return;
    }
    const { row } = found;
    const own = row.category === OWN;
    const { copy, like, edit, remove, close } = this.#actions;
    const codes = codePoints(row.symbol);
    const fact = (label: string, value: string): HTMLElement =>
      h('div', null, h('dt', null, label), h('dd', null, h('button', { type: 'button', class: 'fact figures', title: `Copy ${value}`, onclick: () => copy(value, value) }, value)));
    const html = [...row.symbol].map((character) => `&#x${(character.codePointAt(0) ?? 0).toString(16).toUpperCase()};`).join('');
    const utf8 = [...new TextEncoder().encode(row.symbol)].map((byte) => byte.toString(16).toUpperCase().padStart(2, '0')).join(' ');
    const button = (label: string, key: string, path: string, onclick: () => void, primary = false): HTMLElement =>
      h('button', { type: 'button', class: primary ? 'act primary' : 'act', onclick, 'aria-keyshortcuts': key }, icon(path), h('span', null, label), h('kbd', { class: 'wide-only', 'aria-hidden': 'true' }, KEY_NAMES[key] ?? key));
    fill(
      this.#element,
      h('button', { type: 'button', class: 'sheet-close', 'aria-label': 'Close', onclick: close }, icon('M5 8l5 5 5-5')),
      glyph('div', row.symbol, { class: 'specimen-glyph' }),
      h('h2', { class: 'specimen-name' }, row.name),
      h(
        'p',
        { class: 'specimen-why figures' },
        found.score === undefined
          ? h('span', null, categoryName(row.category))
          : h('span', null, h('b', null, formatScore(found.score)), ' ', h('span', { class: 'key-meaning' }, `${formatScore(found.meaning ?? 0)} meaning`), found.name > 0 && h('span', { class: 'key-name' }, ` + ${formatScore(found.name)} name`)),
      ),
      h(
        'div',
        { class: 'acts' },
        button('Copy', 'Enter', 'M7 7V4h9v9h-3M4 7h9v9H4z', () => copy(row.symbol, row.symbol), true),
        button('More like this', 'm', 'M10 10a1.7 1.7 0 0 1 3.4 0a3.4 3.4 0 0 1-6.8 0a5 5 0 0 1 10 0a6.7 6.7 0 0 1-13.4 0', () => like(row)),
        own
          ? button('Rename', 'e', 'M4 16l1-4 8-8 3 3-8 8z', () => edit(row))
          : button('Name it yourself', 'e', 'M4 16l1-4 8-8 3 3-8 8z', () => edit(row)),
        own && button('Delete', 'Delete', 'M4 6h12M8 6V4h4v2M6 6l1 10h6l1-10', () => remove(row)),
      ),
      h('dl', { class: 'facts' }, fact(codes.length === 1 ? 'Code point' : 'Code points', codes.join(' ')), fact('HTML', html), fact('UTF-8', utf8), h('div', null, h('dt', null, 'Category'), h('dd', null, categoryName(row.category))), (found.score !== undefined || found.name > 0) && h('div', null, h('dt', null, 'Matched by'), h('dd', null, matchedBy(found)))),
      h('div', { class: 'near' }, h('h3', null, 'Near it'), this.#near),
    );
    void this.#neighbours(row, key);
  }

  async #neighbours(row: SymbolRow, key: string | undefined): Promise<void> {
    const finder = this.#finder();
    try {
      const vector = await finder?.vectorOf(row.id);
      const near = vector ? await finder?.near(vector, NEAR, row.id) : undefined;
      if (this.#shown !== key || !near) return;
      fill(this.#near, ...near.map((one) => glyph('button', one.row.symbol, { type: 'button', class: 'near-one', title: one.row.name, 'aria-label': `More like ${one.row.name}`, onclick: () => this.#actions.like(one.row) })));
    } catch {
      // The panel is complete without its neighbours; what is wrong with the store, the search says.
    }
  }
}

const KEY_NAMES: Readonly<Record<string, string>> = { Enter: '↵', Delete: 'del' };

/** The keyboard shortcuts, for the panel and for the dialog. */
export const SHORTCUTS: readonly (readonly [keys: readonly string[], what: string])[] = [
  [['/'], 'Search'],
  [['↑', '↓', '←', '→'], 'Move'],
  [['↵'], 'Copy the symbol'],
  [['m'], 'More like this'],
  [['n'], 'New symbol'],
  [['e'], 'Rename'],
  [['del'], 'Delete'],
  [['u'], 'Undo'],
  [['l'], 'Live view'],
  [['esc'], 'Clear'],
  [['?'], 'All shortcuts'],
];

export function shortcutList(): HTMLElement {
  return h('dl', { class: 'keys' }, ...SHORTCUTS.map(([keys, what]) => h('div', null, h('dt', null, what), h('dd', null, ...keys.map((key) => h('kbd', null, key))))));
}

function keys(): HTMLElement {
  return h('div', { class: 'specimen-idle' }, h('h2', null, 'From the keyboard'), shortcutList());
}
