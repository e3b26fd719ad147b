/**
 * The value codec among friends: what arrives is what was sent, or nothing is sent and the error says why. Over 400 lines,
 * because there is one case for every kind of value.
 */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { BadInput, isError, LIMITS, type MeshError, Overloaded, TooLarge, Unserialisable } from '@hauki/protocol';
import fc from 'fast-check';
import { encodeValue } from '../src/codec-encode.ts';
import { kindOf, reference } from '../src/references.ts';
import { across, assertSame, attachments, Table } from './codec-support.ts';

const text = (value: unknown) => encodeValue(value, new Table()).text;
const literal = (value: unknown) => encodeValue(value, new Table()).bytes === undefined;
const refused = (value: unknown, pattern: RegExp) =>
  assert.throws(
    () => encodeValue(value, new Table(), 'params'),
    (thrown) => isError(thrown, Unserialisable) && pattern.test(thrown.message),
  );

class Point {
  x: number;
  constructor(x: number) {
    this.x = x;
  }
  get double() {
    return this.x * 2;
  }
}
class Room {
  say() {
    return 'hello';
  }
}

describe('what JSON says', () => {
  it('travels literally, as JSON.stringify writes it', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6, stringUnit: 'binary' } as never), (value) => {
        if (JSON.stringify(value, (_, v) => (Object.is(v, -0) ? 'minus zero' : v)).includes('minus zero')) return;
        const encoded = encodeValue(value, new Table());
        assert.equal(encoded.text, JSON.stringify(value));
        assert.equal(encoded.bytes, undefined);
      }),
      { numRuns: 1000 },
    );
  });

  it('is literal also where an object looks like a tag, as long as nothing needs a tag', () => {
    const value = [{ $: ['undefined'] }, { $: { $: 1 } }];
    assert.equal(text(value), JSON.stringify(value));
    assert.equal(text([...value, undefined]).match(/"object"/g)?.length, 3);
    assert.deepStrictEqual(across([...value, undefined]), [...value, undefined]);
  });

  it('escapes what JSON escapes, in keys and values', () => {
    const odd = ['"', '\\', '\n', '\u0000', '\ud800', '\udc00\ud800', '😀', '\u2028', 'é', `${'x'.repeat(30)}"`];
    assert.equal(text(odd), JSON.stringify(odd));
    const keys = Object.fromEntries(odd.map((key, i) => [key, i]));
    assert.equal(text(keys), JSON.stringify(keys));
  });
});

