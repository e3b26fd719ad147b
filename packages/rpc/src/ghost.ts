/**
 * The ghost: a local stand-in for a remote object, a worker first of all. `ghost.method(…)` is a call; nothing else is.
 *
 * What always holds: inspecting, logging, awaiting, comparing, stringifying or enumerating a ghost makes no call and
 * throws nothing. A ghost is no thenable, so it passes through `await` and promises unharmed; only the pending ghost
 * that `clone()` returns at once can be awaited. This file and `promise.ts` hold the only proxies that users meet.
 */
import { SILENT } from './promise.ts';
import type { CallOptions } from './session.ts';

/** A value as it looks after its journey: functions call back, objects with methods are ghosts, data is data. */
export type Received<T> = 0 extends 1 & T ? any : ReceivedKnown<T>;
type ReceivedKnown<T> = T extends (...args: infer A) => infer R
  ? RemoteFunction<A, R>
  : T extends
        | string
        | number
        | boolean
        | bigint
        | null
        | undefined
        | Date
        | RegExp
        | Error
        | ArrayBuffer
        | ArrayBufferView
        | AsyncIterable<unknown>
        | AbortSignal
    ? T
    : T extends Map<infer K, infer V>
      ? Map<Received<K>, Received<V>>
      : T extends Set<infer V>
        ? Set<Received<V>>
        : T extends Generator<infer V>
          ? AsyncIterableIterator<Received<V>>
          : T extends object
            ? { [K in keyof T]: Received<T[K]> } & (HasMethods<T> extends true ? AsyncDisposable & Disposable : unknown)
            : T;
/** What has methods may be a ghost, to be let go of. Types do not tell it from plain data with functions in it. */
type HasMethods<T> = T extends readonly unknown[]
  ? false
  : { [K in keyof T & string]: T[K] extends (...args: any[]) => any ? true : never }[keyof T & string] extends never
    ? false
    : true;

/** A function of the other side. Let go of it with `using`, or it stays in both tables until the session ends. */
export type RemoteFunction<A extends unknown[], R> = ((...args: A) => Called<R>) & AsyncDisposable & Disposable;

/** Data without members that one would call on before it is there. */
type Flat =
  | string
  | number
  | boolean
  | bigint
  | symbol
  | null
  | undefined
  // biome-ignore lint/suspicious/noConfusingVoidType: a method that returns nothing.
  | void
  | readonly unknown[]
  | ReadonlyMap<unknown, unknown>
  | ReadonlySet<unknown>
  | Date
  | ArrayBuffer
  | ArrayBufferView
  | AsyncIterable<unknown>;

/** The promise of a call: also what can be called on before it is there. */
export type Called<R> = 0 extends 1 & R ? Promise<any> & Record<string, any> : CalledKnown<Awaited<R>>;
type CalledKnown<T> = [T] extends [Flat] ? Promise<Received<T>> : Promise<Received<T>> & Pipelined<T>;
type Pipelined<T> = { readonly [K in Exclude<keyof T, keyof Promise<unknown> | symbol>]: PipelinedMember<T[K]> };
type PipelinedMember<T> = T extends (...args: infer A) => infer R
  ? (...args: A) => Called<R>
  : [T] extends [Flat]
    ? PromiseLike<Received<T>>
    : PromiseLike<Received<T>> & Pipelined<T>;

/** The methods of T as they look from afar: each returns a promise. */
export type Ghost<T> = {
  readonly [K in keyof T as K extends string
    ? T[K] extends (...args: any[]) => any
      ? K
      : never
    : never]: T[K] extends (...args: infer A) => infer R ? (...args: A) => Called<R> : never;
} & AsyncDisposable &
  Disposable;

/** What `clone()` returns at once: call it (the calls wait for the worker) or await it (to the ghost). */
export type PendingGhost<T> = Ghost<T> & PromiseLike<Ghost<T>> & Pick<Promise<Ghost<T>>, 'catch' | 'finally'>;

/** What stands behind a ghost. */
export interface GhostSource {
  /** For people: what inspecting shows. */
  label: string;
  call(method: string, args: unknown[], options?: CallOptions): Promise<unknown>;
  dispose(): Promise<void>;
  /** Present while the worker is being provisioned: what awaiting waits for. */
  readonly ready?: Promise<unknown> | undefined;
}

