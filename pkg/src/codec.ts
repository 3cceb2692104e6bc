import { decode as decodeMessagePack, encode as encodeMessagePack, ExtData } from '@msgpack/msgpack';

import { EddyError } from './error.js';
import type { Schema } from './schema.js';

/** Bytes that may be transferred to another thread. @internal */
export type Bytes = Uint8Array<ArrayBuffer>;

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

/** A request or response as MessagePack. @internal */
export function encode(message: unknown): Bytes {
  try {
    return encodeMessagePack(message, { ignoreUndefined: true, useBigInt64: true });
  } catch (error) {
    throw new EddyError('invalid_argument', `a value cannot be stored: ${(error as Error).message}`, { cause: error });
  }
}

/** @internal */
export function decode(bytes: Uint8Array, bigint = false): unknown {
  return decodeMessagePack(bytes, { useBigInt64: bigint });
}

/** A field whose vectors go beside the rows, and how many bytes they are. */
type Column = [name: string, bytes: number];

/** The rows of a batch, but for the columns, which {@link appendColumns} adds to the message. @internal */
export interface EncodedRows {
  rows: Bytes;
  columns?: Column[];
}

/** The rows of a batch; the vectors of its columns are added to `vectors`, in their order. @internal */
export function encodeRows(rows: readonly unknown[], vectors: Float32Array[]): EncodedRows {
  if (!Array.isArray(rows)) {
    throw new EddyError('invalid_argument', `an array of rows expected, got ${describe(rows)}`);
  }
  const columns = columnsOf(rows);
  if (columns.length === 0) return { rows: encode(rows.map(toRow)) };
  const names = new Set(columns.map(([name]) => name));
  for (const name of names) for (const row of rows) vectors.push((row as Record<string, Float32Array>)[name]!);
  const rest = rows.map((row) => Object.fromEntries(Object.entries(row as object).filter(([name]) => !names.has(name))));
  return { rows: encode(rest.map(toRow)), columns };
}

/**
 * The fields that are a `Float32Array` of one length in every row: nearly all bytes of most batches. They go as they are, in one piece,
 * which takes a copy; as parts of rows they took eight, and a search for each in its row.
 */
function columnsOf(rows: readonly unknown[]): Column[] {
  const [first] = rows;
  if (typeof first !== 'object' || first === null) return [];
  const columns: Column[] = [];
  for (const [name, vector] of Object.entries(first)) {
    const { length } = vector instanceof Float32Array ? vector : [];
    const has = (row: unknown) => {
      const found = typeof row === 'object' && row !== null && Object.hasOwn(row, name) ? (row as Record<string, unknown>)[name] : undefined;
      return found instanceof Float32Array && found.length === length;
    };
    if (length > 0 && rows.every(has)) columns.push([name, rows.length * length * 4]);
  }
  return columns;
}

/** `message` with the columns of its rows behind it, from a multiple of four bytes on; `allocate` makes the memory, which may be longer. @internal */
export function appendColumns(message: Bytes, vectors: readonly Float32Array[], allocate: (bytes: number) => ArrayBuffer): Bytes {
  if (vectors.length === 0) return message;
  const start = Math.ceil(message.length / 4);
  const length = vectors.reduce((sum, vector) => sum + vector.length, start);
  const whole = new Float32Array(allocate(length * 4), 0, length);
  const bytes = new Uint8Array(whole.buffer, 0, length * 4);
  bytes.set(message);
  let at = start;
  for (const vector of vectors) {
    whole.set(vector, at);
    at += vector.length;
  }
  return bytes;
}

/** The query of a search. @internal */
export function toQuery(value: unknown): unknown {
  const what = 'the query vector';
  if (ArrayBuffer.isView(value)) return toTyped(value, what);
  if (Array.isArray(value) && !Array.isArray(value[0])) {
    const wrong = value.findIndex((number) => typeof number !== 'number');
    if (wrong >= 0) throw new EddyError('invalid_argument', `${what}: number ${wrong} is ${describe(value[wrong])}`);
  } else if (typeof value !== 'object' || value === null) {
    throw new EddyError('invalid_argument', `${what}: an array of numbers expected, got ${describe(value)}`);
  }
  return value;
}

/** The text of a search, which goes where a vector would. @internal */
export function toText(value: unknown): string {
  if (typeof value !== 'string') throw new EddyError('invalid_argument', `text: a string expected, got ${describe(value)}`);
  return value;
}

