/**
 * Decoding of tagged values, which a stranger may have written: whatever is not well formed is a ProtocolViolation;
 * work and memory are bounded by the size of the message. What JSON.parse made is changed in place and handed on.
 */
import { describe, fromWire, headed, MeshError, ProtocolViolation, Unserialisable } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { ERROR_MEMBERS, put, type Takes } from './codec.ts';

type Node = Record<string, unknown>;

/**
 * Revives a parsed TAGGED value, in place. `bytes` are the message's attachments. Throws ProtocolViolation for whatever
 * is not well formed, and what `refs.take` throws.
 */
export function decodeValue(parsed: unknown, bytes: Uint8Array, refs: Takes): unknown {
  try {
    return new Decoder(bytes, refs).read(parsed);
  } catch (error) {
    // What the platform makes no value of (a regular expression, half an element), and the end of its memory.
    throw error instanceof MeshError ? error : violation(`a value that is none: ${describe(error).slice(0, 100)}`);
  }
}

const violation = (why: string) => new ProtocolViolation({ why });

const isNode = (value: unknown): value is Node => typeof value === 'object' && value !== null && !Array.isArray(value);

const NUMBERS = ['NaN', 'Infinity', '-Infinity', '-0'];
const BYTES =
  /^(ArrayBuffer|DataView|(Int|Uint)(8|16|32)Array|Uint8ClampedArray|Float(16|32|64)Array|Big(Int|Uint)64Array)$/;

/** How many items follow the kind of a tag. */
const ITEMS: Readonly<Record<string, number>> = {
  __proto__: null as never,
  undefined: 0,
  number: 1,
  bigint: 1,
  date: 1,
  regexp: 2,
  boxed: 1,
  map: 1,
  set: 1,
  bytes: 3,
  error: 1,
  object: 1,
  def: 2,
  ref: 1,
};

class Decoder {
  readonly #bytes: Uint8Array;
  readonly #refs: Takes;
  readonly #labels = new Map<unknown, object>();
  /** The label of the next object that begins. */
  #label: unknown;
  #depth = 0;
  /** Attached bytes handed out so far: no byte is there twice, or a short message could fill the memory. */
  #taken = 0;

  constructor(bytes: Uint8Array, refs: Takes) {
    this.#bytes = bytes;
    this.#refs = refs;
  }

  read(node: unknown): unknown {
    if (typeof node !== 'object' || node === null) return node;
    if (Array.isArray(node)) return this.#items(this.#begin(node));
    const keys = Object.keys(node);
    return keys.length === 1 && keys[0] === '$'
      ? this.#tag((node as Node).$)
      : this.#members(this.#begin(node as Node));
  }

  /** Labels an object, before its members are read. */
  #begin<T extends object>(object: T): T {
    if (this.#label !== undefined) this.#labels.set(this.#label, object);
    this.#label = undefined;
    return object;
  }

  /** Reads what is a level deeper. */
  #inner(node: unknown): unknown {
    if (++this.#depth > LIMITS.depth) throw violation(`a value nested deeper than ${LIMITS.depth}`);
    const value = this.read(node);
    this.#depth--;
    return value;
  }

