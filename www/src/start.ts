import { fill, glyph, h } from './dom';
import type { Finder } from './search';

/** What a first visitor may want to try; each finds something that its words do not name. */
const EXAMPLES = ['rain and storm', 'currency of japan', 'wild animals', 'happy face', 'religious building', 'sea creature', 'sports with a ball', 'writing tools'];
const GLYPHS = 6;

/** The page before anything is typed: a table of queries with the symbols that they find, looked up here and now. */
export class Start {
  #rows: { readonly text: string; readonly glyphs: HTMLElement }[];

  constructor(element: HTMLElement, onTry: (text: string) => void) {
    this.#rows = EXAMPLES.map((text) => ({ text, glyphs: h('span', { class: 'example-glyphs', 'aria-hidden': 'true' }) }));
    fill(
      element,
      h('p', { class: 'start-lead' }, 'Symbols by what they mean. The database is in this page: the search runs on this device, on its own disk, with or without a network.'),
      h(
        'ul',
        { class: 'examples', 'aria-label': 'Examples' },
        ...this.#rows.map(({ text, glyphs }) => h('li', null, h('button', { type: 'button', class: 'example', onclick: () => onTry(text) }, h('span', { class: 'example-text' }, text), glyphs))),
      ),
    );
  }

  /** Fills in what each example finds. */
  async show(finder: Finder): Promise<void> {
    for (const { text, glyphs } of this.#rows) {
      const { found } = await finder.find({ text, like: undefined, categories: new Set(), limit: GLYPHS });
      fill(glyphs, ...found.slice(0, GLYPHS).map(({ row }) => glyph('span', row.symbol)));
    }
  }
}
