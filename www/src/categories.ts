/** A filter of the page: Unicode general categories under a name that people use. */
export interface Category {
  readonly id: string;
  readonly label: string;
  readonly codes: readonly string[];
}

/** The category of symbols that people add themselves. */
export const OWN = 'Own';

export const CATEGORIES: readonly Category[] = [
  { id: 'own', label: 'Yours', codes: [OWN] },
  { id: 'pictures', label: 'Pictures', codes: ['So'] },
  { id: 'mathematics', label: 'Mathematics', codes: ['Sm'] },
  { id: 'numbers', label: 'Numbers', codes: ['No'] },
  { id: 'punctuation', label: 'Punctuation', codes: ['Po'] },
  { id: 'brackets', label: 'Brackets', codes: ['Ps', 'Pe'] },
  { id: 'modifiers', label: 'Modifiers', codes: ['Sk'] },
  { id: 'currency', label: 'Currency', codes: ['Sc'] },
  { id: 'dashes', label: 'Dashes', codes: ['Pd'] },
  { id: 'quotes', label: 'Quotes', codes: ['Pi', 'Pf'] },
];

const NAMES: Readonly<Record<string, string>> = {
  So: 'Symbol, other',
  Sm: 'Symbol, mathematical',
  No: 'Number',
  Po: 'Punctuation, other',
  Ps: 'Punctuation, opening',
  Pe: 'Punctuation, closing',
  Sk: 'Symbol, modifier',
  Sc: 'Symbol, currency',
  Pd: 'Punctuation, dash',
  Pi: 'Punctuation, opening quote',
  Pf: 'Punctuation, closing quote',
  [OWN]: 'Yours',
};

/** The Unicode name of a general category. */
export const categoryName = (code: string): string => NAMES[code] ?? code;

/** The filter expression for the chosen categories; nothing when none is chosen. */
export function categoryFilter(chosen: ReadonlySet<string>): string | undefined {
  const codes = CATEGORIES.filter(({ id }) => chosen.has(id)).flatMap(({ codes }) => codes);
  return codes.length === 0 ? undefined : `category in [${codes.map((code) => `"${code}"`).join(', ')}]`;
}
