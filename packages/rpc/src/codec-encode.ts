/**
 * Encoding: one pass over the value writes its text, and reads every property exactly once, so that what a getter or
 * a proxy answers later cannot matter. The same text serves as literal or tagged: what only a tagged text needs (labels
 * of things that occur twice, the escape of objects that look like a tag) is noted with its position and written in at
 * the end, if at all.
 */
import { describe, LIMITS, MeshError, ownFrames, toWire, Unserialisable } from '@hauki/protocol';
import { type Encoded, ERROR_MEMBERS, type Refs } from './codec.ts';
import { annotated, digits, HINTS, isPlain, many, quote, Refusal, tooLarge } from './codec-text.ts';
import { isClass, type Lineage, lineageOf } from './methods.ts';
import { isAnyError, isIterable, isMarked, kindByLineage } from './references.ts';

/** Up to here a list is searched for an object met before; beyond, a Map. */
const FEW = 12;
/** From here on the numbers and texts of a list are handed to the platform together. */
const MANY = 16;
const typeName = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag)!.get!;

/** Encodes a value; `where` names it in errors. All or nothing. Throws Unserialisable, TooLarge, or what `give` throws. */
export function encodeValue(value: unknown, refs: Refs, where = 'value'): Encoded {
  switch (typeof value) {
    case 'string':
      return { text: quote(value), bytes: undefined };
    case 'boolean':
      return { text: value ? 'true' : 'false', bytes: undefined };
    case 'undefined':
      return { text: '{"$":["undefined"]}', bytes: [] };
    case 'object':
      if (value === null) return { text: 'null', bytes: undefined };
  }
  const encoder = new Encoder(refs);
  try {
    encoder.value(value);
    return encoder.finish();
  } catch (error) {
    if (encoder.gave) refs.undo?.();
    if (error instanceof Refusal) throw new Unserialisable({ why: `${encoder.place(where)} is ${error.message}` });
    if (error instanceof MeshError) throw error;
    throw new Unserialisable({ why: `${encoder.place(where)} cannot be read: ${describe(error)}` });
  }
}

class Encoder {
  gave = false;
  readonly #refs: Refs;
  #out = '';
  #tagged = false;
  #depth = 0;
  /** How many objects with an identity have been met; most values are one. */
  #count = 0;
  #root: object | undefined;
  /** From the second on: objects in order of occurrence, and where the text of each begins and ends. */
  #objects: object[] | undefined;
  #spans: number[] | undefined;
  #index: Map<object, number> | undefined;
  /** Later places of objects: position and number of object, in turn. */
  #again: number[] | undefined;
  /** Numbers of objects that look like a tag. */
  #dollars: number[] | undefined;
  #bytes: Uint8Array[] | undefined;
  #size = 0;
  /** The keys above what failed, from the inside outwards. */
  #trail: (string | number)[] | undefined;

  constructor(refs: Refs) {
    this.#refs = refs;
  }

  /** Where encoding failed, for people: `params[0].a.b`. */
  place(where: string): string {
    const keys = (this.#trail ?? []).reverse();
    return (
      where +
      keys.map((k) => (typeof k === 'number' ? `[${k}]` : /^[\w$]+$/.test(k) ? `.${k}` : `[${quote(k)}]`)).join('')
    );
  }

  /** Notes the key of what failed and hands the error on. */
  #below(key: string | number, error: unknown): unknown {
    this.#trail ??= [];
    this.#trail.push(key);
    return error;
  }

  value(value: unknown): void {
    switch (typeof value) {
      case 'string':
        this.#out += quote(value);
        return;
      case 'number':
        if (value - value === 0 && (value !== 0 || 1 / value > 0)) this.#out += value;
        else this.#tag(`"number","${Object.is(value, -0) ? '-0' : value}"`);
        return;
      case 'object':
        if (value === null) this.#out += 'null';
        else if (Array.isArray(value)) this.#array(value);
        else this.#object(value);
        return;
      case 'boolean':
        this.#out += value ? 'true' : 'false';
        return;
      case 'undefined':
        return this.#tag('"undefined"');
      case 'bigint':
        return this.#tag(`"bigint","${digits(value)}"`);
      case 'symbol':
        throw new Refusal('a symbol');
      case 'function':
        if (!this.#refs.claims?.(value) && isClass(value))
          throw new Refusal('a class: a class cannot be sent; send an instance');
        this.#give(value);
    }
  }

  #tag(inside: string): void {
    this.#out += `{"$":[${inside}]}`;
    this.#tagged = true;
  }

