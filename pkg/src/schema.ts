/** Any JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };

/** How two vectors are compared: squared distance, inner product, or cosine. */
export type Metric = 'L2' | 'IP' | 'COSINE';

/** How two vectors of bits are compared: how many differ, or which share of those set in any is not set in both. */
export type BinaryMetric = 'HAMMING' | 'JACCARD';

/** No index: every search scans every row, exactly. Right for a few thousand rows. */
export interface FlatIndex {
  readonly type: 'FLAT';
}

/** A navigable small-world graph. */
export interface HnswIndex {
  readonly type: 'HNSW';
  /** Neighbours of a node on the upper levels; twice as many on the lowest. Default 16. */
  readonly m?: number;
  /** Candidates looked at for each inserted row. Default 200. */
  readonly efConstruction?: number;
  /**
   * What it keeps of vectors: a byte a dimension (`sq8`), or less, with more rows compared by their vectors: two bits (`rabitq`), or a word
   * for each of `numSubVectors` runs of dimensions (`pq`). Default `sq8`. Vectors of bits are kept as they are.
   */
  readonly codes?: GraphCodes;
  /** Of `pq` codes: words of a row; the dimension is a multiple. */
  readonly numSubVectors?: number;
  /** Of `pq` codes: bits of a word, 4 or 8. Default 8. */
  readonly nbits?: 4 | 8;
}

/** What a graph keeps of vectors. */
export type GraphCodes = 'sq8' | 'rabitq' | 'pq';

/** The graph of the crate `instant-distance`, to compare with: native builds have it, if so built. Here such a field is scanned. */
export interface HnswStaticIndex {
  readonly type: 'HNSW_STATIC';
  /** Candidates looked at for each inserted row. Default 100. */
  readonly efConstruction?: number;
  /** Candidates of a search. Default 100. */
  readonly efSearch?: number;
}

/** Inverted lists: a search looks into the lists whose centers are nearest. */
export interface IvfIndex {
  /**
   * What lies in the lists: nothing (the vectors themselves are compared), a byte a dimension, a bit a dimension, or a word of 4 bits for
   * two dimensions, chosen so that large products are right. Codes are read in place of vectors, and the best rows by code compared by
   * their vectors.
   */
  readonly type: 'IVF_FLAT' | 'IVF_SQ8' | 'IVF_RABITQ' | 'SCANN';
  /** How many lists, 1 to 65,536; fewer while there are not enough rows for them. Default 128. */
  readonly nlist?: number;
}

/** Inverted lists with a word for each of some runs of dimensions; the best rows by code are compared by their vectors. */
export interface IvfPqIndex {
  readonly type: 'IVF_PQ';
  /** Runs, of which the dimension is a multiple: so many words a row. */
  readonly m: number;
  /** Bits of a word, 4 or 8. Default 8. */
  readonly nbits?: 4 | 8;
  /** How many lists, 1 to 65,536; fewer while there are not enough rows for them. Default 128. */
  readonly nlist?: number;
}

/** A graph over codes in memory, whose vectors stay in storage: a search reads those that the codes choose. */
export interface DiskAnnIndex {
  readonly type: 'DISKANN';
  /** Neighbours of a node on the lowest level, 4 to 4,096. Default 56. */
  readonly maxDegree?: number;
  /** Candidates looked at for each inserted row. Default 100. */
  readonly searchListSize?: number;
  /** What is in memory of vectors, as of `HNSW`. Default `rabitq`. */
  readonly codes?: GraphCodes;
  /** Of `pq` codes: words of a row; the dimension is a multiple. */
  readonly numSubVectors?: number;
  /** Of `pq` codes: bits of a word, 4 or 8. Default 8. */
  readonly nbits?: 4 | 8;
}

/** Chosen by type, rows and memory limit. */
export interface AutoIndex {
  readonly type: 'AUTOINDEX';
}

