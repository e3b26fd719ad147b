/**
 * Any value as text for a person, in Node and in QuickJS alike: for `hauki exec` and for log lines. It runs no getter but
 * those of errors, and follows no cycle; depth, entries and length are bounded. A text by itself is given as it is, an error
 * by itself with its frames.
 */
import { describe, ownFrames } from '@hauki/protocol';

const DEPTH = 4;
const ENTRIES = 100;
const TEXT_CHARS = 10_000;

/** How many of an error's frames are shown. */
const FRAMES = 16;
/** What is shown of an error by itself. */
const ERROR_MEMBERS = ['name', 'message', 'stack', 'cause', 'errors'];

/** Where a walk through a value is: what it stands in, and how many characters are left to show. */
interface Walk {
  above: Set<object>;
  left: number;
}

/** Text of at most `most_chars`. Never throws. */
export function present(value: unknown, most_chars: number): string {
  try {
    const walk = { above: new Set<object>(), left: most_chars };
    const text =
      typeof value === 'string' ? value : value instanceof Error ? failure(value, walk) : shape(value, DEPTH, walk);
    return text.length > most_chars ? `${text.slice(0, most_chars - 1)}…` : text;
  } catch (error) {
    return `[a value that cannot be shown: ${describe(error)}]`;
  }
}

const headOf = ({ name, message }: Error) => `${message ? `${name}: ${message}` : name}`.slice(0, TEXT_CHARS);

/** An error with the frames that are its own code's, what it has besides, and what caused it. */
function failure(error: Error, walk: Walk): string {
  walk.above.add(error);
  const frames = ownFrames(String(error.stack))
    .split('\n')
    .filter((line) => /^ +at /.test(line));
  let text = [headOf(error), ...frames.slice(0, FRAMES)].join('\n');
  walk.left -= text.length;
  // Those of our table say all in their words.
  const more = Object.hasOwn(error, 'retryable')
    ? []
    : Object.keys(error).filter((key) => !ERROR_MEMBERS.includes(key));
  if (more.length > 0) text += ` ${list('{ ', membersOf(error, more, DEPTH - 1, walk), ' }')}`;
  for (const key of ['cause', 'errors'] as const) {
    const of = Reflect.getOwnPropertyDescriptor(error, key)?.value;
    if (of === undefined || walk.left <= 0) continue;
    const fails = of instanceof Error && !walk.above.has(of);
    text += `\n[${key}]: ${fails ? failure(of, walk) : shape(of, DEPTH - 1, walk)}`;
  }
  return text;
}

/** A value that has no members to be shown; else undefined. */
function plain(value: unknown, above: Set<object>): string | undefined {
  if (typeof value === 'string') {
    const cut = value.length > TEXT_CHARS;
    return `${JSON.stringify(cut ? value.slice(0, TEXT_CHARS) : value)}${cut ? '…' : ''}`;
  }
  if (typeof value === 'bigint') return `${value}n`;
  if (Object.is(value, -0)) return '-0';
  if (typeof value === 'function') return `[${/^class\b/.test(String(value)) ? 'class' : 'function'} ${nameOf(value)}]`;
  if (typeof value !== 'object' || value === null) return String(value);
  if (above.has(value)) return '[it contains itself]';
  if (value instanceof Error) return `[${headOf(value)}]`;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
  if (value instanceof RegExp) return String(value);
  if (value instanceof Promise) return '[a promise]';
  return undefined;
}

function shape(value: unknown, depth: number, walk: Walk): string {
  const { above } = walk;
  const text = plain(value, above);
  if (text !== undefined) {
    walk.left -= text.length;
    return text;
  }
  return shapeOf(value as object, depth, walk);
}

function shapeOf(value: object, depth: number, walk: Walk): string {
  const { above } = walk;
  const kind = kindOf(value);
  walk.left -= kind.length + 2;
  if (depth === 0) return `[${kind}]`;
  above.add(value);
  try {
    const inner = (part: unknown) => shape(part, depth - 1, walk);
    if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
      const all = value as unknown as ArrayLike<unknown>;
      return `${kind} ${list(
        '[',
        entriesOf(all.length, walk, (i) => inner(all[i])),
        ']',
      )}`;
    }
    if (Array.isArray(value))
      return list(
        '[',
        entriesOf(value.length, walk, (i) => inner(value[i])),
        ']',
      );
    if (value instanceof Map)
      return `Map(${value.size}) ${list(
        '{',
        first(value, walk, ([key, of]) => `${inner(key)} => ${inner(of)}`),
        '}',
      )}`;
    if (value instanceof Set) return `Set(${value.size}) ${list('{', first(value, walk, inner), '}')}`;
    const members = membersOf(value, Reflect.ownKeys(value), depth, walk);
    return `${kind === 'Object' ? '' : `${kind} `}${list('{ ', members, ' }')}`;
  } finally {
    above.delete(value);
  }
}

const membersOf = (value: object, keys: readonly (string | symbol)[], depth: number, walk: Walk): string[] =>
  entriesOf(keys.length, walk, (i) => {
    const key = keys[i]!;
    const text = String(key).slice(0, TEXT_CHARS);
    const name = typeof key === 'string' && /^[A-Za-z_$][\w$]*$/.test(key) ? text : `[${text}]`;
    walk.left -= name.length;
    const of = Reflect.getOwnPropertyDescriptor(value, key);
    return `${name}: ${!of ? 'gone' : 'value' in of ? shape(of.value, depth - 1, walk) : '[a getter]'}`;
  });

function kindOf(value: object): string {
  const prototype = Reflect.getPrototypeOf(value);
  if (prototype === null) return 'Object without a prototype';
  const made = Reflect.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
  return typeof made === 'function' ? nameOf(made) : 'Object';
}

function nameOf(made: object): string {
  const name = Reflect.getOwnPropertyDescriptor(made, 'name')?.value;
  return typeof name === 'string' && name !== '' ? name : 'without a name';
}

const list = (open: string, parts: string[], close: string) =>
  parts.length === 0 ? `${open.trim()}${close.trim()}` : `${open}${parts.join(', ')}${close}`;

/** As many as are left to be shown, and how many there are besides. */
function entriesOf(count: number, walk: Walk, show: (index: number) => string): string[] {
  const shown: string[] = [];
  while (shown.length < Math.min(count, ENTRIES) && walk.left > 0) shown.push(show(shown.length));
  return shown.length < count ? [...shown, `${count - shown.length} more`] : shown;
}

function first<T>(all: Iterable<T> & { size: number }, walk: Walk, show: (one: T) => string): string[] {
  const entries = all[Symbol.iterator]();
  return entriesOf(all.size, walk, () => show(entries.next().value));
}
