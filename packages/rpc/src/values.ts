/**
 * How values become JSON text. What JSON would silently change (functions, NaN, bigint, Map, bytes, streams, cycles,
 * objects of the platform) is refused with its place, because a value that arrives as another value is worse than an error. Dates arrive as ISO
 * strings.
 */
import { TooLarge, Unserialisable } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { utf8Bytes } from '#platform';
import { sourceOf } from './ghost.ts';
import { lineageOf } from './lineage.ts';
import { kindOf, type RefKind } from './references.ts';

const REFUSED = [Map, Set, WeakMap, WeakSet, RegExp, ArrayBuffer, Promise, Error] as const;
/** Built-in classes whose instances JSON writes whole; of the platform's others, as Response, it would make {}. */
const WRITTEN: ReadonlySet<string> = new Set(['Object', 'Array', 'Number', 'String', 'Boolean']);
/** What goes by reference alone. Instances of classes, which do as well, are plain objects in JSON. */
const NOT_COPIED: ReadonlySet<unknown> = new Set<RefKind>(['iterable', 'stream', 'signal']);

function refuse(key: string, is: string): never {
  throw new Unserialisable({ why: `${key === '' ? 'it' : `the value at "${key}"`} is ${is}` });
}

/** Characters that are left of a message while it is written: what stands in a value again and again is written as often. */
let left = 0;

/** So many characters at least a member takes: a comma, its name, and itself; of a list or an object one of the brackets. */
function charsOf(inside: object, key: string, shown: unknown): number {
  if (shown === undefined) return 0;
  const name = Array.isArray(inside) ? 0 : key.length + 3;
  return 1 + name + (typeof shown === 'string' ? shown.length + 2 : 1);
}

function guard(this: any, key: string, shown: unknown): unknown {
  left -= charsOf(this, key, shown);
  if (left < 0) throw new TooLarge({ what: 'A message', limit_bytes: LIMITS.message_bytes });
  // What stood there before its toJSON changed it, if it has one: a Buffer, a date that is none.
  const given = this[key];
  if (sourceOf(given)) refuse(key, 'a remote object');
  const value = ArrayBuffer.isView(given) || (given instanceof Date && shown === null) ? given : shown;
  switch (typeof value) {
    case 'function':
    case 'symbol':
    case 'bigint':
      return refuse(key, `a ${typeof value}`);
    case 'number':
      if (Number.isFinite(value)) return value;
      return refuse(key, `${value}`);
    case 'object': {
      if (value === null) return value;
      for (const kind of REFUSED) if (value instanceof kind) refuse(key, `of type ${kind.name}`);
      if (value instanceof Date) refuse(key, 'an invalid date');
      if (NOT_COPIED.has(kindOf(value))) refuse(key, 'a stream or a signal');
      if (ArrayBuffer.isView(value)) refuse(key, 'binary');
      const { base = 'Object' } = lineageOf(Object.getPrototypeOf(value));
      if (!WRITTEN.has(base)) refuse(key, `of the class ${base || 'without a name'}: send what you need of it`);
      return value;
    }
    default:
      return value;
  }
}

/** Throws TooLarge where a text (and attachments) has more UTF-8 bytes than a message may; counted only where that could be. */
export function checkSize(what: string, text: string, attached_bytes = 0): void {
  const limit_bytes = LIMITS.message_bytes;
  if (text.length * 3 + attached_bytes <= limit_bytes) return;
  const got_bytes = attached_bytes + (text.length > limit_bytes ? text.length : utf8Bytes(text));
  if (got_bytes > limit_bytes) throw new TooLarge({ what, limit_bytes, got_bytes });
}

/** JSON text of a value; `undefined` becomes null. Throws Unserialisable or TooLarge. */
export function encode(value: unknown): string {
  let text: string;
  if (typeof value === 'string' || typeof value === 'boolean' || value === null) return JSON.stringify(value);
  if (value === undefined) return 'null';
  try {
    // The root has neither name nor comma.
    left = LIMITS.message_bytes + 4;
    text = JSON.stringify(value, guard);
  } catch (error) {
    if (error instanceof Unserialisable || error instanceof TooLarge) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new Unserialisable({ why: message.startsWith('Converting circular') ? 'it contains itself' : message });
  }
  checkSize('A message', text);
  return text;
}
