/**
 * What a remote call gives at once: a promise that can also be called on, so that calls which depend on each other leave
 * together (`ghost.a().b(1).c` takes one round trip).
 *
 * What always holds: `then`, `catch`, `finally` and `await` see an ordinary promise; any other name begins a pipelined
 * call or read. A promise that was only called on and never looked at rejects nobody.
 */
import { reaching } from '#rest';
import type { CallOptions } from './session.ts';

/** What stands behind such a promise. */
export interface PipelineSource {
  readonly promise: Promise<unknown>;
  /**
   * Calls `path` of the result: its last name is the method, an empty path calls the result itself. Without `args` reads.
   * Without `options` those of the call before hold, its time from when this one is made.
   */
  reach(path: string[], args?: unknown[], options?: CallOptions): Promise<unknown>;
  /** Somebody waits for the result. */
  observed(): void;
}

/** Names that the language or its tools look up on any object: they begin no call. */
export const SILENT = new Set([
  'constructor',
  'prototype',
  '__proto__',
  'inspect',
  'asymmetricMatch',
  'nodeType',
  '$$typeof',
  'toJSON',
  'toString',
  'valueOf',
]);

const promiseThen = Promise.prototype.then;

interface Begun {
  source: PipelineSource;
  path: string[];
}
/** Paths that were begun and not called yet, so that they can be handed on as arguments. */
const begun = new WeakMap<object, Begun>();

export class RemotePromise<T> extends Promise<T> {
  readonly #source: PipelineSource;

  static override get [Symbol.species]() {
    return Promise;
  }

  constructor(
    run: (resolve: (value: T | PromiseLike<T>) => void, reject: (error: unknown) => void) => void,
    source: PipelineSource,
  ) {
    super(run);
    this.#source = source;
  }

  // biome-ignore lint/suspicious/noThenProperty: it is a promise, and must learn that somebody waits.
  override then<A = T, B = never>(
    met?: ((value: T) => A | PromiseLike<A>) | null,
    failed?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#source.observed();
    // Not by `super`, which would ask the proxy below at every await.
    return promiseThen.call(this, met, failed) as Promise<A | B>;
  }

  /** What stands behind a promise of a remote call, with the path begun on it; undefined for anything else. */
  static begunBy(thing: object): Begun | undefined {
    return #source in thing ? { source: thing.#source, path: [] } : begun.get(thing);
  }
}

// One proxy for all promises, at the end of their prototypes: only names that no promise has reach it.
Object.setPrototypeOf(
  RemotePromise.prototype,
  new Proxy(Promise.prototype, {
    get(target, key, receiver) {
      if (typeof key === 'symbol' || SILENT.has(key) || key in target) return Reflect.get(target, key, receiver);
      const known = RemotePromise.begunBy(receiver);
      return known ? place(known.source, [key]) : undefined;
    },
  }),
);

/** A path on a result that is not there yet: callable, and awaitable as a read. */
function place(source: PipelineSource, path: string[]): unknown {
  let value: any;
  const made: object = new Proxy(function pipelined() {}, {
    get(_, key) {
      if (typeof key === 'symbol' || SILENT.has(key)) return undefined;
      if (key === 'then' || key === 'catch' || key === 'finally') {
        // However often it is looked at, it is read once.
        value ??= source.reach(path);
        return value[key].bind(value);
      }
      return place(source, [...path, key]);
    },
    apply: (_, __, args) => source.reach(path, args),
    set: () => false,
    defineProperty: () => false,
    setPrototypeOf: () => false,
  });
  begun.set(made, { source, path });
  return made;
}

/** A promise that is not of a call, with the same pipelining: what is called on it happens when it is there. */
class Later implements PipelineSource {
  readonly promise: RemotePromise<unknown>;
  readonly #real: Promise<unknown>;
  readonly #options: CallOptions | undefined;
  #resolve!: (value: unknown) => void;
  #reject!: (error: unknown) => void;

  constructor(real: Promise<unknown>, options?: CallOptions) {
    this.#real = real;
    this.#options = options;
    this.promise = new RemotePromise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    }, this);
  }

  observed(): void {
    this.#real.then(this.#resolve, this.#reject);
  }

  reach(path: string[], args?: unknown[], options = this.#options): Promise<unknown> {
    return afterwards(this.#real, path, args, options);
  }
}

/** A promise that can be called on, for one that is not of a call: that of a refusal, or of what is done here later. */
export const pipelined = (real: Promise<unknown>, options?: CallOptions): Promise<unknown> =>
  new Later(real, options).promise;

/** Calls or reads `path` of a result that is waited for here: there is nothing left with which that could leave. */
export const afterwards = (
  real: Promise<unknown>,
  path: string[],
  args?: unknown[],
  options?: CallOptions,
): Promise<unknown> =>
  pipelined(
    real.then((value) =>
      reaching(({ invoke, read }) =>
        args ? invoke(value, path.slice(0, -1), path.at(-1), args, options) : read(value, path),
      ),
    ),
    options,
  );

/**
 * Whoever hears that a call is refused hears of what was given to it: promises of calls among its arguments, which
 * nobody else may be looking at, reject nobody.
 */
export function lookAt(args: unknown, seen = new Set<unknown>()): void {
  if (Object(args) !== args || seen.has(args)) return;
  seen.add(args);
  try {
    const known = RemotePromise.begunBy(args as object);
    if (known) known.source.promise.catch(() => {});
    else if (Array.isArray(args) || Object.getPrototypeOf(args) === Object.prototype)
      for (const each of Object.values(args as object)) lookAt(each, seen);
  } catch {
    // What cannot be read names no call.
  }
}
