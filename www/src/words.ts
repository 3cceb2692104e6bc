import type { Words } from './store';

/** How one word of a text was understood. */
export interface Token {
  readonly word: string;
  /** Whether the table has it. */
  readonly known: boolean;
  /** Its share of the query's vector, 0 to 1. */
  readonly share: number;
  /** Its weight among the words that a name is compared with; 0 for the commonest words, which say nothing. */
  readonly literal: number;
}

/** A text as a query. */
export interface Reading {
  readonly tokens: readonly Token[];
  /** Unit length; nothing when no word is known. */
  readonly vector: Float32Array | undefined;
}

interface Word {
  readonly rank: number;
  readonly vector: Float32Array;
}

// Words beyond this rank are as rare as the rarest: they are not from a frequency list but from the symbols' names.
const RANK_MAX = 7000;
// 'of', 'with', 'on': in so many names that a literal match means nothing.
const RANK_CONTENT = 30;
const weight = (rank: number): number => Math.log(2 + Math.min(rank, RANK_MAX));

/** The words of a text: runs of letters and digits, in lower case and without accents. */
export const tokenise = (text: string): string[] => text.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase().match(/[a-z0-9]+/g) ?? [];

/** Turns text into query vectors by a table of word vectors. Remembers every word that it has looked up. */
export class Reader {
  #words: Words;
  #seen = new Map<string, Word | null>();
  #complete: () => boolean;

  /** `complete` tells whether the table has all its rows: until then a word that is not there is not remembered as unknown. */
  constructor(words: Words, complete: () => boolean) {
    this.#words = words;
    this.#complete = complete;
  }

  /** The mean of the words' vectors, the rarer the heavier, scaled to unit length. */
  async read(text: string): Promise<Reading> {
    const words = tokenise(text);
    await this.#learn(words);
    const found = words.map((word) => this.#seen.get(word) ?? null);
    const total = found.reduce((sum, word) => sum + (word ? weight(word.rank) : 0), 0);
    const tokens = words.map((word, at): Token => {
      const entry = found[at];
      const rank = entry ? entry.rank : RANK_MAX;
      return { word, known: Boolean(entry), share: entry ? weight(rank) / total : 0, literal: rank < RANK_CONTENT ? 0 : weight(rank) };
    });
    return { tokens, vector: total > 0 ? mean(found) : undefined };
  }

  async #learn(words: string[]): Promise<void> {
    const missing = [...new Set(words)].filter((word) => !this.#seen.has(word));
    if (missing.length === 0) return;
    const complete = this.#complete();
    const rows = await this.#words.get(missing, { outputFields: ['word', 'rank', 'embedding'] });
    for (const row of rows) this.#seen.set(row.word, { rank: Number(row.rank), vector: row.embedding });
    if (complete) for (const word of missing) if (!this.#seen.has(word)) this.#seen.set(word, null);
  }
}

function mean(words: (Word | null)[]): Float32Array | undefined {
  let sum: Float32Array | undefined;
  for (const word of words) {
    if (!word) continue;
    sum ??= new Float32Array(word.vector.length);
    const factor = weight(word.rank);
    for (let at = 0; at < sum.length; at++) sum[at] = (sum[at] ?? 0) + factor * (word.vector[at] ?? 0);
  }
  if (!sum) return undefined;
  const length = Math.hypot(...sum);
  return length > 0 ? sum.map((value) => value / length) : undefined;
}
