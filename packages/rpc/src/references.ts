/**
 * Which values go by reference: those that do something. Functions, instances of classes with methods, signals,
 * streams, iterators, and whatever `reference()` marked. Everything else is copied.
 */
import * as LIMITS from '@hauki/protocol/caller-limits';
import { isClass, lineageOf } from './methods.ts';

export type RefKind = 'function' | 'object' | 'iterable' | 'stream' | 'signal';

const marks = new WeakSet<object>();

/** Marks an object to go by reference wherever it is sent, although it could be copied. Returns the object. */
export function reference<T extends object>(object: T): T {
  marks.add(object);
  return object;
}

/** Whether a value is an error, of whatever realm where the platform can tell. */
export const isAnyError = (value: object): value is Error =>
  value instanceof Error || (Error as { isError?(value: unknown): boolean }).isError?.(value) === true;

/**
 * How a value goes by reference; undefined where it is copied or refused. Ghosts are not known here: ask the session
 * first. May throw what a hostile object throws.
 */
export function kindOf(value: object): RefKind | undefined {
  if (typeof value === 'function') return isClass(value) ? undefined : 'function';
  if (marks.has(value)) return 'object';
  const { base, methods } = lineageOf(Object.getPrototypeOf(value));
  if (base === 'AbortSignal') return 'signal';
  if (base === 'ReadableStream') return 'stream';
  // What gives items one after the other: by an async iterator, or as an iterator itself.
  const gives = Symbol.asyncIterator in value || (Symbol.iterator in value && 'next' in value);
  // Bytes and errors are values, whatever class they are of: Buffer has methods, and so have many errors.
  if (!(gives || methods) || base === 'Promise' || ArrayBuffer.isView(value) || isAnyError(value)) return undefined;
  // Platforms without signals may have been given some.
  if (typeof AbortSignal === 'function' && value instanceof AbortSignal) return 'signal';
  return gives ? 'iterable' : 'object';
}

/**
 * Finds the references in a parsed value that was not decoded: their numbers, their types, and whether a stream waits for
 * its reader. False where there are none.
 */
export function eachGiven(value: unknown, run: (id: number, type: unknown, lazy: boolean) => void, depth = 0): boolean {
  // What is deeper is not well formed: a tag is three levels of a text at most.
  if (typeof value !== 'object' || value === null || depth > 4 * LIMITS.depth) return false;
  const tag = Object.keys(value).length === 1 ? (value as { $?: unknown }).$ : undefined;
  if (Array.isArray(tag) && tag[0] === 'mine') {
    if (typeof tag[1] === 'number') run(tag[1], tag[2], tag[3] === 0);
    return true;
  }
  // What stands in this one is a user's own object, though it looks like a tag.
  const own = Array.isArray(tag) && tag[0] === 'object' && typeof tag[1] === 'object';
  let found = false;
  for (const member of Object.values(own ? (tag[1] ?? []) : value)) found = eachGiven(member, run, depth + 1) || found;
  return found;
}

/** For people: a remote reference was let go of by nobody. */
export function warnOfCollected(label: string): void {
  const text = `a remote ${label} was collected without being let go of; it stays in the other side's table until the session ends. Use \`using\` or \`await using\``;
  const { process } = globalThis as { process?: { emitWarning?(text: string, name: string): void } };
  if (process?.emitWarning) process.emitWarning(text, 'MeshReferenceWarning');
  else console.warn(`hauki: ${text}`);
}
