/**
 * Which values go by reference: those that do something. Functions, instances of classes with methods, signals,
 * streams, iterators, and whatever `reference()` marked. Everything else is copied.
 */
import { isClass, type Lineage, lineageOf } from './methods.ts';

export type RefKind = 'function' | 'object' | 'iterable' | 'stream' | 'signal';

const marks = new WeakSet<object>();
let any_marks = false;

/** Marks an object to go by reference wherever it is sent, although it could be copied. Returns the object. */
export function reference<T extends object>(object: T): T {
  marks.add(object);
  any_marks = true;
  return object;
}

/** Whether `reference()` was called with the object. Costs nothing until it is first called. */
export const isMarked = (object: object): boolean => any_marks && marks.has(object);

/** Whether an object gives items one after the other: has an async iterator, or is an iterator itself. */
export const isIterable = (object: object): boolean =>
  (object as any)[Symbol.asyncIterator] !== undefined ||
  ((object as any)[Symbol.iterator] !== undefined && 'next' in object);

/** Whether a value is an error, of whatever realm where the platform can tell. */
export const isAnyError = (value: object): value is Error =>
  value instanceof Error || (Error as { isError?(value: unknown): boolean }).isError?.(value) === true;

/**
 * How a value goes by reference; undefined where it is copied or refused. Ghosts are not known here: ask the session
 * first. May throw what a hostile object throws.
 */
export function kindOf(value: object): RefKind | undefined {
  if (typeof value === 'function') return isClass(value) ? undefined : 'function';
  return isMarked(value) ? 'object' : kindByLineage(value, lineageOf(Object.getPrototypeOf(value)));
}

/** `kindOf` for an object whose lineage is known and that is not marked. */
export function kindByLineage(value: object, { base, methods }: Lineage): RefKind | undefined {
  switch (base) {
    case 'AbortSignal':
      return 'signal';
    case 'ReadableStream':
      return 'stream';
    case 'Promise':
      return undefined;
    case 'Array':
      return methods ? 'object' : undefined;
  }
  // Bytes and errors are values, whatever class they are of: Buffer has methods, and so have many errors.
  if (ArrayBuffer.isView(value) || isAnyError(value)) return undefined;
  // Platforms without signals may have been given some.
  if (typeof AbortSignal === 'function' && value instanceof AbortSignal) return 'signal';
  if (isIterable(value)) return 'iterable';
  return methods ? 'object' : undefined;
}
