/**
 * What a QuickJS vault cannot do, because its engine has no locales and keeps no last match: it would answer something
 * else than Node without a word, so it says so. What is the same in any case passes.
 */

const missing = (what: string): never => {
  throw new TypeError(`${what}: there is no Intl in quickjs vaults; lxc and process vaults have it`);
};

/** Languages whose letters change their case in another way than all others'. */
const OWN_CASES = /^(?:az|el|hy|lt|tr)\b/i;
const ENGLISH: unknown[] = [undefined, 'en', 'en-US'];
/** A number that is shown with all its digits. */
const SHORT = /^(-?\d+)(\.\d{1,3})?$/;

type Method = (this: unknown, ...given: any[]) => unknown;

/** To be called before there is a worker's code. */
export function refuseLocales(scope: any): void {
  const { apply } = Reflect;
  /** Runs `by` for what is given from place `at` on: undefined leaves it to the engine. */
  const wrap = (prototype: any, name: string, at: number, by?: (self: unknown, locales: unknown) => unknown) => {
    const original = prototype[name] as Method;
    const method = {
      [name](this: unknown, ...given: unknown[]) {
        const [locales, options] = [given[at], given[at + 1]];
        if (options === undefined) {
          const made = by?.(this, locales);
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
  const inEnglish = (number: unknown, locales: unknown) => {
    const [, whole, part = ''] = (ENGLISH.includes(locales) && SHORT.exec(`${number}`)) || [];
    return whole && whole.replace(/\B(?=(?:\d{3})+$)/g, ',') + part;
  };
  wrap(String.prototype, 'localeCompare', 1);
  wrap(String.prototype, 'toLocaleLowerCase', 0, plainCase('toLowerCase'));
  wrap(String.prototype, 'toLocaleUpperCase', 0, plainCase('toUpperCase'));
  wrap(Number.prototype, 'toLocaleString', 0, inEnglish);
  wrap(BigInt.prototype, 'toLocaleString', 0, inEnglish);
  for (const prototype of [Array.prototype, Object.getPrototypeOf(Uint8Array.prototype), scope.Date.prototype])
    wrap(prototype, 'toLocaleString', 0);
  for (const name of ['toLocaleDateString', 'toLocaleTimeString']) wrap(scope.Date.prototype, name, 0);
  // One for all: every vault carries it.
  const get = () => {
    throw new TypeError('RegExp.$1: quickjs vaults keep no last match; take it from what match() or exec() gives');
  };
  for (let i = 1; i <= 9; i++) Object.defineProperty(RegExp, `$${i}`, { get, configurable: true });
}