  #give(value: object): void {
    this.gave = true;
    this.#tag(JSON.stringify(this.#refs.give(value)).slice(1, -1));
  }

  /** Begins an object with an identity: its number, or −1 where a reference to its first place was written instead. */
  #enter(object: object): number {
    const number = this.#count;
    if (number === 0) this.#root = object;
    else {
      const first = number === 1 ? (object === this.#root ? 0 : -1) : this.#find(object);
      if (first !== -1) {
        this.#again ??= [];
        this.#again.push(this.#out.length, first);
        this.#tagged = true;
        return -1;
      }
      if (this.#depth >= LIMITS.depth) throw new Refusal(`nested deeper than ${LIMITS.depth}`);
      if (this.#out.length > LIMITS.message_bytes) throw tooLarge();
      if (number === 1) {
        this.#objects = [this.#root!, object];
        this.#spans = [0, 0, this.#out.length, 0];
      } else {
        this.#objects!.push(object);
        this.#spans!.push(this.#out.length, 0);
        if (this.#index !== undefined) this.#index.set(object, number);
        else if (number === FEW) this.#index = new Map(this.#objects!.map((known, i) => [known, i]));
      }
    }
    this.#count++;
    this.#depth++;
    return number;
  }

  /** The number of an object that was met before, or −1. */
  #find(object: object): number {
    return this.#index === undefined ? this.#objects!.indexOf(object) : (this.#index.get(object) ?? -1);
  }

  #leave(number: number): void {
    this.#depth--;
    if (this.#spans !== undefined) this.#spans[2 * number + 1] = this.#out.length;
  }

  #array(array: readonly unknown[]): void {
    const proto = Object.getPrototypeOf(array);
    if (proto !== Array.prototype || isMarked(array)) {
      if (this.#refs.claims?.(array)) return this.#give(array);
      if (isMarked(array) || kindByLineage(array, lineageOf(proto)) !== undefined) return this.#give(array);
    }
    const number = this.#enter(array);
    if (number === -1) return;
    this.#items(array);
    this.#leave(number);
  }

  #items(array: readonly unknown[]): void {
    const { length } = array;
    // A proxy may call anything its length. Every item takes two characters at least.
    if (!(length * 2 <= LIMITS.message_bytes)) throw tooLarge();
    let i = 0;
    this.#out += '[';
    try {
      for (; i < length; i++) {
        let item = array[i];
        if (i > 0) this.#out += ',';
        if (length >= MANY && isPlain(item)) {
          const run: unknown[] = [];
          do {
            run.push(item);
            if (++i === length) break;
            item = array[i];
          } while (isPlain(item));
          this.#out += many(run);
          if (i === length) break;
          this.#out += ',';
        }
        if (item === undefined && !(i in array)) this.#tag('"hole"');
        else this.value(item);
      }
    } catch (error) {
      throw this.#below(i, error);
    }
    this.#out += ']';
  }

  #object(object: object): void {
    const proto = Object.getPrototypeOf(object);
    if (proto !== Object.prototype) return this.#special(object, proto);
    if (isMarked(object) || isIterable(object)) return this.#give(object);
    this.#plain(object);
  }

  #plain(object: object): void {
    const number = this.#enter(object);
    if (number === -1) return;
    const keys = Object.keys(object);
    if (keys.length === 1 && keys[0] === '$') {
      this.#dollars ??= [];
      this.#dollars.push(number);
    }
    this.#members(object as Record<string, unknown>, keys);
    this.#leave(number);
  }

  #members(object: Record<string, unknown>, keys: readonly string[]): void {
    if (keys.length === 0) {
      this.#out += '{}';
      return;
    }
    let i = 0;
    try {
      for (; i < keys.length; i++) {
        const key = keys[i]!;
        const member = object[key];
        this.#out += `${i === 0 ? '{' : ','}${quote(key)}:`;
        this.value(member);
      }
    } catch (error) {
      throw this.#below(keys[i]!, error);
    }
    this.#out += '}';
  }

  /** Whatever is neither a plain object nor an array. */
  #special(object: object, proto: object | null): void {
    if (this.#refs.claims?.(object) || isMarked(object)) return this.#give(object);
    if (ArrayBuffer.isView(object)) return this.#view(object);
    const lineage = lineageOf(proto);
    if (isAnyError(object)) return this.#error(object);
    if (kindByLineage(object, lineage) !== undefined) return this.#give(object);
    switch (lineage.base) {
      case 'Object':
      case undefined:
        return this.#plain(object);
      case 'ArrayBuffer':
      case 'SharedArrayBuffer':
        return this.#attach(object, 'ArrayBuffer', object as ArrayBuffer, 0, (object as ArrayBuffer).byteLength);
    }
    const write = this.#writer(object, lineage);
    const number = this.#enter(object);
    if (number === -1) return;
    this.#tagged = true;
    this.#out += '{"$":[';
    write();
    this.#out += ']}';
    this.#leave(number);
  }

  /** How to write an instance of a built-in class. The prototypes' own functions refuse what only looks like one. */
  #writer(object: object, { base }: Lineage): () => void {
    switch (base) {
      case 'Date': {
        const ms = Date.prototype.getTime.call(object);
        return () => {
          this.#out += `"date",${Number.isNaN(ms) ? 'null' : ms}`;
        };
      }
      case 'RegExp': {
        const { source, flags } = object as RegExp;
        if (typeof source !== 'string' || typeof flags !== 'string') throw new Refusal('a changed regular expression');
        if (source.length > LIMITS.regexp_chars)
          throw new Refusal(`a regular expression of more than ${LIMITS.regexp_chars} characters`);
        return () => {
          this.#out += `"regexp",${quote(source)},${quote(flags)}`;
        };
      }
      case 'Map': {
        const items: unknown[] = [];
        Map.prototype.forEach.call(object, (value, key) => items.push(key, value));
        return () => this.#pairs(items);
      }
      case 'Set': {
        const items: unknown[] = [];
        Set.prototype.forEach.call(object, (value) => items.push(value));
        return () => {
          this.#out += '"set",';
          this.#items(items);
        };
      }
      case 'Number':
      case 'String':
      case 'Boolean':
      case 'BigInt': {
        const unbox: () => unknown = { Number, String, Boolean, BigInt }[base].prototype.valueOf;
        const primitive = unbox.call(object);
        return () => {
          this.#out += '"boxed",';
          this.value(primitive);
        };
      }
    }
    throw new Refusal(
      HINTS[base!] ??
        `of the class ${base}, which cannot be copied: send what you need of it, or mark it with reference()`,
    );
  }

  #pairs(items: readonly unknown[]): void {
    let i = 0;
    this.#out += '"map",[';
    try {
      for (; i < items.length; i += 2) {
        this.#out += i > 0 ? ',[' : '[';
        this.value(items[i]);
        this.#out += ',';
        this.value(items[i + 1]);
        this.#out += ']';
      }
    } catch (error) {
      throw this.#below(`entry ${i / 2}`, error);
    }
    this.#out += ']';
  }

  #view(view: ArrayBufferView): void {
    const type = (typeName.call(view) as string | undefined) ?? 'DataView';
    this.#attach(view, type, view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
  }

  /** Copies bytes at once: their owner may go on writing. Elements are little-endian, as on every platform we run on. */
  #attach(object: object, type: string, buffer: ArrayBuffer, offset: number, length: number): void {
    const number = this.#enter(object);
    if (number === -1) return;
    if (this.#size + length > LIMITS.message_bytes) throw tooLarge();
    const copy = new Uint8Array(buffer, offset, length).slice();
    this.#tag(`"bytes","${type}",${this.#size},${copy.length}`);
    this.#size += copy.length;
    this.#bytes ??= [];
    this.#bytes.push(copy);
    this.#leave(number);
  }

  #error(error: Error): void {
    const number = this.#enter(error);
    if (number === -1) return;
    const { name, message } = error;
    this.#tagged = true;
    this.#out += `{"$":["error",{"name":${quote(String(name))},"message":${quote(String(message))}`;
    if (error instanceof MeshError) {
      const { code, data } = toWire(error);
      const { fields } = error;
      this.#out += `,"wire":{"code":${code},"message":${quote(String(message))},"data":{"name":${quote(data!.name)},"retryable":${data!.retryable === true},"fields":`;
      this.#depth++;
      this.#members(fields, Object.keys(fields));
      this.#depth--;
      this.#out += '}}';
    } else {
      const { stack } = error;
      if (typeof stack === 'string') this.#out += `,"stack":${quote(ownFrames(stack))}`;
      for (const key of ['cause', 'errors'] as const) {
        if (!Object.hasOwn(error, key)) continue;
        const member = (error as AggregateError)[key];
        if (key === 'errors' && !Array.isArray(member)) continue;
        this.#out += `,"${key}":`;
        try {
          this.value(member);
        } catch (failure) {
          throw this.#below(key, failure);
        }
      }
      const keys = Object.keys(error).filter((key) => !ERROR_MEMBERS.has(key));
      if (keys.length > 0) {
        this.#out += ',"props":';
        this.#members(error as never, keys);
      }
    }
    this.#out += '}]}';
    this.#leave(number);
  }

  finish(): Encoded {
    const text = this.#out;
    if (!this.#tagged) return { text, bytes: undefined };
    const bytes = this.#bytes ?? [];
    if (this.#again === undefined && this.#dollars === undefined) return { text, bytes };
    const spans = this.#spans ?? [0, 0];
    spans[1] = text.length;
    return { text: annotated(text, spans, this.#again ?? [], this.#dollars ?? []), bytes };
  }
}
