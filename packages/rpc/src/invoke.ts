/**
 * From a reference and a path to what is called: the only way in which a peer reaches into this side's objects.
 *
 * What always holds: a path goes through own data properties of plain values, and through results, never through a
 * prototype; of an object that went out by reference only its own class's methods can be called (`methods.ts`); of a
 * function nothing but itself.
 */
import { NoSuchMethod, Unserialisable } from '@hauki/protocol';
import { functionSource, type GhostSource, sourceOf } from './ghost.ts';
import { methodsOf } from './methods.ts';
import type { CallOptions } from './session.ts';

/** Names that a path may have, and characters of each. */
const PATH = { names: 32, chars: 256 };

export function checkedPath(path: unknown): string[] {
  if (path === undefined) return [];
  const fits = (name: unknown) => typeof name === 'string' && name.length <= PATH.chars;
  if (Array.isArray(path) && path.length <= PATH.names && path.every(fits)) return path;
  throw new NoSuchMethod({ method: '?' }, 'A path is a short list of names');
}

/** A property on the way: an own one of a plain value; undefined where there is none, as in the language. */
export function step(value: unknown, name: string): unknown {
  if (typeof value === 'string' || Array.isArray(value)) {
    if (name === 'length') return value.length;
  }
  if (typeof value !== 'object' || value === null) throw new NoSuchMethod({ method: name, has: [] });
  const shape = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && shape !== Object.prototype && shape !== null)
    throw new NoSuchMethod(
      { method: name },
      `${name} cannot be read from afar: it belongs to an object that stays where it is; call a method`,
    );
  const own = Object.getOwnPropertyDescriptor(value, name);
  return own && 'value' in own ? own.value : undefined;
}

/** Reads what lies at the end of a path. */
export function read(target: unknown, path: string[]): unknown {
  if (path.length > 0 && sourceOf(target))
    throw new Unserialisable({ why: `${path[0]} is a property of a remote object; call a method` });
  return path.reduce(step, target);
}

/** Calls what lies at the end of a path: a function by itself (`method` is undefined), or a method of an object. */
export function invoke(
  target: unknown,
  path: string[],
  method: string | undefined,
  args: unknown[],
  options: CallOptions | undefined,
): unknown {
  const object = read(target, path);
  if (method === undefined) {
    if (typeof object !== 'function') throw new NoSuchMethod({ method: path.at(-1) ?? 'it', has: [] });
    return apply(object, undefined, args, options);
  }
  const source = sourceOf(object);
  if (source) return passOn(source, method, args, options);
  const found = typeof object === 'object' && object !== null ? methodsOf(object).get(method) : undefined;
  if (!found) throw new NoSuchMethod({ method });
  return apply(found, object, args, options);
}

function apply(fn: object, self: unknown, args: unknown[], options: CallOptions | undefined): unknown {
  const source = functionSource(fn);
  return source ? passOn(source, 'rpc.apply', args, options) : Reflect.apply(fn as () => unknown, self, args);
}

/** What was passed on by its holder: it calls for the third party, with that one's signal, deadline and trace. */
function passOn(source: GhostSource, method: string, args: unknown[], options: CallOptions | undefined): unknown {
  if (!options) return source.call(method, args);
  const { signal, timeout_ms, traceparent, passing } = options;
  return source.call(method, args, {
    ...(passing && { passing }),
    ...(signal && { signal }),
    ...(timeout_ms !== undefined && { timeout_ms }),
    ...(traceparent !== undefined && { traceparent }),
  });
}
