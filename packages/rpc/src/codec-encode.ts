/**
 * Encoding: one pass copies a value into what JSON can write, with tags where JSON has no word for it, and reads every
 * property exactly once, so that what a getter or a proxy answers later cannot matter. What only a tagged text needs
 * (labels of things that occur twice, the escape of objects that look like a tag) is put around the copies at the end.
 */
import { describe, MeshError, TooLarge, Unserialisable } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { framesOf } from '#platform';
import { type Encoded, ERROR_MEMBERS, type Gives, put } from './codec.ts';
import { lineageOf } from './lineage.ts';
import { isAnyError, kindOf } from './references.ts';

/** Encodes a value; `where` names it in errors. All or nothing. Throws Unserialisable, TooLarge, or what `give` throws. */
export function encodeValue(value: unknown, refs: Gives, where = 'value'): Encoded {
  const encoder = new Encoder(refs, where);
  try {
    return encoder.encode(value);
  } catch (error) {
    if (encoder.gave) refs.undo?.();
    if (error instanceof MeshError) throw error;
    return encoder.refuse(`cannot be read: ${describe(error)}`);
  }
}

/** Where the copy of an object stands, so that something can be put around it. */
interface Place {
  into: object;
  key: string | number;
  /** Tags at the later places of the same object, which want its label. */
  again: unknown[][];
  /** The object looks like a tag itself. */
  dollar: boolean;
}

const typeName = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag)!.get!;
/** The bits of the largest bigint that has no more digits than it may, and one for its sign. */
const BIGINT_BITS = 33_220;

/** What to send in place of what no message can carry. */
const INSTEAD: Record<string, string> = {
  Promise: 'await it first',
  URL: 'send its href',
  Response: 'send its body',
  Blob: 'send its stream()',
};

class Encoder {
  gave = false;
  readonly #refs: Gives;
  readonly #where: string;
  /** The keys on the way to what is being read; as many as it lies deep. */
  readonly #path: (string | number)[] = [];
  readonly #seen = new Map<object, Place>();
  readonly #bytes: Uint8Array[] = [];
  #attached = 0;
  #tagged = false;
  #room = LIMITS.message_bytes;

  constructor(refs: Gives, where: string) {
    this.#refs = refs;
    this.#where = where;
  }

  encode(value: unknown): Encoded {
    const root = [value];
    root[0] = this.#copy(value, root, 0);
    if ('toJSON' in root) this.refuse('cannot be sent: all objects have a toJSON');
    if (this.#tagged) this.#label();
    return { text: JSON.stringify(root[0]), bytes: this.#tagged ? this.#bytes : undefined };
  }

  #label(): void {
    let label = 0;
    // In the order in which they were met: what stands inside is put around later.
    for (const { into, key, again, dollar } of this.#seen.values()) {
      const holder = into as Record<string | number, unknown>;
      if (dollar) put(holder, key, { $: ['object', holder[key]] });
      if (again.length === 0) continue;
      put(holder, key, { $: ['def', label, holder[key]] });
      for (const tag of again) tag[1] = label;
      label++;
    }
  }

  /** Throws, with the place where encoding has come to: `params[0].a.b is a symbol`. */
  refuse(what: string): never {
    const keys = this.#path.map((key) =>
      typeof key === 'string' && /^[\w$]+$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`,
    );
    throw new Unserialisable({ why: `${this.#where}${keys.join('')} ${what}` });
  }

  /** Takes characters and bytes off what a message may have, before they are copied. */
  #fits(amount: number): void {
    this.#room -= amount;
    // Not a number where a proxy calls anything its length.
    if (!(this.#room >= 0)) throw new TooLarge({ what: 'A message', limit_bytes: LIMITS.message_bytes });
  }

  #tag(...inside: unknown[]): { $: unknown[] } {
    this.#tagged = true;
    // The shortest, of a hole, takes fourteen, of which one is counted where it stands.
    this.#fits(13);
    return { $: inside };
  }

  /** What stands for a value, which is a member of `into`. */
  #copy(value: unknown, into: object = [], key: string | number = 0): unknown {
    switch (typeof value) {
      case 'string':
        this.#fits(value.length);
        return value;
      case 'boolean':
        return value;
      case 'number':
        if (value - value === 0 && (value !== 0 || 1 / value > 0)) return value;
        return this.#tag('number', Object.is(value, -0) ? '-0' : `${value}`);
      case 'undefined':
        return this.#tag('undefined');
      case 'bigint':
        if (BigInt.asIntN(BIGINT_BITS, value) !== value)
          this.refuse(`is a bigint of more than ${LIMITS.bigint_digits} digits`);
        return this.#tag('bigint', `${value}`);
      case 'symbol':
        return this.refuse('is a symbol');
    }
    return value && this.#object(value, into, key);
  }

  /** Puts what stands for a member into the same place of another object; `name` is its key for people. */
  #member(into: object, from: any, key: string | number, name = key): void {
    this.#path.push(name);
    this.#fits(`${key}`.length + 2);
    put(into, key, this.#copy(from[key], into, key));
    this.#path.pop();
  }

  #members(from: object, keys: readonly string[]): object {
    const into = {};
    for (const key of keys) this.#member(into, from, key);
    return into;
  }

