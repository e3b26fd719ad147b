/** Headers (Fetch standard), and as the flat lists in which they travel. */
import { type FlatHeaders, HEADER_NAME } from '@hauki/protocol';

const nameOf = (given: unknown): string => {
  const name = `${given}`;
  if (!HEADER_NAME.test(name)) throw new TypeError(`Headers: ${JSON.stringify(name)} is an invalid header name.`);
  return name.toLowerCase();
};
const valueFrom = (given: unknown): string => {
  const value = `${given}`.replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, '');
  if (/[\r\n\u0100-\uffff]/.test(value) || value.includes('\0'))
    throw new TypeError(`Headers: ${JSON.stringify(value)} is an invalid header value.`);
  return value;
};

/** The lines of one name as one: those of cookies are no list (RFC 9113, 8.2.3). */
const joined = (name: string, values: readonly string[]): string => values.join(name === 'cookie' ? '; ' : ', ');

export class Headers {
  readonly #all = new Map<string, string[]>();

  constructor(init?: unknown) {
    if (init === undefined || init === null) return;
    if (init instanceof Headers) {
      for (const [key, values] of init.#all) this.#all.set(key, [...values]);
      return;
    }
    if (typeof init !== 'object') throw new TypeError('Headers are made of an object or of pairs');
    const pairs = Symbol.iterator in init ? [...(init as Iterable<Iterable<unknown>>)] : Object.entries(init);
    for (const pair of pairs) {
      const both = [...pair];
      if (both.length !== 2) throw new TypeError('Each header pair must be a name/value tuple');
      this.append(both[0], both[1]);
    }
  }

  /** Of headers that came in: whoever read them has checked and folded them. */
  static arrived(flat: FlatHeaders): Headers {
    const headers = new Headers();
    for (let i = 0; i + 1 < flat.length; i += 2) {
      const before = headers.#all.get(flat[i]!);
      if (before) before.push(flat[i + 1]!);
      else headers.#all.set(flat[i]!, [flat[i + 1]!]);
    }
    return headers;
  }

  /** Names and values in turn, as they travel. */
  static flat(headers: Headers): FlatHeaders {
    const flat: string[] = [];
    for (const [name, values] of headers.#all) for (const value of values) flat.push(name, value);
    return flat;
  }

  /** Gives a message the type that its body has by itself. */
  static typed(headers: Headers, type: string): void {
    if (!headers.#all.has('content-type')) headers.#all.set('content-type', [type]);
  }

  append(name: unknown, value: unknown): void {
    const key = nameOf(name);
    const before = this.#all.get(key);
    if (before) before.push(valueFrom(value));
    else this.#all.set(key, [valueFrom(value)]);
  }
  delete(name: unknown): void {
    this.#all.delete(nameOf(name));
  }
  get(name: unknown): string | null {
    const key = nameOf(name);
    const values = this.#all.get(key);
    return values ? joined(key, values) : null;
  }
  getSetCookie(): string[] {
    return [...(this.#all.get('set-cookie') ?? [])];
  }
  has(name: unknown): boolean {
    return this.#all.has(nameOf(name));
  }
  set(name: unknown, value: unknown): void {
    this.#all.set(nameOf(name), [valueFrom(value)]);
  }
  forEach(run: (value: string, name: string, headers: Headers) => void, self?: unknown): void {
    for (const [name, value] of this) run.call(self, value, name, this);
  }
  *entries(): Generator<[string, string], void> {
    for (const name of [...this.#all.keys()].sort()) {
      const values = this.#all.get(name) ?? [];
      if (name === 'set-cookie') for (const value of values) yield [name, value];
      else yield [name, joined(name, values)];
    }
  }
  *keys(): Generator<string, void> {
    for (const [name] of this.entries()) yield name;
  }
  *values(): Generator<string, void> {
    for (const [, value] of this.entries()) yield value;
  }
  [Symbol.iterator](): Generator<[string, string], void> {
    return this.entries();
  }
}