describe('everything else', () => {
  it('arrives as it was sent, whatever it is made of', () => {
    fc.assert(
      fc.property(
        fc.anything({
          withBigInt: true,
          withMap: true,
          withSet: true,
          withTypedArray: true,
          withSparseArray: true,
          withDate: true,
          withBoxedValues: true,
          maxDepth: 4,
        }),
        (value) => assert.deepStrictEqual(across(value), value),
      ),
      { numRuns: 1000 },
    );
  });

  const leaf = fc.oneof(
    fc.constantFrom(undefined, null, Number.NaN, -0, Number.POSITIVE_INFINITY, 12n, -(2n ** 70n), true, '$', 'text'),
    fc.double(),
    fc.bigInt(),
  );
  const kinds = ['array', 'object', 'null', 'map', 'set', 'error', 'date', 'bytes', 'regexp'] as const;
  const link = fc.oneof(
    { weight: 2, arbitrary: fc.nat(30) },
    { weight: 1, arbitrary: leaf.map((value) => ({ value })) },
  );
  const node = fc.record({ kind: fc.constantFrom(...kinds), links: fc.array(link, { maxLength: 5 }) });

  /** A graph of any shape: every node may link to every other, itself included. */
  const graph = fc.array(node, { minLength: 1, maxLength: 30 }).map((nodes) => {
    const made: any[] = nodes.map(({ kind, links }, i) => {
      if (kind === 'array') return [];
      if (kind === 'map') return new Map();
      if (kind === 'set') return new Set();
      if (kind === 'error') return i % 2 === 0 ? new TypeError(`error ${i}`) : new AggregateError([], 'many');
      if (kind === 'date') return new Date(i);
      if (kind === 'regexp') return new RegExp(`a{${i}}`, 'gu');
      if (kind === 'bytes') return new Int16Array(links.length).fill(i);
      return {};
    });
    for (const [i, { kind, links }] of nodes.entries()) {
      const values = links.map((to) => (typeof to === 'number' ? made[to % made.length] : to.value));
      const self = made[i];
      if (kind === 'array') self.push(...values);
      if (kind === 'map')
        for (const [n, value] of values.entries()) self.set(n % 2 === 0 ? value : n, values[n - 1] ?? value);
      if (kind === 'set') for (const value of values) self.add(value);
      if (kind === 'error' && values.length > 0) Object.assign(self, { code: values[0], '2': values[1] });
      if (kind === 'error' && values.length > 1)
        Object.defineProperty(self, 'cause', { value: values[1], configurable: true, writable: true });
      if (kind === 'error' && self.errors) self.errors.push(...values);
      if (kind === 'object') for (const [n, value] of values.entries()) self[n === 0 ? '$' : `k${n}`] = value;
    }
    return made[0];
  });

  it('keeps what is shared shared, and cycles closed', () => {
    fc.assert(
      fc.property(graph, (value) => assertSame(across(value), value)),
      { numRuns: 1500 },
    );
  });

  it('keeps undefined apart from what is absent, and holes apart from undefined', () => {
    const gaps = [1, 2, 3, 4];
    delete gaps[1];
    delete gaps[3];
    const value = [{ a: undefined }, {}, [undefined], new Array(2), gaps];
    assert.deepStrictEqual(across(value), value);
    assert.deepStrictEqual(across(undefined), undefined);
  });

  it('copies instances without methods as plain objects, and reads no getter of their class', () => {
    assert.deepStrictEqual(across(new Point(2)), { x: 2 });
    assert.deepStrictEqual(across(Object.assign(Object.create(null), { a: 1 })), { a: 1 });
    assert.ok(literal(new Point(2)));
  });

  it('knows what other realms made', async () => {
    const { runInNewContext } = await import('node:vm');
    const foreign = runInNewContext(
      '({ a: [1, { b: 2 }], at: new Date(5), in: new Map([[1, 2]]), e: new TypeError("x") })',
    );
    assert.deepStrictEqual(across(foreign), {
      a: [1, { b: 2 }],
      at: new Date(5),
      in: new Map([[1, 2]]),
      e: new TypeError('x'),
    });
  });

  it('sends own properties called __proto__ as what they are', () => {
    const value = JSON.parse('[{"__proto__":{"polluted":1}},{"constructor":{"prototype":2}}]');
    value.push({ ['__proto__']: undefined });
    assert.deepStrictEqual(across(value), value);
    assert.equal(({} as any).polluted, undefined);
  });

  it('carries long lists', () => {
    const numbers = Array.from({ length: 100_000 }, (_, i) => i / 3);
    assert.deepStrictEqual(across(numbers), numbers);
    const objects = Array.from({ length: 10_000 }, (_, i) => ({ i, at: new Date(i) }));
    assert.deepStrictEqual(across([objects, objects[5_000]]), [objects, objects[5_000]]);
  });
});

describe('bytes', () => {
  it('travel beside the text, each view with its own', () => {
    const buffer = new Uint8Array([0, 1, 2, 3, 4, 5, 6, 7]).buffer;
    const value = [new Uint8Array(buffer, 2, 3), new Uint16Array(buffer, 4, 1), buffer, new DataView(buffer, 7)];
    const encoded = encodeValue(value, new Table());
    assert.deepEqual([...attachments(encoded)], [2, 3, 4, 4, 5, 0, 1, 2, 3, 4, 5, 6, 7, 7]);
    const arrived: unknown[] = across(value);
    assert.deepStrictEqual(arrived, value);
    for (const view of arrived.slice(0, 2) as Uint8Array[]) assert.equal(view.buffer.byteLength, view.byteLength);
  });

  it('are copied when they are encoded: the sender may write on', () => {
    const mine = new Uint8Array([1, 2, 3]);
    const encoded = encodeValue(mine, new Table());
    mine.fill(9);
    assert.deepEqual([...attachments(encoded)], [1, 2, 3]);
  });

  it('of a Buffer arrive as Uint8Array, shared ones as their own', () => {
    assert.deepStrictEqual(across(Buffer.from('hello')), new Uint8Array(Buffer.from('hello')));
    const shared = new Uint8Array(new SharedArrayBuffer(4)).fill(7);
    assert.deepStrictEqual(across(shared), new Uint8Array([7, 7, 7, 7]));
    assert.deepStrictEqual(across(shared.buffer), new Uint8Array([7, 7, 7, 7]).buffer);
  });

  it('of an array that was transferred away are refused', () => {
    const gone = new Uint8Array(4);
    structuredClone(gone, { transfer: [gone.buffer] });
    refused(gone, /cannot be read/);
    const view = new DataView(new ArrayBuffer(4));
    structuredClone(view.buffer, { transfer: [view.buffer] });
    refused(view, /cannot be read/);
  });

  it('more than a message holds are refused before they are copied', () => {
    assert.throws(
      () => encodeValue(new Uint8Array(LIMITS.message_bytes + 1), new Table()),
      (thrown) => isError(thrown, TooLarge),
    );
  });
});

