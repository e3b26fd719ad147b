/** The short ways of writing and reading: they give what the long ways give, or leave it to them. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { encodeValue } from '../src/codec-encode.ts';
import { plainText, readPlain } from '../src/plain-text.ts';
import { reference } from '../src/references.ts';
import { Table } from './codec-support.ts';

const word = fc.oneof(
  fc.string({ unit: 'binary' } as never),
  fc.double(),
  fc.integer(),
  fc.boolean(),
  fc.constantFrom(null, undefined, -0, Number.NaN, Number.POSITIVE_INFINITY, 2n, '__proto__'),
);
const json = fc.oneof(fc.string({ unit: 'binary' } as never), fc.integer(), fc.boolean(), fc.constant(null));
const value = fc.oneof(
  word,
  fc.array(word, { maxLength: 20 }),
  fc.array(fc.oneof({ weight: 30, arbitrary: json }, word), { maxLength: 60 }),
  fc.array(fc.oneof({ weight: 5, arbitrary: json }, fc.array(json, { maxLength: 60 })), { maxLength: 5 }),
  fc.jsonValue({ maxDepth: 3 }),
);

describe('writing the short way', () => {
  it('gives the text of the long way, or nothing', () => {
    let short = 0;
    fc.assert(
      fc.property(value, (what) => {
        const text = plainText(what);
        if (text === undefined) return;
        short++;
        assert.deepEqual({ text, bytes: undefined }, encodeValue(what, new Table()));
      }),
      { numRuns: 2000 },
    );
    assert.ok(short > 500, `${short} of 2000 went the short way`);
  });

  it('leaves to the long way what is not JSON, nested further, too long, marked, of a class, or not what it seems', () => {
    class Row extends Array<number> {}
    const hole = [1, 2];
    delete hole[0];
    const trap = new Proxy([1], {
      getPrototypeOf() {
        throw new Error('no');
      },
    });
    const endless = new Proxy([1], { get: (list, key) => (key === 'length' ? Number.NaN : Reflect.get(list, key)) });
    const iterating = Object.assign([1], { [Symbol.asyncIterator]: () => {} });
    for (const what of [
      -0,
      Number.NaN,
      1n,
      undefined,
      Symbol.iterator,
      () => {},
      {},
      [[], []],
      [[[]]],
      [-0],
      [undefined],
    ])
      assert.equal(plainText(what), undefined);
    const own: unknown[] = [];
    own.push(own);
    const twice = Array(2).fill(['a']);
    const ill = [own, twice, 'x'.repeat(5000), Array(5000).fill(0), Array(20).fill('x'.repeat(100_000))];
    for (const bad of [hole, trap, endless, iterating, Row.of(1), reference([1]), ...ill])
      for (const what of [bad, ['a', bad], [...Array(20).keys(), bad]]) {
        if (Array.isArray(what) && what.length > 1 && typeof bad === 'string') continue;
        assert.equal(plainText(what), undefined);
      }
  });
});

describe('reading the short way', () => {
  const params = fc.array(fc.jsonValue({ maxDepth: 3 }), { maxLength: 4 });
  const method = fc.oneof(fc.constantFrom('add', 'rpc.get', ''), fc.string({ unit: 'binary' } as never));
  const long = ({ id, method, params, result }: any) => ({ id, method, params, result });

  it('gives what parsing gives for calls and answers as we write them', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1 }),
        method,
        params,
        fc.jsonValue(),
        fc.boolean(),
        (id, name, list, result, rpc) => {
          const more = rpc ? `,"rpc":{"timeout_ms":${list.length}}` : '';
          const call = `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(name)},"params":${JSON.stringify(list)}${more}}`;
          const answer = `{"jsonrpc":"2.0","id":${id},"result":${JSON.stringify(result)}}`;
          const read = readPlain(call);
          if (rpc || JSON.stringify(name).includes('\\')) assert.equal(read, undefined);
          else assert.deepEqual(long(read), long(JSON.parse(call)));
          assert.deepEqual(long(readPlain(answer)), long(JSON.parse(answer)));
        },
      ),
      { numRuns: 500 },
    );
  });

  it('leaves everything else to parsing, or reads what parsing reads', () => {
    const call = '{"jsonrpc":"2.0","id":12,"method":"add","params":[1,"]}",2]}';
    fc.assert(
      fc.property(
        fc.nat(call.length),
        fc.nat(3),
        fc.constantFrom('', '"', '\\', '}', ']', '{', ',', '0', ' '),
        (at, cut, put) => {
          const text = call.slice(0, at) + put + call.slice(at + cut);
          const read = readPlain(text);
          if (read !== undefined) assert.deepEqual(long(read), long(JSON.parse(text)));
        },
      ),
      { numRuns: 5000 },
    );
    for (const text of [
      '{"jsonrpc":"2.0","id":01,"result":1}',
      '{"jsonrpc":"2.0","id":0,"result":1}',
      '{"jsonrpc":"2.0","id":9007199254740993,"result":1}',
      '{"jsonrpc":"2.0","id":1,"result":1,"id":2}',
      '{"jsonrpc":"2.0","id":1,"method":"a","params":[],"rpc":[]}',
      '{"jsonrpc":"2.0","id":1,"method":"a","params":{}}',
      '{"jsonrpc":"2.0","id":1,"method":"a',
      '{"jsonrpc":"2.0","id":"1","result":1}',
      '{"jsonrpc":"2.0","id":1,"result":}',
    ])
      assert.equal(readPlain(text), undefined, text);
  });
});