/** Of vectors of bits: no index, a graph, or inverted lists. */
export type BinaryIndex = FlatIndex | HnswIndex | AutoIndex | { readonly type: 'BIN_FLAT' } | {
  readonly type: 'BIN_IVF_FLAT';
  /** How many lists, 1 to 65,536; fewer while there are not enough rows for them. Default 128. */
  readonly nlist?: number;
};

interface Scalar {
  /** Whether a row may lack it, or have `null`. */
  readonly nullable?: boolean;
}

/** The rows of each value of a field, in the order of the values: filters look at no row then. The three names mean the same. */
export interface ScalarIndex {
  readonly type: 'INVERTED' | 'BITMAP' | 'STL_SORT';
}

/** The same, of text: beginnings of values are found too (`like 'abc%'`). */
export interface TrieIndex {
  readonly type: 'TRIE';
}

/** The rows of each place of sparse vectors, with bounds by which most are never looked at. Exact. Both names mean the same. */
export interface SparseIndex {
  readonly type: 'SPARSE_INVERTED_INDEX' | 'SPARSE_WAND';
}

/** An index that a field is given later, with the metric by which vectors are compared from then on. */
export type FieldIndex = { readonly metric?: Metric | BinaryMetric } & (
  | IvfIndex
  | IvfPqIndex
  | DiskAnnIndex
  | BinaryIndex
  | SparseIndex
  | ScalarIndex
  | TrieIndex
);

/** `true` or `false`. */
export interface BoolField extends Scalar {
  readonly type: 'bool';
  /** For filters. */
  readonly index?: ScalarIndex;
  /** What a row that lacks it gets. */
  readonly default?: boolean;
}

/** An integer of 8, 16 or 32 bits with sign. */
export interface IntField extends Scalar {
  readonly type: 'int8' | 'int16' | 'int32';
  /** For filters. */
  readonly index?: ScalarIndex;
  /** What a row that lacks it gets. */
  readonly default?: number;
}

/** A 64-bit integer: a number that `Number.isSafeInteger` accepts, or a `bigint` when the database is opened with `bigint: true`. */
export interface Int64Field extends Scalar {
  readonly type: 'int64';
  /** Whether this field identifies a row. Exactly one field of a schema does. */
  readonly primaryKey?: boolean;
  /** Of the primary key: whether rows that lack it get one, which no other row has; in sync, see `replicaNumber` in the options of `open`. */
  readonly autoId?: boolean;
  /** Whether its values assign rows to partitions. One field at most does, not the primary key and not nullable. */
  readonly partitionKey?: boolean;
  /** For filters. */
  readonly index?: ScalarIndex;
  /** What a row that lacks it gets. */
  readonly default?: number | bigint;
}

/** A finite number, kept as a 32-bit or 64-bit float. */
export interface DoubleField extends Scalar {
  readonly type: 'float' | 'double';
  /** For filters. */
  readonly index?: ScalarIndex;
  /** What a row that lacks it gets. */
  readonly default?: number;
}

/**
 * An instant, kept as microseconds since 1970 in UTC, of the years 1 to 9999. It is written as that number, as a `Date`, or as
 * text of RFC 3339 (`2024-05-01T12:30:00Z`), and read as the number: `new Date(value / 1000)`. Before 1684 and after 2255 that
 * number is past what JavaScript's hold: see `bigint` in the options of `open`.
 */
export interface TimestampField extends Scalar {
  readonly type: 'timestamp';
  /** For filters. */
  readonly index?: ScalarIndex;
  /** What a row that lacks it gets. */
  readonly default?: Instant;
}

/** What a `timestamp` takes. */
export type Instant = number | bigint | Date | string;

