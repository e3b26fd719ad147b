/** Both sides of a session as objects, for this system's own parts. Apart from it, because pages have ghosts instead. */
import { NoSuchMethod } from '@hauki/protocol';
import type { CallOptions, Dispatch, Session } from './session.ts';

/**
 * A dispatch that calls the named methods of an object and nothing else. Positional parameters are spread, named ones
 * come as one object.
 */
export function serve<T extends object>(target: T, methods: readonly (keyof T & string)[]): Dispatch {
  const allowed = new Set<string>(methods);
  return (method, params) => {
    if (!allowed.has(method)) throw new NoSuchMethod({ method, has: [...allowed] });
    return (target as any)[method](...(Array.isArray(params) ? params : [params]));
  };
}

/** The other side of a session as an object of the given interface. Internal use: users get ghosts. */
export function remote<T extends object>(session: Session, options?: CallOptions): T {
  return new Proxy({} as T, {
    get: (_, method) =>
      typeof method === 'string' && method !== 'then'
        ? (...params: unknown[]) => session.call(method, params, options)
        : undefined,
  });
}
