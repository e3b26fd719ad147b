/** Values as docs/vectors/values.json has them: whoever writes a peer checks against the same texts. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import * as protocol from '@hauki/protocol';
import type { Gives, Takes } from '../src/codec.ts';
import { decodeValue } from '../src/codec-decode.ts';
import { encodeValue } from '../src/codec-encode.ts';
import { reference } from '../src/references.ts';
import { assertSame } from './codec-support.ts';

interface Vector {
  name: string;
  text: string;
  bytes: string;
  describe: any;
  literal?: true;
}
const file = new URL('../../../docs/vectors/values.json', import.meta.url);
const vectors: { values: Vector[]; malformed: Omit<Vector, 'describe'>[] } = JSON.parse(readFileSync(file, 'utf8'));

/** A reference stands for whatever has its tag. */
class Stand implements Gives, Takes {
  readonly #tags = new Map<object, unknown[]>();
  give = (value: object) => this.#tags.get(value)!;
  take = (tag: unknown[]) => {
    const key = JSON.stringify(tag);
    for (const [known, its] of this.#tags) if (JSON.stringify(its) === key) return known;
    const made = reference({ tag: key });
    this.#tags.set(made, tag);
    return made;
  };
}

/** The value that a description describes. */
function build(description: any, stand: Stand): unknown {
  const known = new Map<number, unknown>();
  const set = (object: object, pairs: [string, any][]) => {
    for (const [name, d] of pairs)
      Object.defineProperty(object, name, { value: make(d), writable: true, enumerable: true, configurable: true });
  };
  const make = (d: any): unknown => {
    const named = <T>(value: T): T => {
      if (d.id !== undefined) known.set(d.id, value);
      return value;
    };
    switch (d.type) {
      case 'null':
        return null;
      case 'undefined':
        return undefined;
      case 'number':
        return Number(d.value);
      case 'boolean':
        return d.value;
      case 'string':
        return d.value + String.fromCharCode(...(d.then_code_units ?? []));
      case 'bigint':
        return BigInt(d.value);
      case 'boxed':
        return named(Object(make(d.value)));
      case 'date':
        return named(new Date(d.ms ?? Number.NaN));
      case 'regexp':
        return named(new RegExp(d.source, d.flags));
      case 'array': {
        const array = named<unknown[]>(new Array(d.items.length));
        for (const [i, item] of d.items.entries()) if (item.type !== 'hole') array[i] = make(item);
        return array;
      }
      case 'object': {
        const object = named({});
        set(object, d.members);
        return object;
      }
      case 'map': {
        const map = named(new Map());
        for (const [key, value] of d.entries) map.set(make(key), make(value));
        return map;
      }
      case 'set': {
        const made = named(new Set());
        for (const item of d.items) made.add(make(item));
        return made;
      }
      case 'bytes': {
        if (d.of === 'ArrayBuffer') return named(new Uint8Array(d.elements).buffer);
        if (d.of === 'DataView') return named(new DataView(new Uint8Array(d.elements).buffer));
        const elements = d.of.startsWith('Big') ? d.elements.map(BigInt) : d.elements;
        return named(new (globalThis as any)[d.of](elements));
      }
      case 'error': {
        const known_class = /^(\w*Error)$/.test(d.name) ? (globalThis as any)[d.name] : undefined;
        const error = d.errors ? new AggregateError([], d.message) : new (known_class ?? Error)(d.message);
        if (error.name !== d.name) Object.defineProperty(error, 'name', { value: d.name });
        error.stack = d.stack;
        named(error);
        for (const key of ['cause', 'errors'])
          if (d[key]) Object.defineProperty(error, key, { value: make(d[key]), configurable: true, writable: true });
        set(error, d.props ?? []);
        return error;
      }
      case 'table_error': {
        const fields = {};
        set(fields, d.fields);
        return named(new (protocol as any)[d.name](fields));
      }
      case 'same':
        return known.get(d.as);
      case 'reference':
        return stand.take(d.tag);
    }
    throw new Error(`a description of unknown type ${d.type}`);
  };
  return make(description);
}

const kindsIn = (text: string) => [...text.matchAll(/\{"\$":\["(\w+)"/g)].map(([, kind]) => kind!);

describe('the vectors of values', () => {
  for (const { name, text, bytes, describe: description, literal } of vectors.values) {
    it(`decode: ${name}`, () => {
      const stand = new Stand();
      const parsed = JSON.parse(text);
      const expected = build(description, stand);
      const actual = literal ? parsed : decodeValue(parsed, Buffer.from(bytes, 'base64'), stand);
      assertSame(actual, expected);
      // Cycles through the keys of a map are beyond deepStrictEqual.
      if (!text.includes('"map",[[{"$":["ref"')) assert.deepStrictEqual(actual, expected);
      if (description.stack) assert.equal((actual as Error).stack, description.stack);
    });

    it(`encode: ${name}`, () => {
      const stand = new Stand();
      const encoded = encodeValue(build(description, stand), stand);
      assert.equal(encoded.text, text);
      assert.equal(encoded.bytes === undefined, literal === true);
      assert.equal(Buffer.concat(encoded.bytes ?? []).toString('base64'), bytes);
    });
  }

  for (const { name, text, bytes } of vectors.malformed)
    it(`refuse: ${name}`, () => {
      assert.throws(
        () => decodeValue(JSON.parse(text), Buffer.from(bytes, 'base64'), new Stand()),
        (thrown) => protocol.isError(thrown, protocol.ProtocolViolation),
      );
    });

  it('have every kind of tag at least twice', () => {
    const count = new Map<string, number>();
    for (const { text, literal } of vectors.values)
      if (!literal) for (const kind of new Set(kindsIn(text))) count.set(kind, (count.get(kind) ?? 0) + 1);
    const kinds = 'undefined number bigint date regexp hole boxed map set bytes error object def ref mine yours result';
    for (const kind of kinds.split(' ')) assert.ok((count.get(kind) ?? 0) >= 2, kind);
  });
});
