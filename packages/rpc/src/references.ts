/**
 * Which values go by reference: those that do something. Functions, instances of classes with methods, signals,
 * streams, iterators, and whatever `reference()` marked. Everything else is copied.
 */
import { isClass, lineageOf } from './lineage.ts';

export type RefKind = 'function' | 'object' | 'iterable' | 'stream' | 'signal';

/** What was given out, and under which number. */
export interface Given {
  id: number;
  value: object;
  type: RefKind;
}

export const isStream = (type: unknown): type is 'iterable' | 'stream' => type === 'iterable' || type === 'stream';

const marks = new WeakSet<object>();

/** Marks an object to go by reference wherever it is sent, although it could be copied. Returns the object. */
export function reference<T extends object>(object: T): T {
  marks.add(object);
  return object;
}

/** Whether an object was given to `reference`. */
export const isMarked = (object: object): boolean => marks.has(object);

/** Whether a value is an error, of whatever realm where the platform can tell. */
export const isAnyError = (value: object): value is Error =>
  value instanceof Error || (Error as { isError?(value: unknown): boolean }).isError?.(value) === true;

/**
 * How a value goes by reference; undefined where it is copied or refused. Ghosts are not known here: ask the session
 * first. May throw what a hostile object throws.
 */
export function kindOf(value: object): RefKind | undefined {
  if (typeof value === 'function') return isClass(value) ? undefined : 'function';
  if (isMarked(value)) return 'object';
  const { base, methods } = lineageOf(Object.getPrototypeOf(value));
  // Platforms without signals may have been given some, whose class may look like one of the platform's or like one's own.
  if (base === 'AbortSignal' || (typeof AbortSignal === 'function' && value instanceof AbortSignal)) return 'signal';
  if (base === 'ReadableStream') return 'stream';
  // What gives items one after the other: by an async iterator, or as an iterator itself.
  const gives = Symbol.asyncIterator in value || (Symbol.iterator in value && 'next' in value);
  // Bytes and errors are values, whatever class they are of: Buffer has methods, and so have many errors.
  if (!(gives || methods) || base === 'Promise' || ArrayBuffer.isView(value) || isAnyError(value)) return undefined;
  return gives ? 'iterable' : 'object';
}