  #items(array: unknown[]): unknown[] {
    for (const [i, item] of array.entries())
      if (isNode(item) && Array.isArray(item.$) && item.$[0] === 'hole' && item.$.length === 1) delete array[i];
      else array[i] = this.#inner(item);
    return array;
  }

  #members<T extends object>(from: Node, into: T = from as never, enumerable = true): T {
    for (const key of Object.keys(from)) put(into, key, this.#inner(from[key]), enumerable);
    return into;
  }

  #tag(tag: unknown): unknown {
    const [kind, first, second, third] = Array.isArray(tag) ? tag : [];
    const be = (well_formed: boolean) => {
      if (!well_formed) throw violation(`a tag "${String(kind).slice(0, 40)}" that is not well formed`);
    };
    if (kind === 'mine' || kind === 'yours' || kind === 'result') return this.#refs.take(tag as unknown[]);
    be(typeof kind === 'string' && ITEMS[kind] === (tag as unknown[]).length - 1);
    switch (kind) {
      case 'undefined':
        return undefined;
      case 'number':
        be(NUMBERS.includes(first));
        return Number(first);
      case 'bigint':
        be(typeof first === 'string' && first.length <= LIMITS.bigint_digits + 1 && /^(0|-?[1-9]\d*)$/.test(first));
        return BigInt(first);
      case 'date':
        be(first === null || (Number.isInteger(first) && Math.abs(first) <= 8.64e15));
        return this.#begin(new Date(first ?? Number.NaN));
      case 'regexp':
        be(typeof first === 'string' && typeof second === 'string' && first.length <= LIMITS.regexp_chars);
        return this.#begin(new RegExp(first, second));
      case 'boxed': {
        const primitive = this.#inner(first);
        be(['number', 'string', 'boolean', 'bigint'].includes(typeof primitive));
        return this.#begin(Object(primitive));
      }
      case 'map': {
        be(Array.isArray(first));
        const map = this.#begin(new Map());
        for (const pair of first) {
          be(Array.isArray(pair) && pair.length === 2);
          const key = this.#inner(pair[0]);
          map.set(key, this.#inner(pair[1]));
        }
        return map;
      }
      case 'set': {
        be(Array.isArray(first));
        const set = this.#begin(new Set());
        for (const item of first) set.add(this.#inner(item));
        return set;
      }
      case 'bytes':
        be(
          typeof first === 'string' &&
            BYTES.test(first) &&
            Number.isSafeInteger(second) &&
            Number.isSafeInteger(third) &&
            second >= 0,
        );
        this.#taken += third;
        be(third >= 0 && second + third <= this.#bytes.length && this.#taken <= this.#bytes.length);
        return this.#begin(this.#slice(first, second, third));
      case 'error':
        be(isNode(first));
        return this.#error(first, be);
      case 'object':
        be(isNode(first));
        return this.#members(this.#begin(first));
      case 'def': {
        be(Number.isSafeInteger(first) && first >= 0 && this.#label === undefined && !this.#labels.has(first));
        this.#label = first;
        const object = this.read(second);
        be(object !== undefined && this.#labels.get(first) === object);
        return object;
      }
      default:
        be(this.#labels.has(first));
        return this.#labels.get(first);
    }
  }

  #slice(type: string, offset: number, length: number): object {
    // A plain view first: a Buffer's slice would share its memory.
    const own = new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset + offset, length).slice();
    if (type === 'ArrayBuffer') return own.buffer;
    const made = (globalThis as any)[type];
    if (!made) throw new Unserialisable({ why: `this platform has no ${type}` });
    return new made(own.buffer);
  }

  #error(body: Node, be: (well_formed: boolean) => void): Error {
    const { name, message, stack = `${name}: ${message}`, wire } = body as any;
    be(typeof name === 'string' && typeof message === 'string');
    be(typeof stack === 'string' && stack.length <= LIMITS.stack_chars);
    if (wire !== undefined) {
      // An error of the table: first made of its words, then given its fields, which may hold the error itself.
      be(isNode(wire?.data?.fields));
      const error = this.#begin(fromWire(wire));
      this.#members(wire.data.fields);
      return error;
    }
    const error = this.#begin(errorOf(name, message));
    put(error, 'stack', headed(name, message, stack), false);
    // In the order of the text: a label stands where its object occurs first.
    for (const [key, member] of Object.entries(body))
      if (key === 'props') {
        be(isNode(member) && !Object.keys(member).some((prop) => ERROR_MEMBERS.includes(prop)));
        this.#members(member as Node, error);
      } else if (key === 'cause' || key === 'errors') {
        const value = this.#inner(member);
        be(key === 'cause' || Array.isArray(value));
        put(error, key, value, false);
      }
    return error;
  }
}

/** An error of the class that a name names, where it is one of the language's or the platform's own. */
function errorOf(name: string, message: string): Error {
  if (/^(Eval|Range|Reference|Syntax|Type|URI)?Error$/.test(name)) return new (globalThis as any)[name](message);
  if (name === 'AggregateError') return new AggregateError([], message);
  if ((name === 'AbortError' || name === 'TimeoutError') && globalThis.DOMException)
    return new DOMException(message, name);
  const error = new Error(message);
  put(error, 'name', name, false);
  return error;
}
