/**
 * What irc-framework's build for browsers takes for granted and a vault may not have. To be imported before it.
 */
const scope = globalThis as Record<string, unknown>;
scope.self ??= globalThis;
scope.process ??= {
  env: {},
  nextTick: (run: (...args: unknown[]) => void, ...args: unknown[]) => queueMicrotask(() => run(...args)),
};
