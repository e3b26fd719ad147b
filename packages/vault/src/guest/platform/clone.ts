/** `structuredClone` (HTML standard, 2.7): the values that the language has. */

type Seen = Map<object, object>;

const refuse = (what: string): never => {
  throw new DOMException(`${what} could not be cloned.`, 'DataCloneError');
};
const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
/** What an object is, whatever its prototype says: methods of the language that throw for any other. */
const brand = (value: object, probe: (value: any) => unknown): boolean => {
  try {
    probe(value);
    return true;
  } catch {
    return false;
  }
};
const getter = (prototype: object, name: string) => {
  const { get } = Object.getOwnPropertyDescriptor(prototype, name)!;
  return (value: unknown) => get!.call(value);
};
const mapSize = getter(Map.prototype, 'size');
const setSize = getter(Set.prototype, 'size');
const bufferLength = getter(ArrayBuffer.prototype, 'byteLength');

function cloned(value: unknown, seen: Seen): unknown {
  if (typeof value === 'symbol') return refuse(String(value));
  if (typeof value === 'function') return refuse(`${value.name || 'a function'}()`);
  if (typeof value !== 'object' || value === null) return value;
  const known = seen.get(value);
  if (known) return known;
  const keep = <T extends object>(made: T): T => {
    seen.set(value, made);
    return made;
  };
  const members = (made: object) => {
    for (const key of Object.keys(value)) {
      const member = cloned((value as Record<string, unknown>)[key], seen);
      Object.defineProperty(made, key, { value: member, writable: true, enumerable: true, configurable: true });
    }
    return made;
  };
  if (Array.isArray(value)) return members(keep(new Array(value.length)));
  if (value instanceof Date && brand(value, (v) => Date.prototype.getTime.call(v)))
    return keep(new Date(Date.prototype.getTime.call(value)));
  if (brand(value, mapSize)) {
    const made = keep(new Map());
    for (const [key, member] of [...Map.prototype.entries.call(value)])
      made.set(cloned(key, seen), cloned(member, seen));
    return made;
  }
  if (brand(value, setSize)) {
    const made = keep(new Set());
    for (const member of [...Set.prototype.values.call(value)]) made.add(cloned(member, seen));
    return made;
  }
  if (brand(value, bufferLength)) return keep(ArrayBuffer.prototype.slice.call(value, 0));
  if (ArrayBuffer.isView(value)) {
    const buffer = cloned(value.buffer, seen) as ArrayBuffer;
    const { byteOffset: at } = value;
    if (value instanceof DataView) return keep(new DataView(buffer, at, value.byteLength));
    const Kind = value.constructor as Uint8ArrayConstructor;
    return keep(new Kind(buffer, at, (value as Uint8Array).length));
  }
  if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
  if (value instanceof Error) {
    const Kind = ERRORS[value.name as keyof typeof ERRORS] ?? Error;
    const made = keep(new Kind(String(value.message)));
    const parts = { stack: value.stack, ...('cause' in value ? { cause: cloned(value.cause, seen) } : {}) };
    for (const [key, part] of Object.entries(parts))
      Object.defineProperty(made, key, { value: part, writable: true, configurable: true });
    return made;
  }
  if (value instanceof Symbol) return refuse(`Object(${String(value.valueOf())})`);
  if (value instanceof Boolean || value instanceof Number || value instanceof String || value instanceof BigInt)
    return keep(Object(value.valueOf()));
  if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet || value instanceof WeakRef)
    return refuse(`#<${value.constructor.name}>`);
  return members(keep({}));
}

/** A deep copy. Buffers in `transfer` are emptied, as if they had been moved. */
export function structuredClone<T>(value: T, options: { transfer?: Iterable<ArrayBuffer> } = {}): T {
  const seen: Seen = new Map();
  const moved = new Set(options?.transfer ?? []);
  for (const buffer of moved) if (!(buffer instanceof ArrayBuffer)) refuse('what is to be transferred');
  const made = cloned(value, seen) as T;
  for (const buffer of moved) (buffer as ArrayBuffer & { transfer(): ArrayBuffer }).transfer();
  return made;
}
