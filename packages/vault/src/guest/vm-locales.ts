/**
 * What a QuickJS vault cannot do, because its engine has no locales and keeps no last match: it would answer something
 * else than Node without a word, so it says so. What is the same in any case passes, and English is written as Node does it.
 */
import type { English } from './english.ts';

const missing = (what: string): never => {
  throw new TypeError(`${what}: there is no Intl in quickjs vaults; lxc and process vaults have it`);
};

/** Languages whose letters change their case in another way than all others'. */
const OWN_CASES = /^(?:az|el|hy|lt|tr)\b/i;
const ENGLISH: unknown[] = [undefined, 'en', 'en-US'];
/** Methods of dates, by what they write. */
const DATES = { both: 'toLocaleString', date: 'toLocaleDateString', time: 'toLocaleTimeString' } as const;

type Method = (this: unknown, ...given: any[]) => unknown;

/** To be called before there is a worker's code. `english`: loads it. */
export function refuseLocales(scope: any, english: () => English): void {
  const { apply } = Reflect;
  /** Runs `by` for what is given from place `at` on: undefined leaves it to the engine. */
  const wrap = (
    prototype: any,
    name: string,
    at: number,
    by?: (self: any, locales: unknown, first: unknown) => unknown,
  ) => {
    const original = prototype[name] as Method;
    const method = {
      [name](this: unknown, ...given: unknown[]) {
        const locales = given[at];
        const options = given[at + 1];
        if (options === undefined) {
          const made = by?.(this, locales, given[0]);
          if (made !== undefined) return made;
        }
        if (locales !== undefined || options !== undefined) missing(`${name}() with a locale or options`);
        return apply(original, this, given);
      },
    }[name];
    Object.defineProperty(prototype, name, { value: method, writable: true, configurable: true });
  };
  const plainCase = (name: string) => (text: unknown, locales: unknown) =>
    typeof locales === 'string' && !OWN_CASES.test(locales) ? (text as any)[name]() : undefined;
  const { prototype: dates } = scope.Date;
  /** As English has it, where that is asked for, and the value is what it should be. */
  const written = (name: Exclude<keyof English, 'compared'>) => (value: any, locales: unknown) => {
    const fits = typeof value === name || (name in DATES && value instanceof scope.Date);
    return fits && ENGLISH.includes(locales) ? english()[name](value as never) : undefined;
  };
  wrap(String.prototype, 'localeCompare', 1, (text, locales, other) =>
    typeof text === 'string' && ENGLISH.includes(locales) ? english().compared(text, `${other}`) : undefined,
  );
  wrap(String.prototype, 'toLocaleLowerCase', 0, plainCase('toLowerCase'));
  wrap(String.prototype, 'toLocaleUpperCase', 0, plainCase('toUpperCase'));
  wrap(Number.prototype, 'toLocaleString', 0, written('number'));
  wrap(BigInt.prototype, 'toLocaleString', 0, written('bigint'));
  for (const prototype of [Array.prototype, Object.getPrototypeOf(Uint8Array.prototype)])
    wrap(prototype, 'toLocaleString', 0);
  for (const [name, method] of Object.entries(DATES)) wrap(dates, method, 0, written(name as keyof typeof DATES));
  // One for all: every vault carries it.
  const get = () => {
    throw new TypeError('RegExp.$1: quickjs vaults keep no last match; take it from what match() or exec() gives');
  };
  for (let i = 1; i <= 9; i++) Object.defineProperty(RegExp, `$${i}`, { get, configurable: true });
}