/** Text. */
export interface VarcharField extends Scalar {
  readonly type: 'varchar';
  /** Whether this field identifies a row. Exactly one field of a schema does. */
  readonly primaryKey?: boolean;
  /** Of the primary key: whether rows that lack it get one, which no other row has. */
  readonly autoId?: boolean;
  /** Whether its values assign rows to partitions. One field at most does, not the primary key and not nullable. */
  readonly partitionKey?: boolean;
  /** The longest text, in bytes of UTF-8: 1 to 65,535, the default. */
  readonly maxLength?: number;
  /** Whether there is a full-text index of it: for searches of `text`, and for `text_match` and its like in filters. */
  readonly enableAnalyzer?: boolean;
  /** How its text becomes the terms of that index. Default `'standard'`. */
  readonly analyzer?: Analyzer;
  /** For filters; not of a field that has an analyzer. */
  readonly index?: ScalarIndex | TrieIndex;
  /** What a row that lacks it gets. */
  readonly default?: string;
}

/**
 * How text becomes terms: words as Unicode separates them, in lower case; the same in English, without stop words and by their stems;
 * what is between white space; or words, and pairs of neighbours where a language has no spaces. Or what these are made of.
 */
export type Analyzer =
  | AnalyzerName
  | { readonly type: AnalyzerName; readonly stop_words?: readonly string[] }
  | { readonly tokenizer: 'standard' | 'whitespace' | 'cjk'; readonly filter?: readonly TokenFilter[] };

/** An analyzer that is ready to use. */
export type AnalyzerName = 'standard' | 'english' | 'whitespace' | 'cjk';

/** What changes terms, or leaves some out. `'_english_'` stands for the usual stop words. */
export type TokenFilter =
  | 'lowercase'
  | 'asciifolding'
  | 'stop'
  | 'stemmer'
  | { readonly type: 'lowercase' | 'asciifolding' }
  | { readonly type: 'stop'; readonly stop_words: readonly string[] }
  | { readonly type: 'stemmer'; readonly language?: 'english' }
  | { readonly type: 'length'; readonly min?: number; readonly max?: number };

/** Any JSON value. */
export interface JsonField extends Scalar {
  readonly type: 'json';
  /** What a row that lacks it gets. */
  readonly default?: Json;
}

/** Values of one type, none of them null. */
export interface ArrayField extends Scalar {
  readonly type: 'array';
  /** The type of its values. */
  readonly elementType: ElementType;
  /** How many values it holds at most: 1 to 4,096, the default. */
  readonly maxCapacity?: number;
  /** Of `varchar`: the longest text, in bytes of UTF-8: 1 to 65,535, the default. */
  readonly maxLength?: number;
  /** What a row that lacks it gets. */
  readonly default?: readonly (boolean | Instant)[];
  /** Of what it holds: for `array_contains` and its like in filters. Default none. */
  readonly index?: PlaceIndex;
}

/** The rows of each value that arrays hold, or that stands at a place of JSON. Both names mean the same. */
export interface PlaceIndex {
  readonly type: 'INVERTED' | 'BITMAP';
}

/** What can have an index: a field, or a place in JSON, such as `meta["size"]["cm"]`. */
export type IndexTarget<S extends Schema> = VectorField<S> | ScalarName<S> | `${string}[${string}`;

/** What an array can hold. */
export type ElementType = 'bool' | 'int8' | 'int16' | 'int32' | 'int64' | 'float' | 'double' | 'timestamp' | 'varchar';

/** `dim` finite numbers, kept as 32-bit floats. */
export interface FloatVectorField extends Scalar {
  readonly type: 'float_vector';
  /** How many numbers: 1 to 32,768. */
  readonly dim: number;
  /** How vectors are compared. Default `'COSINE'`. */
  readonly metric?: Metric;
  /** How they are searched. Default HNSW, and for nullable ones, which cannot have that, `FLAT`. */
  readonly index?: FlatIndex | HnswIndex | HnswStaticIndex | IvfIndex | IvfPqIndex | DiskAnnIndex | AutoIndex;
  /** What a row that lacks it gets. */
  readonly default?: VectorInput;
}

