/** A stand-in for the session's tables, and a comparison of values that sees identity. */
import assert from 'node:assert/strict';
import { ProtocolViolation } from '@hauki/protocol';
import type { Encoded, Gives, Takes } from '../src/codec.ts';
import { decodeValue } from '../src/codec-decode.ts';
import { encodeValue } from '../src/codec-encode.ts';
import { kindOf } from '../src/references.ts';

/** Both ends in one: what was given is taken back by its number. */
export class Table implements Gives, Takes {
  readonly given: object[] = [];
  undone = 0;
  give(value: object): unknown[] {
    this.given.push(value);
    return ['mine', this.given.length - 1, kindOf(value) ?? 'object'];
  }
  take([kind, id]: unknown[]): unknown {
    const value = kind === 'mine' && Number.isSafeInteger(id) ? this.given[id as number] : undefined;
    if (value === undefined) throw new ProtocolViolation({ why: 'a reference to nothing' });
    return value;
  }
  undo(): void {
    this.undone++;
  }
}

export function attachments({ bytes }: Encoded): Uint8Array {
  return new Uint8Array(Buffer.concat(bytes ?? []));
}

/** Sends a value and receives it, as a session does. */
export function across(value: unknown, table = new Table()): any {
  const encoded = encodeValue(value, table);
  const parsed = JSON.parse(encoded.text);
  return encoded.bytes === undefined ? parsed : decodeValue(parsed, attachments(encoded), table);
}

/** Whether two values have the same shape, the same leaves, and share and repeat the same parts. */
export function assertSame(actual: unknown, expected: unknown): void {
  const pairs = new Map<object, object>();
  const compare = (a: any, b: any, where: string): void => {
    if (typeof b !== 'object' || b === null)
      return assert.ok(Object.is(a, b), `${where}: ${String(a)}, not ${String(b)}`);
    assert.equal(typeof a, 'object', where);
    if (pairs.has(b) || [...pairs.values()].includes(a))
      return assert.equal(pairs.get(b), a, `${where} is not the same thing as before`);
    pairs.set(b, a);
    assert.equal(Object.getPrototypeOf(a), Object.getPrototypeOf(b), where);
    if (b instanceof Map) return list([...a].flat(), [...b].flat(), `${where}.map`);
    if (b instanceof Set) return list([...a], [...b], `${where}.set`);
    if (ArrayBuffer.isView(b) || b instanceof ArrayBuffer || b instanceof Date || b instanceof RegExp)
      return assert.deepStrictEqual(a, b);
    if (Array.isArray(b)) assert.equal(a.length, b.length, where);
    if (b instanceof Error) {
      for (const key of ['name', 'message']) assert.equal(a[key], (b as any)[key], where);
      for (const key of ['cause', 'errors']) {
        assert.equal(Object.hasOwn(a, key), Object.hasOwn(b, key), where);
        compare(a[key], (b as any)[key], `${where}.${key}`);
      }
    }
    assert.deepEqual(Object.keys(a), Object.keys(b), where);
    for (const key of Object.keys(b)) compare(a[key], b[key], `${where}.${key}`);
  };
  const list = (a: unknown[], b: unknown[], where: string) => {
    assert.equal(a.length, b.length, where);
    for (const [i, item] of b.entries()) compare(a[i], item, `${where}[${i}]`);
  };
  compare(actual, expected, 'value');
}
