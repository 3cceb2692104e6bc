import { fill, glyph as glyphOf, h } from './dom';
import { explain } from './errors';
import type { SymbolRow } from './schemas';
import type { Finder } from './search';
import { shortcutList } from './specimen';
import type { Reader } from './words';

// A glyph may be several code points (a flag, a family), but it is one glyph.
const GLYPH_BYTES_MAX = 64;
const NAME_MAX = 120;

/** What the form of a symbol gives. */
export interface Draft {
  readonly symbol: string;
  readonly name: string;
  readonly vector: Float32Array;
}

function modal(label: string, ...children: (Node | string)[]): HTMLDialogElement {
  const dialog = h('dialog', { class: 'modal', 'aria-label': label }, ...children);
  dialog.addEventListener('close', () => dialog.remove());
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Shows the keyboard shortcuts. */
export function showShortcuts(): void {
  if (document.querySelector('dialog[open]')) return;
  const close = h('button', { type: 'button', class: 'act', onclick: () => dialog.close() }, 'Close');
  const dialog: HTMLDialogElement = modal('Keyboard shortcuts', h('h2', null, 'From the keyboard'), shortcutList(), h('div', { class: 'modal-acts' }, close));
}

/**
 * Asks for a glyph and a name. While the name is typed the form says how it is read and which symbols it will be near. `save` may
 * refuse by throwing: the form stays and says why.
 */
export function editSymbol(title: string, row: Partial<SymbolRow>, reader: Reader, finder: Finder, save: (draft: Draft) => Promise<void>): void {
  if (document.querySelector('dialog[open]')) return;
  const glyph = h('input', { id: 'edit-glyph', class: 'glyph', type: 'text', required: true, autocomplete: 'off', maxlength: 16, value: row.symbol, placeholder: '◌' });
  const name = h('input', { id: 'edit-name', type: 'text', required: true, autocomplete: 'off', spellcheck: 'false', maxlength: NAME_MAX, value: row.name, placeholder: 'what it means, in English' });
  const hint = h('p', { class: 'edit-hint', id: 'edit-hint', 'aria-live': 'polite' });
  const near = h('div', { class: 'near-list', 'aria-hidden': 'true' });
  const submit = h('button', { type: 'submit', class: 'act primary' }, 'Save', h('kbd', { class: 'wide-only', 'aria-hidden': 'true' }, '↵'));
  const form = h(
    'form',
    { class: 'edit', method: 'dialog' },
    h('h2', null, title),
    h('div', { class: 'edit-fields' }, h('label', { for: 'edit-glyph' }, 'Symbol', glyph), h('label', { for: 'edit-name' }, 'Name', name)),
    hint,
    h('div', { class: 'edit-near' }, h('h3', null, 'Will be near'), near),
    h('div', { class: 'modal-acts' }, h('button', { type: 'button', class: 'act', onclick: () => dialog.close() }, 'Cancel'), submit),
  );
  name.setAttribute('aria-describedby', 'edit-hint');
  const dialog = modal(title, form);
  (row.symbol ? name : glyph).focus();
  name.select();

  let asked = 0;
  const preview = async (): Promise<void> => {
    const turn = ++asked;
    try {
      const { tokens, vector } = await reader.read(name.value);
      const found = vector ? await finder.near(vector, 6, row.id) : [];
      if (turn !== asked) return;
      const unknown = tokens.filter(({ known }) => !known).map(({ word }) => word);
      hint.classList.toggle('wrong', tokens.length > 0 && !vector);
      hint.textContent =
        tokens.length === 0 ? 'Its meaning is taken from the words of its name.'
        : !vector ? 'None of these words is known. Use at least one common English word.'
        : unknown.length > 0 ? `Unknown and left out: ${unknown.join(', ')}`
        : 'Every word is known.';
      fill(near, ...found.map((one) => glyphOf('span', one.row.symbol, { class: 'near-one', title: one.row.name })));
    } catch (error) {
      hint.textContent = explain(error).title;
    }
  };
  name.addEventListener('input', preview);
  void preview();

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const symbol = glyph.value.trim();
    const text = name.value.trim().replace(/\s+/g, ' ');
    if (!symbol || new TextEncoder().encode(symbol).length > GLYPH_BYTES_MAX) return glyph.focus();
    const { vector } = await reader.read(text);
    if (!vector) {
      await preview();
      return name.focus();
    }
    submit.disabled = true;
    try {
      await save({ symbol, name: text, vector });
      dialog.close();
    } catch (error) {
      const { title, advice, detail } = explain(error);
      hint.classList.add('wrong');
      hint.textContent = `${title}. ${advice} (${detail})`;
      submit.disabled = false;
    }
  });
}