/**
 * `dim` finite numbers, kept as 16-bit floats (of IEEE 754, or the upper half of 32-bit ones) or as integers from -128 to 127.
 * Searched exactly, unless they have an index.
 */
export interface SmallVectorField extends Scalar {
  readonly type: 'float16_vector' | 'bfloat16_vector' | 'int8_vector';
  /** How many numbers: 1 to 32,768. */
  readonly dim: number;
  /** How vectors are compared. Default `'COSINE'`. */
  readonly metric?: Metric;
  /** How they are searched. Default `FLAT`. */
  readonly index?: FlatIndex | HnswIndex | IvfIndex | IvfPqIndex | AutoIndex;
  /** What a row that lacks it gets. */
  readonly default?: VectorInput;
}

/** `dim` bits, eight a byte. Searched exactly, unless they have an index. */
export interface BinaryVectorField extends Scalar {
  readonly type: 'binary_vector';
  /** How many bits: a multiple of 8, at most 262,144. */
  readonly dim: number;
  /** How vectors are compared. Default `'HAMMING'`. */
  readonly metric?: BinaryMetric;
  /** How they are searched. Default `FLAT`. */
  readonly index?: BinaryIndex;
  /** What a row that lacks it gets. */
  readonly default?: BitsInput;
}

/** Numbers at some of 2^32 - 1 places, zero elsewhere; at most 32,768 of them. Searched exactly, by inner product; rows that share no place with the query are not found. */
export interface SparseVectorField extends Scalar {
  readonly type: 'sparse_float_vector';
  /** How vectors are compared. */
  readonly metric?: 'IP';
  /** How they are searched. Default `FLAT`: every search scans every row. */
  readonly index?: FlatIndex | SparseIndex;
  /** What a row that lacks it gets. */
  readonly default?: SparseInput;
}

/** One field of a schema. */
export type Field =
  | BoolField
  | IntField
  | Int64Field
  | DoubleField
  | TimestampField
  | VarcharField
  | JsonField
  | ArrayField
  | FloatVectorField
  | SmallVectorField
  | BinaryVectorField
  | SparseVectorField;

/** What the rows of a collection look like. Write it as a literal, and the rows are typed from it. */
export interface Schema {
  /** The fields by name, exactly one of them with `primaryKey: true`. */
  readonly fields: { readonly [name: string]: Field };
  /** Whether a row may have names that are not in the schema, with JSON values. */
  readonly dynamic?: boolean;
  /** How many seconds after they were written rows expire: they are not seen any more then. Never when left out. */
  readonly ttlSeconds?: number;
  /** With a partition key: to how many partitions it assigns rows, 1 to 1,024. Default 16. */
  readonly numPartitions?: number;
  /** Indexes of places in JSON by their paths, as in `{ 'meta["size"]["cm"]': { type: 'INVERTED' } }`; a field has its own with it. */
  readonly indexes?: { readonly [place: string]: PlaceIndex };
}

/** `S` with one more field. */
export type WithField<S extends Schema, N extends string, F extends Field> = {
  readonly fields: S['fields'] & { readonly [K in N]: F };
} & (S extends { readonly dynamic: true } ? { readonly dynamic: true } : unknown);

/** A schema that is not known at compile time. */
export type AnySchema = Schema;

/** Bits that a `binary_vector` takes, eight a byte. */
export type BitsInput = Uint8Array | readonly number[];

/** What a `sparse_float_vector` takes: its numbers by their places, or pairs of both with ascending places. */
export type SparseInput = { readonly [index: number]: number } | readonly (readonly [index: number, value: number])[];

/** A sparse vector as it is read: its numbers by their places. */
export type SparseVector = { [index: number]: number };

/**
 * Numbers that a vector field takes. A `Float32Array` is passed on as it is; others are converted. For vectors of 16-bit floats
 * a `Uint16Array` is their bits.
 */
export type VectorInput =
  | readonly number[]
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array;