describe('errors', () => {
  it('arrive as their class, with cause, errors and own properties', () => {
    const sent = Object.assign(new RangeError('outer', { cause: new Error('inner') }), { code: 'E_X', path: [1n] });
    const arrived = across(sent);
    assert.deepStrictEqual(arrived, sent);
    assert.ok(arrived instanceof RangeError && arrived.cause instanceof Error);
    assert.match(arrived.stack!, /codec\.test\.ts/);
    const many = across(new AggregateError([new TypeError('a'), 1], 'many'));
    assert.ok(many instanceof AggregateError && many.errors[0] instanceof TypeError && many.errors[1] === 1);
  });

  it('of the user’s own classes arrive as Error with their name, methods or not', () => {
    class TooFar extends Error {
      override name = 'TooFar';
      distance = 3;
      help() {}
    }
    const arrived = across(new TooFar('stop'));
    assert.equal(Object.getPrototypeOf(arrived), Error.prototype);
    assert.deepEqual([arrived.name, arrived.message, arrived.distance], ['TooFar', 'stop', 3]);
    assert.deepEqual(Object.keys(arrived), ['distance']);
  });

  it('of the table arrive as their class, with their fields', () => {
    const why = new BadInput({ what: 'size', why: 'odd' });
    const arrived = across([why, why]);
    assert.ok(isError(arrived[0], BadInput));
    assert.equal(arrived[0], arrived[1]);
    assert.deepEqual(
      [arrived[0].fields, arrived[0].message, arrived[0].code],
      [{ what: 'size', why: 'odd' }, why.message, why.code],
    );
    const own: MeshError<any> = new BadInput({ what: 'itself', why: undefined as never });
    own.fields.self = own;
    const back = across(own);
    assert.ok(back.fields.self === back && 'why' in back.fields);
  });

  it('that end an operation arrive as what the platform throws', () => {
    const arrived = across(AbortSignal.abort().reason);
    assert.ok(arrived instanceof DOMException);
    assert.equal(arrived.name, 'AbortError');
  });

  it('say what they are before their frames, also those of engines whose stacks are frames alone', () => {
    const error = new RangeError('too far', { cause: new TypeError('') });
    error.stack = '    at run (worker.mjs:1:2)\n    at go (worker.mjs:3:4)\n';
    (error.cause as Error).stack = '    at run (worker.mjs:1:2)\n';
    const arrived = across(error);
    assert.equal(arrived.stack, 'RangeError: too far\n    at run (worker.mjs:1:2)\n    at go (worker.mjs:3:4)');
    assert.equal(arrived.cause.stack, 'TypeError\n    at run (worker.mjs:1:2)');
    assert.equal(across(arrived).stack, arrived.stack);
  });

  it('take no more of a stack with them than there is use for', () => {
    const error = new Error('deep');
    error.stack = `Error: deep\n    at guest.mjs:1:1\n${'    at own.js\n'.repeat(1000)}`;
    assert.ok(!across(error).stack.includes('guest'));
    assert.ok(across(error).stack.length <= LIMITS.stack_chars);
  });
});

