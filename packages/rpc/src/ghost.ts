/**
 * The ghost: a local stand-in for a remote worker. `ghost.method(…)` is a call; nothing else is.
 *
 * What always holds: inspecting, logging, awaiting, comparing, stringifying or enumerating a ghost makes no call and
 * throws nothing. A ghost is no thenable, so it passes through `await` and promises unharmed; only the pending ghost
 * that `clone()` returns at once can be awaited. This file holds the only `new Proxy` that users meet.
 */
import type { CallOptions } from './session.ts';

/** The methods of T as they look from afar: each returns a promise. */
export type Ghost<T> = {
  readonly [K in keyof T as K extends string
    ? T[K] extends (...args: any[]) => any
      ? K
      : never
    : never]: T[K] extends (...args: infer A) => infer R ? (...args: A) => Promise<Awaited<R>> : never;
} & AsyncDisposable;

/** What `clone()` returns at once: call it (the calls wait for the worker) or await it (to the ghost). */
export type PendingGhost<T> = Ghost<T> & PromiseLike<Ghost<T>> & Pick<Promise<Ghost<T>>, 'catch' | 'finally'>;

/** What stands behind a ghost. */
export interface GhostSource {
  /** For people: what inspecting shows. */
  label: string;
  call(method: string, args: unknown[], options?: CallOptions): Promise<unknown>;
  dispose(): Promise<void>;
  /** Present while the worker is being provisioned: what awaiting waits for. */
  readonly ready?: Promise<unknown>;
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

/** Names that the language or its tools look up on any object: never calls. */
const SILENT = new Set(['constructor', 'prototype', '__proto__', 'inspect', 'asymmetricMatch', 'nodeType', '$$typeof']);
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
    has: (_, key) => key === Symbol.asyncDispose,
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

/** The source behind a ghost, or undefined for anything else. Makes no call. */
export function sourceOf(thing: unknown): GhostSource | undefined {
  return typeof thing === 'object' && thing !== null ? sources.get(thing) : undefined;
}

/** The same worker, with other call options: `withOptions(scout, { timeout_ms: 500 }).look()`. */
export function withOptions<G extends object>(thing: G, options: CallOptions): G {
  const source = sourceOf(thing);
  if (!source) throw new TypeError('withOptions() takes a ghost');
  return make(source, options) as G;
}