/** Whether `S` is a schema of known fields. */
export type IsKnown<S extends Schema> = string extends keyof S['fields'] ? false : true;

/** How an `int64` or a `timestamp` is read: by what the database was opened with. */
export type Integer<B extends boolean> = B extends true ? bigint : number;

interface ReadElements<B extends boolean> {
  bool: boolean;
  int8: number;
  int16: number;
  int32: number;
  int64: Integer<B>;
  float: number;
  double: number;
  timestamp: Integer<B>;
  varchar: string;
}

interface WrittenElements {
  bool: boolean;
  int8: number;
  int16: number;
  int32: number;
  int64: number | bigint;
  float: number;
  double: number;
  timestamp: Instant;
  varchar: string;
}

interface ReadTypes<F extends Field, B extends boolean> extends ReadElements<B> {
  json: Json;
  array: F extends { readonly elementType: infer E extends ElementType } ? ReadElements<B>[E][] : never;
  float_vector: Float32Array;
  float16_vector: Float32Array;
  bfloat16_vector: Float32Array;
  int8_vector: Int8Array;
  binary_vector: Uint8Array;
  sparse_float_vector: SparseVector;
}

interface WrittenTypes<F extends Field> extends WrittenElements {
  json: Json;
  array: F extends { readonly elementType: infer E extends ElementType } ? readonly WrittenElements[E][] : never;
  float_vector: VectorInput;
  float16_vector: VectorInput;
  bfloat16_vector: VectorInput;
  int8_vector: VectorInput;
  binary_vector: BitsInput;
  sparse_float_vector: SparseInput;
}

type Read<F extends Field, B extends boolean> = ReadTypes<F, B>[F['type']];

type Written<F extends Field> = WrittenTypes<F>[F['type']];

type IsNullable<F> = F extends { readonly nullable: true } ? true : false;
type IsOptional<F> = F extends { readonly nullable: true } | { readonly autoId: true } ? true : F extends { readonly default: {} } ? true : false;

type Flat<T> = { [K in keyof T]: T[K] };
type Names<S extends Schema> = keyof S['fields'] & string;
type VectorNames<S extends Schema> = { [K in Names<S>]: S['fields'][K]['type'] extends `${string}_vector` ? K : never }[Names<S>];

/** The type of one field of a row that is read. */
export type FieldValue<S extends Schema, K extends Names<S>, B extends boolean = false> =
  | Read<S['fields'][K], B>
  | (IsNullable<S['fields'][K]> extends true ? null : never);

/** A whole row as it is read, vectors included. */
export type Row<S extends Schema, B extends boolean = false> = IsKnown<S> extends true
  ? Flat<{ [K in Names<S>]: FieldValue<S, K, B> }> & Dynamic<S>
  : { [name: string]: any };

/** A row without its vectors: what is read unless `outputFields` says otherwise. */
export type ScalarRow<S extends Schema, B extends boolean = false> = IsKnown<S> extends true
  ? Flat<{ [K in Exclude<Names<S>, VectorNames<S>>]: FieldValue<S, K, B> }> & Dynamic<S>
  : { [name: string]: any };

type Dynamic<S extends Schema> = S extends { readonly dynamic: true } ? { [name: string]: Json | undefined } : unknown;

/** A function over the rows of a group, or over all rows of a query. */
export type AggregateName<N extends string> = 'count(*)' | `${'count' | 'sum' | 'min' | 'max' | 'avg'}(${N})`;

/** How rows are ordered: by a field, or by a function over the rows of a group. */
export type OrderBy<S extends Schema> = IsKnown<S> extends true
  ? `${ScalarName<S> | AggregateName<ScalarName<S>>}${'' | ' asc' | ' desc'}`
  : string;

