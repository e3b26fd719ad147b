/** URLSearchParams (URL standard, section 6), and the form encoding that it shares with bodies of requests. */
import { decodePercent, encodeSet } from './url-host.ts';

const FORM = /[^A-Za-z0-9*\-._]/gu;
const write = (text: string) => encodeSet(text, FORM).replaceAll('%20', '+');
const read = (text: string) => decodePercent(text.replaceAll('+', ' '));
const usv = (value: unknown) => (String(value) as string & { toWellFormed(): string }).toWellFormed();

export class URLSearchParams {
  #list: [string, string][] = [];
  /** For the URL that it belongs to. */
  declare changed?: (text: string) => void;

  constructor(init: unknown = '') {
    if (typeof init === 'object' && init !== null) {
      const pairs = (init as Iterable<unknown>)[Symbol.iterator]
        ? [...(init as Iterable<[unknown, unknown]>)]
        : undefined;
      for (const pair of pairs ?? Object.entries(init)) {
        const [name, value, ...more] = [...pair];
        if ([...pair].length !== 2 || more.length > 0)
          throw new TypeError('Each query pair must be an iterable [name, value] tuple');
        this.#list.push([usv(name), usv(value)]);
      }
    } else this.become(usv(init).replace(/^\?/, ''));
  }

  /** Takes over what a query says. */
  become(query: string): void {
    this.#list = query
      .split('&')
      .filter((pair) => pair !== '')
      .map((pair) => {
        const equals = pair.indexOf('=');
        return equals < 0 ? [read(pair), ''] : [read(pair.slice(0, equals)), read(pair.slice(equals + 1))];
      });
  }

  get size(): number {
    return this.#list.length;
  }
  append(name: unknown, value: unknown): void {
    this.#list.push([usv(name), usv(value)]);
    this.#told();
  }
  delete(name: unknown, value?: unknown): void {
    const [n, v] = [usv(name), value === undefined ? undefined : usv(value)];
    this.#list = this.#list.filter(([other, its]) => other !== n || (v !== undefined && its !== v));
    this.#told();
  }
  get(name: unknown): string | null {
    return this.getAll(name)[0] ?? null;
  }
  getAll(name: unknown): string[] {
    const n = usv(name);
    return this.#list.filter(([other]) => other === n).map(([, value]) => value);
  }
  has(name: unknown, value?: unknown): boolean {
    const all = this.getAll(name);
    return value === undefined ? all.length > 0 : all.includes(usv(value));
  }
  set(name: unknown, value: unknown): void {
    const n = usv(name);
    const at = this.#list.findIndex(([other]) => other === n);
    if (at < 0) return this.append(n, value);
    this.#list[at] = [n, usv(value)];
    this.#list = this.#list.filter(([other], i) => i <= at || other !== n);
    this.#told();
  }
  sort(): void {
    this.#list.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.#told();
  }
  forEach(run: (value: string, name: string, params: URLSearchParams) => void, self?: unknown): void {
    for (const [name, value] of this.#list) run.call(self, value, name, this);
  }
  *entries(): Generator<[string, string], void> {
    for (let i = 0; i < this.#list.length; i++) yield [...this.#list[i]!];
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
  toString(): string {
    return this.#list.map(([name, value]) => `${write(name)}=${write(value)}`).join('&');
  }

  #told(): void {
    this.changed?.(this.toString());
  }
}