describe('what goes by reference', () => {
  const iterator = {
    next: () => ({ done: true, value: undefined }),
    [Symbol.iterator]() {
      return this;
    },
  };
  const cases: [string, object, string][] = [
    ['functions', () => 1, 'function'],
    ['async functions', async () => 1, 'function'],
    ['instances with methods', new Room(), 'object'],
    [
      'subclasses of built-ins with methods',
      new (class extends Map {
        sum() {}
      })(),
      'object',
    ],
    ['marked objects', reference({ a: 1 }), 'object'],
    ['marked lists', reference([1]), 'object'],
    ['marked instances', reference(new Point(1)), 'object'],
    ['signals', new AbortController().signal, 'signal'],
    ['streams of the web', new ReadableStream(), 'stream'],
    ['streams of Node', Readable.from([1]), 'iterable'],
    ['generators', (function* () {})(), 'iterable'],
    ['async generators', (async function* () {})(), 'iterable'],
    ['iterators of built-ins', [1].values(), 'iterable'],
    ['iterators by hand', iterator, 'iterable'],
    ['objects with an async iterator', { async *[Symbol.asyncIterator]() {} }, 'iterable'],
  ];
  for (const [name, value, kind] of cases)
    it(`${name} go as ${kind}`, () => {
      assert.equal(kindOf(value), kind);
      const table = new Table();
      const arrived = across({ deep: [value] }, table);
      assert.equal(arrived.deep[0], value);
      assert.deepEqual(table.given, [value]);
    });

  it('is nothing that can be copied', () => {
    for (const value of [
      { a: 1 },
      [1],
      new Point(1),
      new Map(),
      new Set(),
      new Date(),
      /x/,
      Buffer.from('x'),
      new Error(),
    ])
      assert.equal(kindOf(value), undefined);
  });

  it('is asked of the session before anything touches it', () => {
    const poked: string[] = [];
    const handler = new Proxy({} as ProxyHandler<object>, { get: (_, trap) => void poked.push(String(trap)) });
    const ghosts = [new Proxy(new Room(), handler), new Proxy(() => {}, handler)];
    const table = Object.assign(new Table(), { claims: (value: object) => ghosts.includes(value as Room) });
    table.give = () => ['yours', 1];
    assert.equal(encodeValue(ghosts, table).text, '[{"$":["yours",1]},{"$":["yours",1]}]');
    assert.deepEqual([...new Set(poked)], ['getPrototypeOf']);
  });

  it('is given back when the rest of the message cannot be sent', () => {
    const table = new Table();
    assert.throws(() => encodeValue([() => 1, Symbol('no')], table), Unserialisable);
    assert.equal(table.undone, 1);
    const full = Object.assign(new Table(), {
      give: () => {
        throw new Overloaded({ what: 'exports', limit: 1 });
      },
    });
    assert.throws(() => encodeValue([() => 1], full), Overloaded);
    assert.equal(full.undone, 1);
    assert.throws(() => encodeValue([Symbol('no')], table), Unserialisable);
    assert.equal(table.undone, 1);
  });
});

describe('what cannot be sent', () => {
  it('is refused with its place and what to do', () => {
    refused([{ a: { b: Symbol('s') } }], /params\[0\]\.a\.b is a symbol/);
    refused({ 'odd key': [Room] }, /params\["odd key"\]\[0\] is a class: .*instance/);
    refused([new Map([[1, Promise.resolve()]])], /params\[0\]\["entry 0"\] is of the class Promise: await it first/);
    refused([[...Array(20).keys(), Symbol('s')]], /params\[0\]\[20\] is a symbol/);
    refused(new Error('x', { cause: [Room] }), /params\.cause\[0\] is a class/);
    refused(new WeakMap(), /params is of the class WeakMap/);
    refused([new URL('http://x.example')], /params\[0\] is of the class URL: send its href/);
    refused(new AbortController(), /params is of the class AbortController: send what you need/);
    const Nameless = Object.defineProperty(() => {}, 'name', { value: '' }).bind(null);
    Nameless.prototype = Object.create({}, { constructor: { value: Nameless } });
    Object.defineProperty(Nameless, 'name', { value: '' });
    refused(Object.create(Nameless.prototype), /params is of the class without a name: send what you need/);
    refused(new Response('x'), /the class Response: send/);
    refused(new Intl.Collator(), /is of the class Collator: .*reference\(\)/);
    refused([new EventTarget()], /the class EventTarget: send what you need/);
    refused(new (class extends URL {})('http://x.example'), /the class URL/);
    refused(Object.create(Map.prototype), /cannot be read/);
    refused(new RegExp('a'.repeat(5000)), /regular expression of more than/);
    refused([10n ** 10_001n], /bigint of more than/);
    refused([-(10n ** 100_001n)], /bigint of more than/);
  });

  it('is what nests too deeply, literal or not', () => {
    const nest = (depth: number, make: (inner: unknown) => unknown) => {
      let value: unknown = 1;
      for (let i = 0; i < depth; i++) value = make(value);
      return value;
    };
    for (const make of [
      (inner: unknown) => [inner],
      (inner: unknown) => ({ inner }),
      (inner: unknown) => new Map([[inner, inner]]),
      (inner: unknown) => new Set([inner]),
      (inner: unknown) => Object.assign(new Error('x'), { inner }),
      (inner: unknown) => new BadInput({ what: '', why: inner as string }),
    ]) {
      const bearable = nest(make(0) instanceof BadInput ? LIMITS.depth / 2 : LIMITS.depth, make);
      assert.ok(across(bearable));
      refused(nest(LIMITS.depth + 1, make), /nested deeper than 128/);
    }
  });

  it('is what throws when it is read', () => {
    const angry = {
      get fine(): number {
        throw new Error('not today');
      },
    };
    refused([angry], /params\[0\]\.fine cannot be read: not today/);
    const trap = () => {
      throw new Error('trapped');
    };
    for (const name of ['get', 'ownKeys', 'getPrototypeOf', 'getOwnPropertyDescriptor'])
      refused([1, new Proxy({ a: 1 }, { [name]: trap })], /params\[1\](\.a)? cannot be read: trapped/);
    const { proxy, revoke } = Proxy.revocable([], {});
    revoke();
    refused({ a: proxy }, /params\.a cannot be read/);
    assert.throws(() => text(new Proxy([], { get: (_, key) => (key === 'length' ? 'many' : 1) })), TooLarge);
  });

  it('is a list longer than any message', () => {
    assert.throws(() => encodeValue(new Array(2 ** 31), new Table()), TooLarge);
  });
});

