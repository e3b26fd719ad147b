/** The value codec among strangers: whatever comes in becomes a value or a ProtocolViolation, and nothing else happens. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, LIMITS, ProtocolViolation } from '@hauki/protocol';
import fc from 'fast-check';
import { decodeValue } from '../src/codec-decode.ts';
import { encodeValue } from '../src/codec-encode.ts';
import { attachments, Table } from './codec-support.ts';

const NONE: Uint8Array = new Uint8Array(0);
const decode = (text: string, bytes: Uint8Array = NONE) => decodeValue(JSON.parse(text), bytes, new Table());
const tag = (...inside: unknown[]) => ({ $: inside });
const refused = (value: unknown, pattern: RegExp, bytes = NONE) =>
  assert.throws(
    () => decode(JSON.stringify(value), bytes),
    (thrown) => isError(thrown, ProtocolViolation) && pattern.test(thrown.message),
    JSON.stringify(value)?.slice(0, 200),
  );

/** Decodes; anything but a value or a ProtocolViolation is a failure. */
function survives(text: string, bytes: Uint8Array = NONE): void {
  try {
    decode(text, bytes);
  } catch (error) {
    if (!isError(error, ProtocolViolation)) throw error;
    assert.ok(error.message.length < 200, error.message);
  }
  assert.deepEqual(Object.keys(Object.prototype), []);
  assert.equal(({} as any).polluted, undefined);
}

const KINDS =
  'undefined number bigint date regexp hole boxed map set bytes error object def ref mine yours result'.split(' ');