/** A typed array as MessagePack: floats as bytes, small integers as bytes that tell their kind, others as floats. */
function toTyped(value: ArrayBufferView, what: string): unknown {
  if (value instanceof Float32Array) return value;
  const kind = value instanceof Int8Array ? 1 : value instanceof Uint8Array ? 2 : value instanceof Uint16Array ? 3 : 0;
  if (kind > 0) return new ExtData(kind, new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  if (value instanceof DataView || value instanceof BigInt64Array || value instanceof BigUint64Array) {
    throw new EddyError('invalid_argument', `${what}: an array of numbers expected, got ${describe(value)}`);
  }
  return Float32Array.from(value as unknown as ArrayLike<number>);
}

function toRow(row: unknown, index: number): unknown {
  if (typeof row !== 'object' || row === null || Array.isArray(row) || ArrayBuffer.isView(row)) {
    throw new EddyError('invalid_argument', `row ${index}: an object expected, got ${describe(row)}`);
  }
  let converted: Record<string, unknown> | undefined;
  for (const [name, value] of Object.entries(row)) {
    const kind = typeof value;
    if (kind === 'bigint') {
      if ((value as bigint) < INT64_MIN || (value as bigint) > INT64_MAX) {
        throw new EddyError('invalid_argument', `row ${index}: field ${JSON.stringify(name)}: ${value} does not fit in 64 bits`);
      }
    } else if (kind === 'function' || kind === 'symbol') {
      throw new EddyError('invalid_argument', `row ${index}: field ${JSON.stringify(name)}: a ${kind} cannot be stored`);
    } else if (value instanceof Date && Number.isNaN(value.getTime())) {
      throw new EddyError('invalid_argument', `row ${index}: field ${JSON.stringify(name)}: a Date that is none`);
    } else if (ArrayBuffer.isView(value) && !(value instanceof Float32Array)) {
      converted ??= { ...row };
      converted[name] = toTyped(value, `row ${index}: field ${JSON.stringify(name)}`);
    }
  }
  return converted ?? row;
}

/** What a value is, for an error message. @internal */
export function describe(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object') return `an object of ${value.constructor?.name ?? 'no class'}`;
  if (typeof value === 'string') return 'text';
  return value === undefined ? 'nothing' : `a ${typeof value}`;
}

/** The schema with its fields as a list, because their order counts. @internal */
export function toSchemaMessage(schema: Schema): unknown {
  if (typeof schema !== 'object' || schema === null || typeof schema.fields !== 'object' || schema.fields === null) {
    throw new EddyError('invalid_argument', 'a schema is an object with fields: { fields: { id: { type: "int64", primaryKey: true } } }');
  }
  const fields = Object.entries(schema.fields).map(([name, field]) => ({ name, ...field }));
  return { ...schema, fields };
}

/** The schema that a message describes. @internal */
export function fromSchemaMessage(message: unknown): Schema {
  const { fields, ...rest } = message as { fields: { name: string }[]; dynamic: boolean; ttlSeconds?: number };
  return { fields: Object.fromEntries(fields.map(({ name, ...field }) => [name, field])) as Schema['fields'], ...rest };
}

/** Which fields of rows are what MessagePack has no type for. @internal */
export interface FieldNames {
  /** Dense vectors. */
  vectors: string[];
  /** Those of them that are integers, and bits. */
  int8s: string[];
  bits: string[];
  integers: string[];
}

/** Turns the fields of a decoded row that MessagePack has no type for into theirs, in place. @internal */
export function reviveRow(row: Record<string, unknown>, { vectors, int8s, bits, integers }: FieldNames): Record<string, unknown> {
  for (const name of vectors) {
    const bytes = row[name];
    if (!(bytes instanceof Uint8Array)) continue;
    // A copy, because the bytes of the response start anywhere and floats start at multiples of four.
    const copy = bytes.slice();
    if (bits.includes(name)) row[name] = copy;
    else row[name] = int8s.includes(name) ? Int8Array.from(new Float32Array(copy.buffer)) : new Float32Array(copy.buffer);
  }
  for (const name of integers) {
    const value = row[name];
    if (typeof value === 'number') row[name] = BigInt(value);
    else if (Array.isArray(value)) row[name] = value.map(BigInt);
  }
  return row;
}

/** @internal */
export function decodeRows(bytes: Uint8Array, bigint: boolean): Record<string, unknown>[] {
  const message = decode(bytes, bigint) as { rows: Record<string, unknown>[] } & FieldNames;
  for (const row of message.rows) reviveRow(row, message);
  return message.rows;
}

/** @internal */
export interface DecodedHit {
  key: string | number | bigint;
  score: number;
  row: Record<string, unknown>;
}

/** A search response as it is decoded. @internal */
export interface DecodedSearch {
  hits: DecodedHit[];
  /** Of several queries. */
  results?: DecodedHit[][];
  rowsScanned: number;
  segmentsByIndex: number;
  segmentsByScan: number;
  ms: number;
}

/** @internal */
export function decodeSearch(bytes: Uint8Array, bigint: boolean): DecodedSearch {
  const { vectors, int8s, bits, integers, ...message } = decode(bytes, bigint) as DecodedSearch & FieldNames;
  for (const hit of [message.hits, ...(message.results ?? [])].flat()) {
    reviveRow(hit.row, { vectors, int8s, bits, integers });
    if (bigint && typeof hit.key === 'number') hit.key = BigInt(hit.key);
  }
  return message;
}
