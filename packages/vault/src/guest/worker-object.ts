/**
 * From a module to a worker: which of its functions callers may call. A worker is a default-exported class, or exported
 * functions; nothing that was not written as a method is ever reachable (no prototype of the language, no getter runs).
 * Names that begin with `_` stay private; `onEnd(reason)` is the end hook.
 */
import { NoSuchMethod, SourceRejected } from '@hauki/protocol';
import { isClass, methodsOf } from '@hauki/rpc';

export interface WorkerObject {
  readonly methods: string[];
  /** The class's instance, or the module. */
  readonly self: object;
  call(method: string, params: unknown): unknown;
  end(reason: string): Promise<void>;
}

const END_HOOK = 'onEnd';

/** Instantiates the module's worker. Throws SourceRejected when it has none; what a constructor throws passes through. */
export function workerObject(module: Record<string, unknown>, context: object): WorkerObject {
  const made = isClass(module.default);
  const self = made ? new (module.default as new (context: object) => object)(context) : module;
  const all = made
    ? methodsOf(self)
    : new Map(Object.entries(module).filter((e) => typeof e[1] === 'function') as never);
  const hook = all.get(END_HOOK) as ((reason: string) => unknown) | undefined;
  const callable = new Map<string, (...args: unknown[]) => unknown>();
  for (const [name, value] of all as Map<string, (...args: unknown[]) => unknown>)
    if (name !== END_HOOK && !name.startsWith('_') && !name.startsWith('rpc.') && !isClass(value))
      callable.set(name, value);
  if (callable.size === 0) {
    const names = Object.keys(module);
    const lost = typeof module.default === 'object' ? ', which is an object: export its functions each by name' : '';
    throw new SourceRejected({
      stage: 'exports',
      reason: `a worker is a default-exported class with methods, or exported functions; this module ${made ? 'exports a class without public methods' : names.length > 0 ? `exports only ${names.join(', ')}${lost}` : 'exports nothing'}`,
    });
  }
  const methods = [...callable.keys()];
  const receiver = made ? self : undefined;
  return {
    methods,
    self,
    call(method, params) {
      const target = callable.get(method);
      if (!target) throw new NoSuchMethod({ method, has: methods });
      return Reflect.apply(target, receiver, Array.isArray(params) ? params : [params]);
    },
    async end(reason) {
      if (hook) await Reflect.apply(hook, receiver, [reason]);
    },
  };
}
