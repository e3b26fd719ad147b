/**
 * What counts as a method: a function that somebody wrote on an object or its class. Nothing of the language's or the
 * platform's own prototypes ever counts, and no getter runs. Workers, exports and the value codec share this rule.
 */

/** Names alone, as they stand before any worker's code runs: looking at the values would load half of the platform. */
const PLATFORM = new Set(Object.getOwnPropertyNames(globalThis));

/** The name of the class of the language or the platform whose prototype this is; undefined for all others. */
export function builtInName(prototype: object): string | undefined {
  const made: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
  if (typeof made !== 'function' || made.prototype !== prototype) return undefined;
  const name: unknown = Object.getOwnPropertyDescriptor(made, 'name')?.value;
  if (typeof name !== 'string' || !PLATFORM.has(name)) return undefined;
  return (globalThis as Record<string, unknown>)[name] === made ? name : undefined;
}

/** All functions of an object and its classes by name, private ones included; what stands nearest counts. */
export function methodsOf(object: object): Map<string, (...args: unknown[]) => unknown> {
  const found = new Map<string, (...args: unknown[]) => unknown>();
  const seen = new Set(['constructor']);
  for (let level = object; level && builtInName(level) === undefined; level = Object.getPrototypeOf(level))
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(level))) {
      // What stands nearest counts, also where it is no method.
      if (typeof value === 'function' && !seen.has(name)) found.set(name, value);
      seen.add(name);
    }
  return found;
}

/** Whether a value is a class: a function that can only be called with `new`. Built-in constructors do not count. */
export const isClass = (value: unknown): value is new (...args: any[]) => object =>
  typeof value === 'function' && /^class\b/.test(Function.prototype.toString.call(value));

/** The name of a class that is not written in JavaScript: one of another realm, or one like Intl.Collator. */
function nativeName(prototype: object): string | undefined {
  const made: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
  if (typeof made !== 'function' || made.prototype !== prototype) return undefined;
  return /\{\s*\[native code\]\s*\}$/.test(Function.prototype.toString.call(made)) ? String(made.name) : undefined;
}

/** What a prototype says about the objects below it. */
export interface Lineage {
  /** The nearest built-in class: 'Object', 'Map', 'URL'…; undefined where the chain ends without one. */
  readonly base: string | undefined;
  /** Whether a class of the user's stands before it. */
  readonly own_class: boolean;
  /** Whether such a class has a public method. */
  readonly methods: boolean;
}

/** Asked for every instance that is sent; prototypes live as long as their classes and hardly ever change. */
const lineages = new WeakMap<object, Lineage>();

/** Walks up from a prototype to the nearest built-in class. The answer is remembered for each prototype. */
export function lineageOf(prototype: object | null): Lineage {
  if (prototype === null) return { base: undefined, own_class: false, methods: false };
  const known = lineages.get(prototype);
  if (known) return known;
  let base: string | undefined;
  let level: object | null = prototype;
  for (; level !== null; level = Object.getPrototypeOf(level)) {
    base = builtInName(level) ?? nativeName(level);
    if (base !== undefined) break;
  }
  let methods = false;
  for (let own: object | null = prototype; own !== level && own !== null; own = Object.getPrototypeOf(own))
    methods ||= Object.entries(Object.getOwnPropertyDescriptors(own)).some(
      ([name, { value }]) => typeof value === 'function' && name !== 'constructor' && !name.startsWith('_'),
    );
  const lineage = { base, own_class: level !== prototype, methods };
  lineages.set(prototype, lineage);
  return lineage;
}
