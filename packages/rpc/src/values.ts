/**
 * How values become JSON text. What JSON would silently change (functions, NaN, bigint, Map, bytes, cycles) is refused
 * with its place, because a value that arrives as another value is worse than an error. Dates arrive as ISO strings.
 */
import { LIMITS, TooLarge, Unserialisable } from '@hauki/protocol';

const REFUSED = [Map, Set, WeakMap, WeakSet, RegExp, ArrayBuffer, Promise, Error] as const;

function guard(this: unknown, key: string, value: unknown): unknown {
  switch (typeof value) {
    case 'function':
    case 'symbol':
    case 'bigint':
      throw new Unserialisable({ why: `${key === '' ? 'it' : `the value at "${key}"`} is a ${typeof value}` });
    case 'number':
      if (Number.isFinite(value)) return value;
      throw new Unserialisable({ why: `${key === '' ? 'it' : `the value at "${key}"`} is ${value}` });
    case 'object':
      if (value === null) return value;
      for (const kind of REFUSED)
        if (value instanceof kind)
          throw new Unserialisable({ why: `${key === '' ? 'it' : `the value at "${key}"`} is of type ${kind.name}` });
      if (ArrayBuffer.isView(value))
        throw new Unserialisable({ why: `${key === '' ? 'it' : `the value at "${key}"`} is binary` });
      return value;
    default:
      return value;
  }
}

/** JSON text of a value; `undefined` becomes null. Throws Unserialisable or TooLarge. */
export function encode(value: unknown): string {
  let text: string;
  if (typeof value === 'string' || typeof value === 'boolean' || value === null) return JSON.stringify(value);
  if (value === undefined) return 'null';
  try {
    text = JSON.stringify(value, guard);
  } catch (error) {
    if (error instanceof Unserialisable) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new Unserialisable({ why: message.startsWith('Converting circular') ? 'it contains itself' : message });
  }
  if (text.length > LIMITS.message_bytes)
    throw new TooLarge({ what: 'A message', limit_bytes: LIMITS.message_bytes, got_bytes: text.length });
  return text;
}
