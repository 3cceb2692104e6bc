/** What an element gets: properties, `class`, `on…` listeners, and attributes for every name with a dash or unknown to the element. */
type Props = Record<string, unknown>;
export type Child = Node | string | number | null | undefined | false;

/**
 * Makes an element. Children that are text become text nodes: nothing that a row says is ever read as markup.
 */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props?: Props | null, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value as EventListener);
    else if (name === 'class') element.className = String(value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...present(children));
  return element;
}

function present(children: Child[]): (Node | string)[] {
  return children.filter((child) => child !== null && child !== undefined && child !== false).map((child) => (typeof child === 'number' ? String(child) : child));
}

/** Replaces what is in an element. */
export function fill(element: Element, ...children: Child[]): void {
  element.replaceChildren(...present(children));
}

/** The element with this id; the page has it. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element #${id}`);
  return element as T;
}

/** A line drawing from a path in a 20 x 20 box. */
export function icon(path: string): SVGSVGElement {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 20 20');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}

/**
 * Puts a symbol into an element once the font that draws it is there: a glyph that is swapped for another one while somebody looks
 * at it is a flicker and a shift.
 */
export function setGlyph(element: HTMLElement, symbol: string): void {
  if (element.dataset['symbol'] === symbol) return;
  element.dataset['symbol'] = symbol;
  const fonts = `16px ${GLYPH_FONTS}`;
  if (document.fonts.check(fonts, symbol)) {
    element.textContent = symbol;
    return;
  }
  element.textContent = '';
  const put = (): void => {
    if (element.dataset['symbol'] === symbol) element.textContent = symbol;
  };
  document.fonts.load(fonts, symbol).then(put, put);
}

// As in --glyph of the style sheet.
const GLYPH_FONTS = '"Noto Emoji", "Noto Sans Symbols 2", "Noto Sans Symbols", "Noto Sans Math", "Noto Music"';

/** An element that shows a symbol. */
export function glyph<K extends keyof HTMLElementTagNameMap>(tag: K, symbol: string, props?: Props): HTMLElementTagNameMap[K] {
  const element = h(tag, { ...props, class: `${String(props?.['class'] ?? '')} glyph`.trim() });
  setGlyph(element, symbol);
  return element;
}

const announcer = byId('announcer');
let announcing: ReturnType<typeof setTimeout> | undefined;

/** Says something to a screen reader, once the typing pauses. */
export function announce(text: string): void {
  clearTimeout(announcing);
  announcing = setTimeout(() => {
    announcer.textContent = text;
  }, 400);
}
