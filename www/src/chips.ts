import { CATEGORIES, categoryFilter } from './categories';
import { fill, h } from './dom';
import { integer } from './format';
import type { Symbols } from './store';

/** The category filters, each with how many symbols it has. */
export class Chips {
  readonly chosen = new Set<string>();
  #buttons = new Map<string, { readonly button: HTMLButtonElement; readonly count: HTMLElement }>();
  #onChange: () => void;

  constructor(element: HTMLElement, onChange: () => void) {
    this.#onChange = onChange;
    const chip = (id: string, label: string, choose: () => void): HTMLButtonElement => {
      const count = h('span', { class: 'chip-count figures' });
      const button = h('button', { type: 'button', class: 'chip', 'aria-pressed': id === '' ? 'true' : 'false', onclick: choose }, label, count);
      this.#buttons.set(id, { button, count });
      return button;
    };
    fill(
      element,
      chip('', 'All', () => this.set([])),
      ...CATEGORIES.map(({ id, label }) => chip(id, label, () => this.toggle(id))),
    );
  }

  toggle(id: string): void {
    this.set(this.chosen.has(id) ? [...this.chosen].filter((other) => other !== id) : [...this.chosen, id]);
  }

  set(ids: Iterable<string>): void {
    this.restore(ids);
    this.#onChange();
  }

  /** As `set`, without telling. */
  restore(ids: Iterable<string>): void {
    this.chosen.clear();
    for (const id of ids) if (CATEGORIES.some((category) => category.id === id)) this.chosen.add(id);
    for (const [id, { button }] of this.#buttons) button.setAttribute('aria-pressed', String(id === '' ? this.chosen.size === 0 : this.chosen.has(id)));
  }

  /** Counts again. */
  async count(symbols: Symbols): Promise<void> {
    const counts = await Promise.all(
      CATEGORIES.map(async ({ id }) => [id, await symbols.count({ filter: categoryFilter(new Set([id])) as string })] as const),
    );
    for (const [id, count] of [...counts, ['', await symbols.count({})] as const]) {
      const entry = this.#buttons.get(id);
      if (entry) entry.count.textContent = integer(count);
    }
  }
}
