/**
 * What counts as a method: a function that somebody wrote on an object or its class. Nothing of the language's or the
 * platform's own prototypes ever counts, and no getter runs. Workers, exports and the value codec share this rule.
 */
import { builtInName } from './lineage.ts';

/**
 * The methods of an object and its classes by name; what stands nearest counts. Names that begin with `_` are private.
 */
export function methodsOf(object: object): Map<string, (...args: unknown[]) => unknown> {
  const found = new Map<string, (...args: unknown[]) => unknown>();
  const seen = new Set(['constructor']);
  for (let level = object; level && builtInName(level) === undefined; level = Object.getPrototypeOf(level))
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(level))) {
      // What stands nearest counts, also where it is no method.
      if (typeof value === 'function' && !name.startsWith('_') && !seen.has(name)) found.set(name, value);
      seen.add(name);
    }
  return found;
}

/** Lets an object end as its own `[Symbol.asyncDispose]` or `[Symbol.dispose]` says, where it has one. */
export async function disposeOf(object: Partial<AsyncDisposable & Disposable>): Promise<void> {
  await (object[Symbol.asyncDispose] ?? object[Symbol.dispose])?.call(object);
}