/** Names that `outputFields` takes: the schema's, `'*'` for all with vectors, and for a dynamic collection any other. */
export type OutputField<S extends Schema> = IsKnown<S> extends true
  ? S extends { readonly dynamic: true }
    ? Names<S> | '*' | '$version' | '$partition' | (string & {})
    : Names<S> | '*' | '$version' | '$partition' | AggregateName<Names<S>>
  : string;

/** What a function over a group comes to; null of no value, but for counts. */
export type Aggregated<S extends Schema, K extends string, B extends boolean> = K extends `count(${string})`
  ? Integer<B>
  : K extends `avg(${string})`
    ? number | null
    : K extends `${'min' | 'max' | 'sum'}(${infer N})`
      ? (N extends Names<S> ? NonNullable<FieldValue<S, N, B>> : number) | null
      : never;

/** The row that `outputFields: F` gives. */
export type OutputRow<S extends Schema, B extends boolean, F> = IsKnown<S> extends true
  ? F extends readonly string[]
    ? ('*' extends F[number]
        ? Row<S, B>
        : Flat<
            { [K in F[number] & Names<S>]: FieldValue<S, K, B> } & {
              [K in Exclude<F[number], Names<S> | '$version' | '$partition' | AggregateName<string>>]?: Json;
            } & { [K in F[number] & AggregateName<string>]: Aggregated<S, K, B> }
          >) &
        ('$version' extends F[number] ? { $version: string } : unknown) &
        ('$partition' extends F[number] ? { $partition: string } : unknown)
    : ScalarRow<S, B>
  : { [name: string]: any };

/** A row to insert: nullable fields and those with a default may be left out. */
export type InputRow<S extends Schema> = IsKnown<S> extends true
  ? Flat<
      { readonly [K in Names<S> as IsOptional<S['fields'][K]> extends true ? never : K]: Written<S['fields'][K]> } & {
        readonly [K in Names<S> as IsOptional<S['fields'][K]> extends true ? K : never]?:
          | Written<S['fields'][K]>
          | (IsNullable<S['fields'][K]> extends true ? null : never)
          | undefined;
      }
    > &
      { readonly $partition?: string } &
      (S extends { readonly dynamic: true } ? { readonly [name: string]: Json | VectorInput | bigint | undefined } : unknown)
  : { readonly [name: string]: unknown };

type PrimaryKeyName<S extends Schema> = {
  [K in Names<S>]: S['fields'][K] extends { readonly primaryKey: true } ? K : never;
}[Names<S>];

/** The primary key as it is read. */
export type Key<S extends Schema, B extends boolean = false> = IsKnown<S> extends true
  ? [PrimaryKeyName<S>] extends [never]
    ? Integer<B> | string
    : Read<S['fields'][PrimaryKeyName<S>], B>
  : Integer<B> | string;

/** A primary key that a request names. */
export type KeyInput<S extends Schema> = IsKnown<S> extends true
  ? [PrimaryKeyName<S>] extends [never]
    ? number | bigint | string
    : S['fields'][PrimaryKeyName<S>]['type'] extends 'varchar'
      ? string
      : number | bigint
  : number | bigint | string;

/** What a search of the vector fields takes. */
export type QueryInput<S extends Schema> = IsKnown<S> extends true
  ? { [K in VectorNames<S>]: Written<S['fields'][K]> }[VectorNames<S>]
  : VectorInput | SparseInput;

/** The names of the fields that have a full-text index. */
export type TextField<S extends Schema> = IsKnown<S> extends true
  ? { [K in Names<S>]: S['fields'][K] extends { readonly enableAnalyzer: true } | { readonly analyzer: Analyzer } ? K : never }[Names<S>]
  : string;

/** The names of the other fields, and of keys of the dynamic field. */
export type ScalarName<S extends Schema> = IsKnown<S> extends true
  ? Exclude<Names<S>, VectorNames<S>> | (S extends { readonly dynamic: true } ? string & {} : never)
  : string;

/** The names of the vector fields. */
export type VectorField<S extends Schema> = IsKnown<S> extends true ? VectorNames<S> : string;
