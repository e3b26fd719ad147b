/** Values on the wire: what arrives is what was sent, or nothing is sent. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { isError, LIMITS, TooLarge, Unserialisable } from '@hauki/protocol';
import fc from 'fast-check';
import { ghost } from '../src/ghost.ts';
import { countedBytes } from '../src/platform.ts';
import { encode } from '../src/values.ts';

const refused = (value: unknown, pattern?: RegExp) =>
  assert.throws(
    () => encode(value),
    (thrown) => isError(thrown, Unserialisable) && (pattern === undefined || pattern.test(thrown.message)),
  );

describe('encode', () => {
  it('carries whatever JSON carries', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6, noUnicodeString: false } as never), (value) => {
        // JSON has no −0.
        if (JSON.stringify(value, (_, v) => (Object.is(v, -0) ? 'minus zero' : v)).includes('minus zero')) return;
        assert.deepEqual(JSON.parse(encode(value)), value);
      }),
      { numRuns: 1000 },
    );
  });

  it('carries a value unchanged or refuses it, whatever it is', () => {
    fc.assert(
      fc.property(
        fc.anything({
          withBigInt: true,
          withMap: true,
          withSet: true,
          withTypedArray: true,
          withNullPrototype: false,
          withSparseArray: false,
          withDate: false,
          withBoxedValues: false,
        }),
        (value) => {
          let text: string;
          try {
            text = encode(value);
          } catch (thrown) {
            assert.ok(isError(thrown, Unserialisable));
            return;
          }
          assert.deepEqual(JSON.parse(text), allowed(value));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('refuses what JSON would silently change, and names the place', () => {
    refused(() => 1, /it is a function/);
    refused(Symbol('s'), /it is a symbol/);
    refused(1n, /it is a bigint/);
    refused(Number.NaN, /it is NaN/);
    refused(Number.POSITIVE_INFINITY, /it is Infinity/);
    refused({ a: { b: [1, { deep: () => 1 }] } }, /"deep"/);
    refused([Number.NaN], /"0"/);
    for (const value of [new Map(), new Set(), new WeakMap(), new WeakSet(), /x/, new Error('e'), Promise.resolve()])
      refused({ value }, new RegExp(`"value".*${value.constructor.name}`));
    refused({ bytes: new Uint8Array(3) }, /"bytes".*binary/);
    refused({ bytes: new DataView(new ArrayBuffer(3)) }, /"bytes".*binary/);
    refused({ bytes: new ArrayBuffer(3) }, /"bytes".*ArrayBuffer/);
  });

  it('refuses what goes by reference alone: streams, iterators, signals, remote objects', () => {
    for (const stream of [
      (async function* () {
        yield 1;
      })(),
      [1].values(),
      { next: () => ({ done: true }), [Symbol.asyncIterator]: () => ({}) },
      new ReadableStream(),
      Readable.from(['x']),
      AbortSignal.abort(),
    ])
      refused({ stream }, /"stream" is a stream or a signal/);
    const away = { label: 'away', call: async () => 1, dispose: async () => {} };
    refused({ thing: ghost(away) }, /"thing" is a remote object/);
  });

  it('refuses objects of the platform, which JSON would empty, and sends those that say what they are in JSON', () => {
    class Reply extends Response {}
    for (const thing of [new Response('x'), new Headers(), new FormData(), new URLSearchParams('a=1'), new Reply('x')])
      refused({ thing }, /"thing" is of the class (?:Response|Headers|FormData|URLSearchParams): send what you need/);
    refused({ bytes: new SharedArrayBuffer(3) }, /of the class SharedArrayBuffer/);
    class Point {
      x = 1;
    }
    const url = new URL('http://a.example/');
    assert.equal(
      encode([url, new Point(), Object.assign(Object.create(null), { a: 1 })]),
      `["${url}",{"x":1},{"a":1}]`,
    );
    assert.equal(encode([Object(1), Object('a'), Object(true)]), '[1,"a",true]');
  });

  it('refuses Node’s Buffer like any other bytes', () => {
    refused({ bytes: Buffer.from('abc') }, /"bytes".*binary/);
    refused(Buffer.from('abc'), /binary/);
  });

  it('refuses a date that is none, which JSON would make null', () => {
    refused({ at: new Date(Number.NaN) }, /"at"/);
  });

  it('refuses cycles and depths that overflow the stack, and lives on', () => {
    const cycle: any = { list: [] };
    cycle.list.push(cycle);
    refused(cycle, /contains itself/);
    let deep: unknown = 1;
    for (let i = 0; i < 200_000; i++) deep = [deep];
    refused(deep);
    assert.equal(encode([1]), '[1]');
  });

  it('refuses what throws while it is read', () => {
    refused(
      {
        get trap() {
          throw new Error('sprung');
        },
      },
      /sprung/,
    );
    refused({
      toJSON() {
        throw null;
      },
    });
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    refused({ proxy });
  });

  it('sends a value twice where it stands twice, for that is no cycle', () => {
    const shared = { x: 1 };
    assert.equal(encode([shared, shared]), '[{"x":1},{"x":1}]');
  });

  it('makes undefined null, and dates ISO texts', () => {
    assert.equal(encode(undefined), 'null');
    assert.equal(encode([undefined]), '[null]');
    assert.equal(encode({ a: undefined }), '{}');
    assert.equal(encode(new Date(0)), '"1970-01-01T00:00:00.000Z"');
  });

  it('gives text without half surrogates', () => {
    assert.ok(encode('\ud800').isWellFormed());
    assert.ok(encode({ '\udc00': ['\ud800x'] }).isWellFormed());
  });

  it('refuses what is too large', () => {
    assert.throws(
      () => encode(['x'.repeat(LIMITS.message_bytes)]),
      (thrown) => isError(thrown, TooLarge),
    );
  });

  it('stops writing where it is too large: what stands in a value again and again is not written out', () => {
    let written = 0;
    const leaf = {
      get x() {
        written++;
        return 'x'.repeat(1024);
      },
    };
    let value: unknown = leaf;
    for (let level = 0; level < 16; level++) value = [value, value];
    assert.throws(
      () => encode(value),
      (thrown) => isError(thrown, TooLarge),
    );
    assert.ok(written < 2 ** 15, `${written} were read, for ${2 ** 16} places`);
    assert.equal(encode([leaf]).length, 1024 + 10, 'and the next one is written');
  });
});

/** What JSON makes of a value that it may carry: undefined is null in lists and absent from objects; −0 is 0. */
function allowed(value: any): unknown {
  if (value === undefined) return null;
  if (Object.is(value, -0)) return 0;
  if (Array.isArray(value)) return value.map(allowed);
  if (typeof value !== 'object' || value === null) return value;
  const made: any = {};
  for (const [key, member] of Object.entries(value))
    if (member !== undefined)
      Object.defineProperty(made, key, {
        value: allowed(member),
        enumerable: true,
        configurable: true,
        writable: true,
      });
  return made;
}

describe('the length in UTF-8, where a platform cannot say', () => {
  it('is that of the bytes, whatever the text', () =>
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', '\n', '\x7f', 'ü', '\u07ff', '漢', '😀', '\ud800', '\udc00') }),
        fc.integer({ min: 0, max: 3 }),
        (text, shift) => {
          // Long enough that pairs stand across every step.
          for (const each of [text, text + 'x'.repeat(65_534 + shift) + text])
            assert.equal(countedBytes(each), Buffer.byteLength(each));
        },
      ),
    ));
});
