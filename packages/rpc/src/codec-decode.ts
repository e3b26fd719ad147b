/**
 * Decoding of tagged values, which a stranger may have written: whatever is not well formed is a ProtocolViolation;
 * work and memory are bounded by the size of the message. What JSON.parse made is changed in place and handed on.
 */
import { fromWire, LIMITS, ProtocolViolation, Unserialisable } from '@hauki/protocol';
import { BYTES_PER_ELEMENT, ERROR_MEMBERS, type Refs } from './codec.ts';

type Node = Record<string, unknown>;

const NUMBERS: Record<string, number> = {
  __proto__: null as never,
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  '-Infinity': Number.NEGATIVE_INFINITY,
  '-0': -0,
};

/** Errors that arrive as instances of their class; AggregateError and DOMException are made apart. */
const ERRORS: Record<string, new (message: string) => Error> = {
  __proto__: null as never,
  Error,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

/**
 * Revives a parsed TAGGED value, in place. `bytes` are the message's attachments. Throws ProtocolViolation for whatever
 * is not well formed, and what `refs.take` throws.
 */
export function decodeValue(parsed: unknown, bytes: Uint8Array, refs: Refs): unknown {
  if (typeof parsed !== 'object' || parsed === null) return parsed;
  try {
    return new Decoder(bytes, refs).value(parsed as Node, 0);
  } catch (error) {
    // The end of the stack, or of the memory for bytes: RangeError in most engines.
    if (error instanceof RangeError || (error as Error).name === 'InternalError')
      return bad('a value too deep or too large for this platform');
    throw error;
  }
}

function bad(why: string): never {
  throw new ProtocolViolation({ why });
}

const isNode = (value: unknown): value is Node => typeof value === 'object' && value !== null && !Array.isArray(value);

const isTag = (node: Node): boolean => {
  if (node.$ === undefined) return false;
  const keys = Object.keys(node);
  return keys.length === 1 && keys[0] === '$';
};

/** Sets an own property, also one called `__proto__`. */
function put(object: object, key: string, value: unknown): void {
  if (key === '__proto__')
    Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
  else (object as Node)[key] = value;
}

/** Sets an own property that does not show, as `message` is on errors. */
const hide = (object: object, key: string, value: unknown) =>
  Object.defineProperty(object, key, { value, writable: true, enumerable: false, configurable: true });

class Decoder {
  readonly #bytes: Uint8Array;
  readonly #refs: Refs;
  #labels: Map<number, object> | undefined;
  /** Attached bytes handed out so far: no byte is there twice, or a short message could fill the memory. */
  #taken = 0;

  constructor(bytes: Uint8Array, refs: Refs) {
    this.#bytes = bytes;
    this.#refs = refs;
  }

  /** `label`: the label under which the object is known, set before its members are read. */
  value(node: Node | unknown[], depth: number, label?: number): unknown {
    if (Array.isArray(node)) {
      this.#known(node, depth, label);
      for (let i = 0; i < node.length; i++) {
        const item = node[i];
        if (typeof item !== 'object' || item === null) continue;
        if (isNode(item) && isTag(item) && Array.isArray(item.$) && item.$[0] === 'hole' && item.$.length === 1)
          delete node[i];
        else node[i] = this.value(item as Node, depth + 1);
      }
      return node;
    }
    if (isTag(node)) return this.#tag(node.$, depth, label);
    this.#known(node, depth, label);
    return this.#members(node, node, depth);
  }

  #known<T extends object>(object: T, depth: number, label: number | undefined): T {
    if (depth >= LIMITS.depth) bad(`a value nested deeper than ${LIMITS.depth}`);
    if (label !== undefined) this.#labels!.set(label, object);
    return object;
  }

  #members(from: Node, into: object, depth: number): object {
    for (const key of Object.keys(from)) {
      const member = from[key];
      if (typeof member === 'object' && member !== null) put(into, key, this.value(member as Node, depth + 1));
      else if (from !== into) put(into, key, member);
    }
    return into;
  }

  #any(member: unknown, depth: number): unknown {
    return typeof member === 'object' && member !== null ? this.value(member as Node, depth) : member;
  }

  #tag(tag: unknown, depth: number, label: number | undefined): unknown {
    if (!Array.isArray(tag) || typeof tag[0] !== 'string') bad('a tag that is not a list beginning with its kind');
    const [kind, first, second] = tag as [string, unknown, unknown];
    const arity = ARITY[kind];
    if (arity === undefined) bad(`a tag of unknown kind ${JSON.stringify(kind.slice(0, 40))}`);
    if (arity !== -1 && tag.length !== arity + 1)
      bad(`a tag "${kind}" with ${tag.length - 1} items instead of ${arity}`);
    switch (kind) {
      case 'undefined':
        return undefined;
      case 'number':
        if (typeof first !== 'string' || !(first in NUMBERS)) bad('a tag "number" with an unknown name');
        return NUMBERS[first];
      case 'bigint':
        if (typeof first !== 'string' || first.length > LIMITS.bigint_digits + 1 || !/^(?:0|-?[1-9]\d*)$/.test(first))
          bad('a tag "bigint" without a decimal number of bearable length');
        return BigInt(first);
      case 'date':
        if (first !== null && !(Number.isInteger(first) && Math.abs(first as number) <= 8.64e15))
          bad('a tag "date" without milliseconds');
        return this.#known(new Date(first === null ? Number.NaN : (first as number)), depth, label);
      case 'regexp':
        return this.#known(regexp(first, second), depth, label);
      case 'boxed': {
        const primitive = this.#any(first, depth + 1);
        if (!['number', 'string', 'boolean', 'bigint'].includes(typeof primitive))
          bad('a tag "boxed" without a primitive');
        return this.#known(Object(primitive) as object, depth, label);
      }
      case 'map':
        return this.#map(first, depth, label);
      case 'set': {
        if (!Array.isArray(first)) bad('a tag "set" without a list');
        const set = this.#known(new Set(), depth, label);
        for (const item of first) set.add(this.#any(item, depth + 1));
        return set;
      }
      case 'bytes':
        return this.#known(this.#slice(first, second, tag[3]), depth, label);
      case 'error':
        return this.#error(first, depth, label);
      case 'object':
        if (!isNode(first)) bad('a tag "object" without an object');
        this.#known(first, depth, label);
        return this.#members(first, first, depth);
      case 'def':
        if (label !== undefined) bad('a label on a label');
        return this.#define(first, second, depth);
      case 'ref': {
        const object = typeof first === 'number' ? this.#labels?.get(first) : undefined;
        return object ?? bad('a reference to a label that is not there');
      }
      case 'hole':
        return bad('a hole outside of a list');
      default:
        return this.#refs.take(tag);
    }
  }

  #define(label: unknown, node: unknown, depth: number): unknown {
    if (!Number.isSafeInteger(label) || (label as number) < 0) bad('a label that is not a number');
    this.#labels ??= new Map();
    if (this.#labels.has(label as number)) bad(`the label ${label} twice`);
    const object = typeof node === 'object' && node !== null && this.value(node as Node, depth, label as number);
    if (!object || this.#labels.get(label as number) !== object) bad('a label on something that has no identity');
    return object;
  }

  #map(pairs: unknown, depth: number, label: number | undefined): unknown {
    if (!Array.isArray(pairs)) bad('a tag "map" without a list');
    const map = this.#known(new Map(), depth, label);
    for (const pair of pairs) {
      if (!Array.isArray(pair) || pair.length !== 2) bad('a tag "map" with an item that is no pair');
      const key = this.#any(pair[0], depth + 1);
      map.set(key, this.#any(pair[1], depth + 1));
    }
    return map;
  }

  #slice(type: unknown, offset: unknown, length: unknown): object {
    const size = typeof type === 'string' ? BYTES_PER_ELEMENT[type] : undefined;
    if (size === undefined) bad('a tag "bytes" of unknown type');
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length)) bad('a tag "bytes" without numbers');
    const from = offset as number;
    const count = length as number;
    if (from < 0 || count < 0 || from + count > this.#bytes.length) bad('a tag "bytes" outside of the attachments');
    if (count % size !== 0) bad(`a tag "bytes" that cuts an element of ${type}`);
    this.#taken += count;
    if (this.#taken > this.#bytes.length) bad('tags "bytes" that overlap');
    // A plain view first: a Buffer's slice would share its memory.
    const all = new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset + from, count);
    const own = all.slice();
    if (type === 'Uint8Array') return own;
    if (type === 'ArrayBuffer') return own.buffer;
    const made = (globalThis as any)[type as string];
    if (typeof made !== 'function') throw new Unserialisable({ why: `this platform has no ${type}` });
    return new made(own.buffer);
  }

  #error(body: unknown, depth: number, label: number | undefined): Error {
    if (!isNode(body)) bad('a tag "error" without an object');
    const own = (key: string) => (Object.hasOwn(body, key) ? body[key] : undefined);
    const name = own('name');
    const message = own('message');
    const stack = own('stack');
    if (typeof name !== 'string' || typeof message !== 'string') bad('an error without name and message');
    if (stack !== undefined && !(typeof stack === 'string' && stack.length <= LIMITS.stack_chars))
      bad('an error whose stack is no text, or too long');
    if (Object.hasOwn(body, 'wire')) return this.#meshError(body.wire, depth, label);
    const error = this.#known(make(name, message), depth, label);
    hide(error, 'stack', stack ?? `${name}: ${message}`);
    // In the order of the text: a label stands where its object occurs first.
    for (const key of Object.keys(body)) {
      const member = body[key];
      if (key === 'cause') hide(error, key, this.#any(member, depth + 1));
      else if (key === 'errors') {
        const errors = this.#any(member, depth + 1);
        if (!Array.isArray(errors)) bad('an error whose errors are no list');
        hide(error, key, errors);
      } else if (key === 'props') {
        if (!isNode(member)) bad('an error whose properties are no object');
        for (const prop of Object.keys(member)) {
          if (ERROR_MEMBERS.has(prop)) bad(`an error with the property ${prop}, which has its own place`);
          const value = this.#any(member[prop], depth + 1);
          Object.defineProperty(error, prop, { value, writable: true, enumerable: true, configurable: true });
        }
      }
    }
    return error;
  }

  /** An error of the table: first made of its words, then given its fields, which may hold the error itself. */
  #meshError(wire: unknown, depth: number, label: number | undefined): Error {
    if (!isNode(wire) || !isNode(wire.data) || !isNode(wire.data.fields)) bad('an error of the table without fields');
    const { fields, ...data } = wire.data as Node & { fields: Node };
    const { remote_stack } = fields;
    if (remote_stack !== undefined && !(typeof remote_stack === 'string' && remote_stack.length <= LIMITS.stack_chars))
      bad('an error whose stack is no text, or too long');
    const error = this.#known(fromWire({ ...wire, data: { ...data, fields } }), depth, label);
    this.#members(fields, fields, depth + 1);
    return error;
  }
}

/** How many items follow the kind; −1: the session knows. */
const ARITY: Record<string, number> = {
  __proto__: null as never,
  undefined: 0,
  number: 1,
  bigint: 1,
  date: 1,
  regexp: 2,
  hole: 0,
  boxed: 1,
  map: 1,
  set: 1,
  bytes: 3,
  error: 1,
  object: 1,
  def: 2,
  ref: 1,
  mine: -1,
  yours: -1,
  result: -1,
};

function regexp(source: unknown, flags: unknown): RegExp {
  if (typeof source !== 'string' || typeof flags !== 'string') bad('a tag "regexp" without texts');
  if (source.length > LIMITS.regexp_chars || flags.length > 16) bad('a regular expression that is too long');
  try {
    return new RegExp(source, flags);
  } catch {
    return bad('a regular expression that is none');
  }
}

function make(name: string, message: string): Error {
  const known = ERRORS[name];
  if (known) return new known(message);
  if (name === 'AggregateError') return new AggregateError([], message);
  if ((name === 'AbortError' || name === 'TimeoutError') && typeof DOMException === 'function')
    return new DOMException(message, name);
  const error = new Error(message);
  hide(error, 'name', name);
  return error;
}