/** The proxies' target: its class gives inspectors something true to print. */
class GhostTarget {
  worker: string;
  constructor(label: string) {
    this.worker = label;
  }
}
Object.defineProperty(GhostTarget, 'name', { value: 'Ghost' });

const sources = new WeakMap<object, GhostSource>();

const PROMISE = new Set(['then', 'catch', 'finally']);

function make(source: GhostSource, options?: CallOptions): object {
  const target = new GhostTarget(source.label);
  const methods = new Map<string, unknown>();
  // A pending ghost learns its worker's name when it is born.
  source.ready?.then(
    () => {
      target.worker = source.label;
    },
    () => {},
  );
  const dispose = () => source.dispose();
  const silent = () => `[Ghost ${source.label}]`;
  const proxy: object = new Proxy(target, {
    get(_, key) {
      if (typeof key === 'symbol') {
        if (key === Symbol.asyncDispose) return dispose;
        if (key === Symbol.dispose) return () => void dispose().catch(() => {});
        if (key === Symbol.toStringTag) return 'Ghost';
        if (key === Symbol.toPrimitive) return silent;
        return undefined;
      }
      if (PROMISE.has(key)) {
        const ready = source.ready as any;
        return ready ? ready[key].bind(ready) : undefined;
      }
      if (key === 'toString' || key === 'toJSON' || key === 'toLocaleString') return silent;
      if (key === 'valueOf') return () => proxy;
      if (SILENT.has(key)) return key === 'constructor' ? GhostTarget : undefined;
      let method = methods.get(key);
      if (method === undefined) {
        method = (...args: unknown[]) => source.call(key, args, options);
        methods.set(key, method);
      }
      return method;
    },
    has: (_, key) => key === Symbol.asyncDispose || key === Symbol.dispose,
    set: (_, key) => {
      throw new TypeError(
        `A ghost has no properties to set: [Ghost ${source.label}].${String(key)}. Call a method of the worker`,
      );
    },
    defineProperty: () => false,
    deleteProperty: () => false,
    setPrototypeOf: () => false,
  });
  sources.set(proxy, source);
  return proxy;
}

/** Makes a ghost of the given source. */
export function ghost<T>(source: GhostSource): Ghost<T> {
  return make(source) as Ghost<T>;
}

/** Makes a ghost that can also be awaited; `source.ready` must be there. */
export function pendingGhost<T>(source: GhostSource & { ready: Promise<Ghost<T>> }): PendingGhost<T> {
  return make(source) as PendingGhost<T>;
}

/** Says what stands behind a function of the other side: `source.call('rpc.apply', …)` calls it. */
export function standsFor<F extends object>(fn: F, source: GhostSource): F {
  sources.set(fn, source);
  return fn;
}

/** The source behind a function of the other side, or undefined for anything else. Makes no call. */
export function functionSource(thing: unknown): GhostSource | undefined {
  return typeof thing === 'function' ? sources.get(thing) : undefined;
}

/** The source behind a ghost, or undefined for anything else. Makes no call. */
export function sourceOf(thing: unknown): GhostSource | undefined {
  return typeof thing === 'object' && thing !== null ? sources.get(thing) : undefined;
}

/**
 * The same worker, with other call options: `withOptions(scout, { timeout_ms: 500 }).look()`; `Infinity` is no deadline.
 * Throws TypeError for what is no ghost, no number of milliseconds or no signal.
 */
export function withOptions<G extends object>(thing: G, options: CallOptions): G {
  const source = sourceOf(thing);
  if (!source) throw new TypeError('withOptions() takes a ghost');
  for (const name of ['timeout_ms', 'kill_after_ms'] as const) {
    const ms: unknown = options[name];
    if (ms !== undefined && !(typeof ms === 'number' && ms >= 0))
      throw new TypeError(`withOptions(): ${name} must be 0 ms or more, not ${String(ms)}`);
  }
  const { signal } = options;
  if (signal !== undefined && typeof signal?.addEventListener !== 'function')
    throw new TypeError(`withOptions(): signal must be the one of an AbortController, not ${typeof signal}`);
  return make(source, options) as G;
}