describe('tags that are not well formed', () => {
  const bytes = new Uint8Array(16);
  const cases: [value: unknown, pattern?: RegExp][] = [
    [tag()],
    [{ $: 'undefined' }],
    [{ $: null }],
    [{ $: {} }],
    [tag(1)],
    [tag('toString')],
    [tag('__proto__')],
    [tag('x'.repeat(10_000))],
    [tag('undefined', 1)],
    [tag('number')],
    [tag('number', 'one')],
    [tag('number', 'constructor')],
    [tag('number', 5)],
    [tag('bigint', 5)],
    [tag('bigint', '0x10')],
    [tag('bigint', '')],
    [tag('bigint', '1'.repeat(LIMITS.bigint_digits + 2))],
    [tag('date', '2020')],
    [tag('date', 1.5)],
    [tag('date', 9e15)],
    [tag('regexp', '(', ''), /a value that is none/],
    [tag('regexp', 'a', 'gg'), /a value that is none/],
    [tag('regexp', 'a', 'z'), /a value that is none/],
    [tag('regexp', 1, '')],
    [tag('regexp', 'a'.repeat(LIMITS.regexp_chars + 1), '')],
    [tag('hole')],
    [{ a: tag('hole') }],
    [tag('set', [tag('hole')])],
    [tag('map', [[tag('hole'), 1]])],
    [[tag('hole', 1)]],
    [tag('boxed', null)],
    [tag('boxed', {})],
    [tag('boxed', tag('undefined'))],
    [tag('map', {})],
    [tag('map', [1])],
    [tag('map', [[1]])],
    [tag('map', [[1, 2, 3]])],
    [tag('map', [tag('set', [])])],
    [tag('set', 'abc')],
    [tag('set', { length: 1e9 })],
    [tag('object', [])],
    [tag('object', 'x')],
    [tag('def', 0, 5)],
    [tag('def', 0, tag('undefined'))],
    [tag('def', 0, tag('bigint', '5'))],
    [tag('def', 0, tag('mine', 0, 'object')), /nothing/],
    [tag('def', 0, tag('def', 1, []))],
    [[tag('def', 0, []), tag('ref', 0), tag('def', 0, [])]],
    [tag('def', 0, tag('ref', 0))],
    [tag('def', -1, [])],
    [tag('def', '0', [])],
    [tag('def', 0.5, [])],
    [[tag('ref', 0)]],
    [[tag('ref', '__proto__')]],
    [tag('mine', 7, 'function'), /nothing/],
    [tag('yours'), /nothing/],
    [tag('bytes', 'Uint8Array', 0, 17)],
    [tag('bytes', 'Uint8Array', 16, 1)],
    [tag('bytes', 'Uint8Array', -1, 1)],
    [tag('bytes', 'Uint8Array', 0, -1)],
    [tag('bytes', 'Uint8Array', 2 ** 53, 1)],
    [tag('bytes', 'Uint8Array', 0.5, 1)],
    [tag('bytes', 'Uint8Array', '0', 1)],
    [tag('bytes', 'Float64Array', 0, 7), /a value that is none/],
    [tag('bytes', 'Function', 0, 1)],
    [tag('bytes', '__proto__', 0, 1)],
    [tag('bytes', 'constructor', 0, 1)],
    [[tag('bytes', 'Uint8Array', 0, 16), tag('bytes', 'Uint8Array', 0, 1)]],
    [tag('error', 'x')],
    [tag('error', {})],
    [tag('error', { name: 'Error' })],
    [tag('error', { name: 1, message: '' })],
    [tag('error', { name: 'E', message: '', stack: 1 })],
    [tag('error', { name: 'E', message: '', stack: 'x'.repeat(LIMITS.stack_chars + 1) })],
    [tag('error', { name: 'E', message: '', errors: 5 })],
    [tag('error', { name: 'E', message: '', props: [] })],
    [tag('error', { name: 'E', message: '', props: { stack: 1 } })],
    [tag('error', { name: 'E', message: '', wire: null })],
    [tag('error', { name: 'E', message: '', wire: { data: { name: 'BadInput', fields: [] } } })],
  ];
  for (const [value, pattern = /a tag "[^"]*" that is not well formed/] of cases)
    it(`are refused: ${JSON.stringify(value).slice(0, 90)}`, () => refused(value, pattern, bytes));

  it('are refused wherever they stand', () => {
    const broken = tag('nothing');
    for (const value of [
      [broken],
      { a: broken },
      tag('map', [[broken, 1]]),
      tag('map', [[1, broken]]),
      tag('set', [broken]),
      tag('object', { a: broken }),
      tag('def', 0, [broken]),
      tag('boxed', broken),
      tag('error', { name: 'E', message: '', cause: broken }),
      tag('error', { name: 'E', message: '', errors: [broken] }),
      tag('error', { name: 'E', message: '', props: { a: broken } }),
      tag('error', { name: 'BadInput', message: '', wire: { data: { name: 'BadInput', fields: { what: broken } } } }),
    ])
      refused(value, /"nothing"/);
  });
});

describe('depth', () => {
  const nests: Record<string, [string, string]> = {
    lists: ['[', ']'],
    objects: ['{"a":', '}'],
    maps: ['{"$":["map",[[1,', ']]]}'],
    keys: ['{"$":["map",[[', ',1]]]}'],
    sets: ['{"$":["set",[', ']]}'],
    escapes: ['{"$":["object",{"$":', '}]}'],
    boxes: ['{"$":["boxed",', ']}'],
    errors: ['{"$":["error",{"name":"E","message":"","cause":', '}]}'],
    properties: ['{"$":["error",{"name":"E","message":"","props":{"a":', '}}]}'],
  };
  for (const [name, [open, close]] of Object.entries(nests))
    it(`of ${name} is bounded`, () => {
      for (const depth of [LIMITS.depth, 1000, 3000])
        assert.throws(
          () => decode(`[${open.repeat(depth)}1${close.repeat(depth)}]`),
          (thrown) => isError(thrown, ProtocolViolation),
        );
    });

  it('of labels is bounded', () => {
    const open = Array.from({ length: 3000 }, (_, i) => `{"$":["def",${i},`).join('');
    assert.throws(() => decode(`${open}[]${']}'.repeat(3000)}`), ProtocolViolation);
  });
});

describe('names that could reach a prototype', () => {
  it('are own properties of what arrives, and change nothing else', () => {
    const evil = '{"polluted":1}';
    for (const text of [
      `[{"__proto__":${evil}},{"$":["undefined"]}]`,
      `{"__proto__":{"$":["object",${evil}]},"a":{"$":["undefined"]}}`,
      `{"$":["object",{"__proto__":${evil}}]}`,
      `{"constructor":{"prototype":{"polluted":{"$":["undefined"]}}}}`,
      `{"$":["error",{"name":"__proto__","message":"","props":{"__proto__":${evil},"constructor":${evil}}}]}`,
      `{"$":["error",{"name":"Error","message":"","__proto__":{"name":"x","cause":1}}]}`,
      `{"$":["error",{"name":"x","message":"","wire":{"code":1,"data":{"name":"__proto__","fields":{"__proto__":${evil}}}}}]}`,
      `{"$":["map",[["__proto__",${evil}]]]}`,
    ]) {
      const value = decode(text) as any;
      assert.equal(({} as any).polluted, undefined, text);
      assert.equal(value.polluted, undefined, text);
    }
    const made = decode(`{"__proto__":{"$":["map",[]]},"b":1}`) as any;
    assert.equal(Object.getPrototypeOf(made), Object.prototype);
    assert.ok(Object.getOwnPropertyDescriptor(made, '__proto__')!.value instanceof Map);
    const error = decode(`{"$":["error",{"name":"E","message":"","props":{"__proto__":${evil}}}]}`) as any;
    assert.equal(Object.getPrototypeOf(error), Error.prototype);
  });

  it('do not stand in for members of an error', () => {
    const error = decode(`{"$":["error",{"name":"E","message":"m","__proto__":{"cause":1}}]}`) as Error;
    assert.ok(!('cause' in error));
    assert.throws(() => decode(`{"$":["error",{"__proto__":{"name":"E","message":"m"}}]}`), ProtocolViolation);
  });
});

describe('any input at all', () => {
  const small = fc.oneof(
    fc.constantFrom(
      ...KINDS,
      '$',
      '__proto__',
      'constructor',
      'Uint8Array',
      'Float64Array',
      'NaN',
      'Error',
      'BadInput',
    ),
    fc.integer({ min: -2, max: 20 }),
    fc.constantFrom(null, true, 1.5, 1e300),
  );
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof({ maxDepth: 5, withCrossShrink: true }, small, tie('tag'), tie('list'), tie('object')),
    list: fc.array(tie('tree'), { maxLength: 4 }),
    object: fc.dictionary(
      fc.constantFrom(
        '$',
        'a',
        '__proto__',
        'name',
        'message',
        'stack',
        'cause',
        'errors',
        'props',
        'wire',
        'data',
        'fields',
      ),
      tie('tree'),
      { maxKeys: 5 },
    ),
    tag: fc
      .tuple(fc.constantFrom(...KINDS), fc.array(tie('tree'), { maxLength: 3 }))
      .map(([kind, rest]) => ({ $: [kind, ...rest] })),
  }));

  it('is a value or a violation', () => {
    fc.assert(
      fc.property(tree, fc.uint8Array({ maxLength: 20 }), (value, bytes) => survives(JSON.stringify(value), bytes)),
      { numRuns: 4000 },
    );
  });

  it('is a value or a violation when a good message was changed on its way', () => {
    const values = fc.anything({
      withBigInt: true,
      withMap: true,
      withSet: true,
      withTypedArray: true,
      withSparseArray: true,
      withDate: true,
      withBoxedValues: true,
      maxDepth: 3,
    });
    const edit = fc.record({
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      what: fc.constantFrom('', ...'[]{}",:0-9$', ...KINDS),
    });
    fc.assert(
      fc.property(values, fc.array(edit, { minLength: 1, maxLength: 3 }), fc.nat(30), (value, edits, cut) => {
        const encoded = encodeValue([undefined, value, value, new Error('x', { cause: value })], new Table());
        let { text } = encoded;
        for (const { at, what } of edits) {
          const place = Math.floor(at * text.length);
          text = text.slice(0, place) + what + text.slice(place + 1);
        }
        try {
          JSON.parse(text);
        } catch {
          return; // The session has turned it away.
        }
        survives(text, attachments(encoded).subarray(cut));
      }),
      { numRuns: 3000 },
    );
  });

  it('may be large: thousands of tags, labels and bytes', () => {
    const many = (make: (i: number) => unknown) => JSON.stringify(Array.from({ length: 50_000 }, (_, i) => make(i)));
    survives(many((i) => (i % 2 === 0 ? tag('def', i, []) : tag('ref', i - 1))));
    survives(
      many((i) => tag('bytes', 'Uint8Array', i, 1)),
      new Uint8Array(50_000),
    );
    survives(
      many(() => tag('bytes', 'Uint8Array', 0, 50_000)),
      new Uint8Array(50_000),
    );
    survives(many(() => tag('hole')));
    survives(many(() => tag('regexp', '((((a*)*)*)*)*', '')));
  });
});
