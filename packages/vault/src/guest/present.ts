/**
 * Any value as text for a person, in Node and in QuickJS alike: for `hauki exec`. It runs no getter and follows no
 * cycle; depth, entries and length are bounded. A text by itself is given as it is.
 */
const DEPTH = 4;
const ENTRIES = 100;
const TEXT_CHARS = 10_000;

/** Text of at most `most_chars`. Never throws. */
export function present(value: unknown, most_chars: number): string {
  try {
    const text = typeof value === 'string' ? value : shape(value, DEPTH, new Set());
    return text.length > most_chars ? `${text.slice(0, most_chars - 1)}…` : text;
  } catch (error) {
    return `[a value that cannot be shown: ${String((error as Error)?.message)}]`;
  }
}

function shape(value: unknown, depth: number, above: Set<object>): string {
  if (typeof value === 'string') {
    const cut = value.length > TEXT_CHARS;
    return `${JSON.stringify(cut ? value.slice(0, TEXT_CHARS) : value)}${cut ? '…' : ''}`;
  }
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return `[${/^class\b/.test(String(value)) ? 'class' : 'function'} ${nameOf(value)}]`;
  if (typeof value !== 'object' || value === null) return String(value);
  if (above.has(value)) return '[it contains itself]';
  if (value instanceof Error) return `[${value.name}: ${value.message}]`;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
  if (value instanceof RegExp) return String(value);
  if (value instanceof Promise) return '[a promise]';
  const kind = kindOf(value);
  if (depth === 0) return `[${kind}]`;
  above.add(value);
  try {
    const inner = (part: unknown) => shape(part, depth - 1, above);
    if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
      const all = value as unknown as ArrayLike<unknown>;
      return `${kind} ${list(
        '[',
        entriesOf(all.length, (i) => String(all[i])),
        ']',
      )}`;
    }
    if (Array.isArray(value))
      return list(
        '[',
        entriesOf(value.length, (i) => inner(value[i])),
        ']',
      );
    if (value instanceof Map)
      return `Map(${value.size}) ${list(
        '{',
        first(value, ([key, of]) => `${inner(key)} => ${inner(of)}`, value.size),
        '}',
      )}`;
    if (value instanceof Set) return `Set(${value.size}) ${list('{', first(value, inner, value.size), '}')}`;
    const keys = Reflect.ownKeys(value);
    const members = entriesOf(keys.length, (i) => {
      const key = keys[i]!;
      const name = typeof key === 'string' && /^[A-Za-z_$][\w$]*$/.test(key) ? key : `[${String(key)}]`;
      const of = Reflect.getOwnPropertyDescriptor(value, key);
      return `${name}: ${!of ? 'gone' : 'value' in of ? inner(of.value) : '[a getter]'}`;
    });
    return `${kind === 'Object' ? '' : `${kind} `}${list('{ ', members, ' }')}`;
  } finally {
    above.delete(value);
  }
}

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

function entriesOf(count: number, show: (index: number) => string): string[] {
  const shown = Array.from({ length: Math.min(count, ENTRIES) }, (_, i) => show(i));
  return count > ENTRIES ? [...shown, `${count - ENTRIES} more`] : shown;
}

function first<T>(all: Iterable<T>, show: (one: T) => string, count: number): string[] {
  const shown: string[] = [];
  for (const one of all) if (shown.push(show(one)) >= ENTRIES) break;
  return count > ENTRIES ? [...shown, `${count - ENTRIES} more`] : shown;
}