describe('reading', () => {
  it('asks every getter once, and sends that answer', () => {
    fc.assert(
      fc.property(fc.array(fc.anything({ maxDepth: 1 }), { minLength: 2, maxLength: 4 }), (answers) => {
        let asked = 0;
        const fickle = {
          get a() {
            return answers[asked++ % answers.length];
          },
          b: 1,
        };
        assert.deepStrictEqual(across([fickle, 1])[0].a, answers[0]);
        assert.equal(asked, 1);
      }),
    );
  });

  it('asks a proxy for every property once', () => {
    const asked: string[] = [];
    const proxy = new Proxy(
      { a: 1, b: [2] },
      {
        get(target: any, key) {
          if (typeof key === 'string') asked.push(key);
          return target[key];
        },
      },
    );
    assert.deepStrictEqual(across([undefined, proxy]), [undefined, { a: 1, b: [2] }]);
    assert.deepEqual(asked, ['a', 'b']);
  });

  it('never calls toJSON', () => {
    const never = () => assert.fail('toJSON was called');
    assert.equal(typeof across({ toJSON: never, a: 1 }).toJSON, 'function');
    const hidden = Object.defineProperty({ a: 1 }, 'toJSON', { value: never });
    assert.deepStrictEqual(across([hidden]), [{ a: 1 }]);
    assert.deepStrictEqual(across([hidden, undefined]), [{ a: 1 }, undefined]);
  });

  it('is refused where somebody gave all lists or objects a toJSON', () => {
    const value = [Array.from({ length: 30 }, (_, i) => `item ${i}`), { a: 1 }, undefined];
    for (const prototype of [Array.prototype, Object.prototype]) {
      Object.defineProperty(prototype, 'toJSON', { value: () => 'changed', configurable: true });
      try {
        refused(value, /toJSON/);
      } finally {
        delete (prototype as any).toJSON;
      }
    }
  });

  it('is refused before it is copied where its holes, names or entries alone are too much', () => {
    const unread = {
      get last() {
        return assert.fail('it was read to its end');
      },
    };
    const holes: unknown[] = [];
    holes.length = LIMITS.message_bytes / 4;
    holes.push(unread);
    const named = Array.from({ length: 80_000 }, (_, i) => [`${i}`.padEnd(120), 1]);
    const entries = new Map<unknown, unknown>(Array.from({ length: LIMITS.message_bytes / 6 }, (_, i) => [i, i]));
    entries.set('unread', unread);
    for (const value of [holes, { ...Object.fromEntries(named), unread }, entries])
      assert.throws(
        () => text(value),
        (thrown) => isError(thrown, TooLarge),
      );
  });

  it('may be entered again by what it reads', () => {
    const inner = {
      get text() {
        return text([undefined, {}]);
      },
    };
    assert.equal(across([undefined, inner])[1].text, '[{"$":["undefined"]},{}]');
  });
});
