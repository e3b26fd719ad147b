/**
 * The clock and entropy, taken from a Node worker that has no grant for them: what would tell them says which grant it
 * wants. A courtesy, not a wall: native Node has other ways to both. The guest itself goes on using its own
 * (`bundle.ts`).
 */
import { GrantMissing, type Grants } from '@hauki/protocol';

const put = (into: object, name: string, value: unknown) =>
  Object.defineProperty(into, name, { value, writable: true, configurable: true, enumerable: false });

/** An object of the same methods, each of which refuses. */
function refusing(name: string, original: object, refuse: (what: string) => never): object {
  const made = {};
  for (const holder of [original, Object.getPrototypeOf(original) as object])
    for (const [key, { value }] of Object.entries(Object.getOwnPropertyDescriptors(holder)))
      if (typeof value === 'function' && key !== 'constructor') put(made, key, () => refuse(`${name}.${key}()`));
  return made;
}

/** In the place of a global, made when it is touched: Node loads 2 to 8 ms of its own for these in each vault otherwise. */
function late(scope: typeof globalThis, name: 'crypto' | 'performance', make: (original: object) => object): void {
  const { get, value } = Object.getOwnPropertyDescriptor(scope, name)!;
  const taken = (one: unknown) => put(scope, name, one);
  Object.defineProperty(scope, name, {
    get() {
      const made = make(get ? get.call(scope) : value);
      taken(made);
      return made;
    },
    set: taken,
    configurable: true,
    enumerable: false,
  });
}

/** To be called before the worker's code is loaded. */
export function withhold(scope: typeof globalThis, granted: Pick<Grants, 'time' | 'random'>): void {
  if (!granted.time) withholdTime(scope);
  if (!granted.random) withholdRandom(scope);
}

function withholdTime(scope: typeof globalThis): void {
  const refuse = (wanted: string): never => {
    throw new GrantMissing({ grant: 'time', wanted });
  };
  const Original = scope.Date;
  // A date that is given stays one.
  const Guarded = function (this: unknown, ...given: unknown[]) {
    if (!new.target) refuse('Date()');
    if (given.length === 0) refuse('new Date()');
    return Reflect.construct(Original, given, new.target as never);
  };
  for (const name of ['parse', 'UTC'] as const) put(Guarded, name, Original[name]);
  put(Guarded, 'name', 'Date');
  put(Guarded, 'now', () => refuse('Date.now()'));
  Object.defineProperty(Guarded, 'prototype', { value: Original.prototype, writable: false });
  put(Original.prototype, 'constructor', Guarded);
  put(scope, 'Date', Guarded);
  late(scope, 'performance', (original) => refusing('performance', original, refuse));
  const { Temporal } = scope as { Temporal?: { Now: object } };
  if (Temporal) put(Temporal, 'Now', refusing('Temporal.Now', Temporal.Now, refuse));
}

function withholdRandom(scope: typeof globalThis): void {
  const refuse = (wanted: string): never => {
    throw new GrantMissing({ grant: 'random', wanted });
  };
  put(scope.Math, 'random', () => refuse('Math.random()'));
  late(scope, 'crypto', (original) => {
    const crypto = refusing('crypto', original, refuse);
    const { subtle } = original as Crypto;
    const kept = refusing('crypto.subtle', subtle, refuse);
    // What is done with keys that are given: the entropy in padding and signatures is for no other use.
    for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(subtle)) as (keyof SubtleCrypto)[]) {
      const own = !/^(constructor|generateKey|encapsulate.*)$/.test(name) && subtle[name];
      if (typeof own === 'function') put(kept, name, own.bind(subtle));
    }
    put(crypto, 'subtle', kept);
    return crypto;
  });
}
