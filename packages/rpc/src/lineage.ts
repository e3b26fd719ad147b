/** Which classes somebody wrote, and which are of the language or the platform: for methods, exports and the codec. */

/** Names alone, as they stand before any worker's code runs: looking at the values would load half of the platform. */
const PLATFORM = new Set(Object.getOwnPropertyNames(globalThis));

/** An own property, where it is no getter. */
const own = (object: object, key: string): unknown => Object.getOwnPropertyDescriptor(object, key)?.value;

/**
 * The name of the class of the language or the platform whose prototype this is, of another realm too; undefined for
 * classes that somebody wrote.
 */
export function builtInName(prototype: object): string | undefined {
  const made = own(prototype, 'constructor');
  if (typeof made !== 'function' || made.prototype !== prototype) return undefined;
  const name = own(made, 'name');
  if (typeof name !== 'string') return undefined;
  const known = PLATFORM.has(name) && (globalThis as Record<string, unknown>)[name] === made;
  return known || /\{\s*\[native code\]\s*\}$/.test(Function.prototype.toString.call(made)) ? name : undefined;
}

/** Whether a value is a class: a function that can only be called with `new`. Built-in constructors do not count. */
export const isClass = (value: unknown): value is new (...args: any[]) => object =>
  typeof value === 'function' && /^class\b/.test(Function.prototype.toString.call(value));

/** What a prototype says about the objects below it. */
export interface Lineage {
  /** The nearest built-in class: 'Object', 'Map', 'URL'…; undefined where the chain ends without one. */
  readonly base: string | undefined;
  /** Whether a class of the user's before it has a public method. */
  readonly methods: boolean;
}

/** Asked for every instance that is sent; prototypes live as long as their classes and hardly ever change. */
const lineages = new WeakMap<object, Lineage>();

/** Walks up from a prototype to the nearest built-in class. The answer is remembered for each prototype. */
export function lineageOf(prototype: object | null): Lineage {
  if (prototype === null) return { base: undefined, methods: false };
  const known = lineages.get(prototype);
  if (known) return known;
  const base = builtInName(prototype);
  const above = base === undefined ? lineageOf(Object.getPrototypeOf(prototype)) : { base, methods: false };
  const own = base === undefined ? Object.entries(Object.getOwnPropertyDescriptors(prototype)) : [];
  const called = ([name, { value }]: [string, PropertyDescriptor]) =>
    typeof value === 'function' && name !== 'constructor' && !name.startsWith('_');
  const lineage = { base: above.base, methods: above.methods || own.some(called) };
  lineages.set(prototype, lineage);
  return lineage;
}