  #items(array: readonly unknown[]): unknown[] {
    const { length } = array;
    // Every item takes two characters at least.
    this.#fits(length * 2);
    const into: unknown[] = [];
    for (let i = 0; i < length; i++) {
      this.#path.push(i);
      const item = array[i];
      into.push(item === undefined && !(i in array) ? this.#tag('hole') : this.#copy(item, into, i));
      this.#path.pop();
    }
    return into;
  }

  #object(object: object, into: object, key: string | number): unknown {
    const proto: object | null = Object.getPrototypeOf(object);
    if ((proto !== Object.prototype && this.#refs.claims?.(object)) || kindOf(object)) {
      this.gave = true;
      return this.#tag(...this.#refs.give(object));
    }
    if (typeof object === 'function') this.refuse('is a class: send an instance');
    const known = this.#seen.get(object);
    if (known) {
      const tag = this.#tag('ref');
      known.again.push(tag.$);
      return tag;
    }
    if (this.#path.length >= LIMITS.depth) this.refuse(`is nested deeper than ${LIMITS.depth}`);
    const place: Place = { into, key, again: [], dollar: false };
    this.#seen.set(object, place);
    if (Array.isArray(object)) return this.#items(object);
    const { base = 'Object' } = lineageOf(proto);
    if (base === 'Object') {
      const keys = Object.keys(object);
      place.dollar = keys.length === 1 && keys[0] === '$';
      return this.#members(object, keys);
    }
    if (isAnyError(object)) return this.#error(object);
    if (ArrayBuffer.isView(object))
      return this.#attach(typeName.call(object) ?? 'DataView', object.buffer, object.byteOffset, object.byteLength);
    return this.#builtIn(object, base);
  }

  /** An instance of a class of the language; their prototypes' own functions refuse what only looks like one. */
  #builtIn(object: object, base: string): unknown {
    switch (base) {
      case 'Date':
        return this.#tag('date', Date.prototype.getTime.call(object));
      case 'RegExp': {
        const { source, flags } = new RegExp(object as RegExp);
        if (source.length > LIMITS.regexp_chars)
          this.refuse(`is a regular expression of more than ${LIMITS.regexp_chars} characters`);
        return this.#tag('regexp', source, flags);
      }
      case 'Map':
        return this.#tag(
          'map',
          Array.from(Map.prototype.entries.call(object), (entry, i) => {
            const into: unknown[] = [];
            for (const at of [0, 1]) this.#member(into, entry, at, `entry ${i}`);
            return into;
          }),
        );
      case 'Set':
        return this.#tag('set', this.#items([...Set.prototype.values.call(object)]));
      case 'Number':
      case 'String':
      case 'Boolean':
      case 'BigInt':
        return this.#tag('boxed', this.#copy((globalThis as any)[base].prototype.valueOf.call(object)));
      case 'ArrayBuffer':
      case 'SharedArrayBuffer':
        return this.#attach('ArrayBuffer', object as ArrayBuffer, 0, (object as ArrayBuffer).byteLength);
    }
    const instead = INSTEAD[base] ?? 'send what you need of it, or mark it with reference()';
    // Platforms have classes without a name of their own.
    return this.refuse(`is of the class ${base || 'without a name'}: ${instead}`);
  }

  /** Copies bytes at once: their owner may go on writing. Elements are little-endian, as on every platform we run on. */
  #attach(type: string, buffer: ArrayBufferLike, offset: number, length: number): object {
    this.#fits(length);
    const copy = new Uint8Array(buffer, offset, length).slice();
    const tag = this.#tag('bytes', type, this.#attached, copy.length);
    this.#attached += copy.length;
    this.#bytes.push(copy);
    return tag;
  }

  #error(error: Error): object {
    const body: Record<string, unknown> = { name: String(error.name), message: String(error.message) };
    if (error instanceof MeshError) {
      const { code, message, name, retryable, fields } = error;
      body.wire = { code, message, data: { name, retryable, fields: this.#members(fields, Object.keys(fields)) } };
    } else {
      body.stack = framesOf(error, this.#refs);
      const { cause, errors } = error as AggregateError;
      for (const key of ['cause', 'errors'])
        if (Object.hasOwn(error, key) && (key === 'cause' || Array.isArray(errors)))
          this.#member(body, { cause, errors }, key);
      const keys = Object.keys(error).filter((key) => !ERROR_MEMBERS.includes(key));
      if (keys.length > 0) body.props = this.#members(error, keys);
    }
    return this.#tag('error', body);
  }
}
