import { byId, h } from './dom';

const SHOWN_MS = 2200;
const UNDO_MS = 9000;

let current: { readonly element: HTMLElement; readonly timer: ReturnType<typeof setTimeout> } | undefined;
let undoing: (() => void) | undefined;

/** Says briefly what happened; with `undo`, offers to take it back. */
export function toast(text: string, undo?: () => void): void {
  dismiss();
  const act = undo && (() => {
    dismiss();
    undo();
  });
  const element = h('div', { class: 'toast' }, h('span', null, text), act && h('button', { type: 'button', onclick: act }, 'Undo', h('kbd', { class: 'wide-only', 'aria-hidden': 'true' }, 'u')));
  byId('toasts').append(element);
  undoing = act;
  current = { element, timer: setTimeout(dismiss, undo ? UNDO_MS : SHOWN_MS) };
}

/** Takes back what the toast that is shown offers to; tells whether there was one. */
export function undoLast(): boolean {
  const act = undoing;
  act?.();
  return act !== undefined;
}

function dismiss(): void {
  if (!current) return;
  clearTimeout(current.timer);
  current.element.remove();
  current = undefined;
  undoing = undefined;
}
