/** The error table: the same error on both ends of a wire, and no wire that can do harm. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import * as called_errors from '../src/called-errors.ts';
import { toWire } from '../src/called-errors.ts';
import * as caller_errors from '../src/caller-errors.ts';
import { describe as describeThrown, fromWire, isError } from '../src/caller-errors.ts';
import * as other_errors from '../src/errors.ts';
import { type ErrorClass, MeshError } from '../src/mesh-error.ts';

const errors = { ...called_errors, ...caller_errors, ...other_errors };
const table = Object.values(errors).filter(
  (value): value is ErrorClass<any> => typeof value === 'function' && 'row' in value,
);

/** Fields that satisfy every row's text. */
const FIELDS = {
  why: 'because',
  method: 'look',
  has: ['a'],
  error_name: 'TypeError',
  worker: 'w-1',
  cause: 'oom',
  reason: 'out of memory',
  what: 'it',
  timeout_ms: 5,
  may_have_run: true,
  limit: 1,
  used: 1,
  asked: 1,
  since: '2026-01-01T00:00:00.000Z',
  limit_bytes: 2,
  grant: 'fetch',
  wanted: 'example.org:443',
  expired_at: '2026-01-01T00:00:00.000Z',
  ticket: 't-1',
  have: ['node-1'],
  driver: 'lxc',
  stage: 'parse',
  pointer: 'gem-pointer://wiki/a/b',
  digest: 'abc',
  version: 3,
  oldest: 1,
  newest: 2,
  deleted_at: '2026-01-01T00:00:00.000Z',
  found: null,
  after: 7,
  bytes: 10,
  got: 'def',
  media_type: 'image/png',
  upload: 'u-1234567',
  offset: 4,
  job: 'j-1',
  state: 'done',
  key: 'k-1',
  name: 'counter',
  token: 'ci-0a1b',
  volume: 'data',
  module: 'scraper',
};

const overWire = (thrown: unknown) => fromWire(JSON.parse(JSON.stringify(toWire(thrown))));

describe('the error table', () => {
  it('is found by this test', () => assert.ok(table.length >= 30, `${table.length} rows`));

  it('has a code and a name of its own in every row', () => {
    assert.equal(new Set(table.map(({ row }) => row.code)).size, table.length);
    assert.equal(new Set(table.map(({ row }) => row.name)).size, table.length);
  });

  it('exports every class by the name of its row', () => {
    for (const kind of table) assert.equal((errors as any)[kind.row.name], kind);
  });

  it('keeps its codes in JSON-RPC’s ranges, and statuses in HTTP’s', () => {
    for (const { row } of table) {
      const of_the_standard = row.code === -32700 || (row.code <= -32600 && row.code >= -32603);
      assert.ok(of_the_standard || (row.code <= -32000 && row.code >= -32099), `${row.name}: ${row.code}`);
      assert.ok(Number.isInteger(row.status) && row.status >= 400 && row.status < 600, `${row.name}: ${row.status}`);
    }
  });

  for (const kind of table)
    it(`${kind.row.name} is the same after the wire`, () => {
      const sent = new kind(FIELDS);
      const got = overWire(sent);
      assert.ok(got instanceof kind && got instanceof MeshError && got instanceof Error);
      assert.ok(isError(got, kind));
      assert.ok(sent.message.length > 0 && !sent.message.includes('undefined'), sent.message);
      for (const member of ['name', 'code', 'status', 'retryable', 'message', 'fields'] as const)
        assert.deepEqual(got[member], sent[member], member);
      assert.deepEqual(toWire(got), toWire(sent));
      assert.equal(overWire(new kind(FIELDS, 'other words')).message, 'other words');
      // Positive control: it is no other error.
      for (const other of table) if (other !== kind) assert.ok(!isError(got, other));
    });

  it('carries any fields and any words that JSON carries', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...table),
        fc.dictionary(fc.string(), fc.jsonValue()),
        fc.string({ unit: 'grapheme' }),
        (kind, fields, message) => {
          delete fields.remote_stack;
          const wire = JSON.parse(JSON.stringify(toWire(new kind(fields, message))));
          const got = fromWire(wire);
          assert.ok(got instanceof kind);
          assert.deepEqual(JSON.parse(JSON.stringify(toWire(got))), wire);
        },
      ),
    );
  });
});

describe('what travels of an error', () => {
  it('is name, message and own frames of a guest’s error, and nothing else', () => {
    const thrown = Object.assign(new RangeError('too far'), { secret: 'not for you' });
    thrown.stack =
      'RangeError: too far\n    at look (worker.mjs:3:7)\n    at call (guest.mjs:1:1)\n    at node:internal/x:1:1';
    const wire = toWire(thrown);
    assert.equal(wire.code, errors.RemoteError.row.code);
    assert.equal(wire.message, 'RangeError: too far');
    assert.ok(!JSON.stringify(wire).includes('not for you'));
    const got = fromWire(wire);
    assert.ok(isError(got, errors.RemoteError));
    assert.equal(got.fields.error_name, 'RangeError');
    assert.match(String(got.stack), /worker\.mjs:3:7/);
    assert.doesNotMatch(String(got.stack), /guest\.mjs|node:internal/);
  });

  it('is what an object says that is thrown and no error, or what it holds', () => {
    const said = (thrown: unknown) => toWire(thrown).message;
    assert.equal(said({ status: 404, message: 'Not found' }), 'Error: Not found');
    assert.equal(said(Object.assign(Object.create(null), { name: 'Odd', message: 'so it is' })), 'Odd: so it is');
    assert.equal(said({ status: 404, of: ['x'] }), 'Error: {"status":404,"of":["x"]}');
    assert.equal(said([1, 2]), 'Error: 1,2');
    assert.equal(said('text'), 'Error: text');
    assert.ok(said({ long: 'x'.repeat(100_000) }).length < 2_000);
  });

  it('has no frame of what a quickjs vault runs for the worker', () => {
    const thrown = new TypeError('no');
    const own = '    at run (worker.mjs:3:7)\n    at <anonymous> (gem-pointer://wiki/platform.js:1:2)';
    thrown.stack = `TypeError: no\n    at URL (platform.js:1:99)\n    at formData (forms.js:1:1)\n${own}\n    at streams.js:2:1\n    at x (crypto.js:1:1)`;
    assert.equal((toWire(thrown).data as any).fields.remote_stack, `TypeError: no\n${own}`);
  });

  it('is bounded, however long the stack', () => {
    const thrown = new Error('x');
    thrown.stack = 'Error: x\n'.padEnd(1_000_000, '    at f (worker.mjs:1:1)\n');
    assert.ok(JSON.stringify(toWire(thrown)).length < 10_000);
  });

  it('is something for every value that can be thrown, hostile ones too', () => {
    const getter = (name: string) =>
      Object.defineProperty(new Error('x'), name, {
        get() {
          throw new Error('trap');
        },
      });
    const revoked = Proxy.revocable({}, {});
    revoked.revoke();
    const hostile = [
      undefined,
      null,
      1n,
      Symbol('s'),
      () => 1,
      Object.create(null),
      { toString: null, valueOf: null },
      getter('name'),
      getter('message'),
      getter('stack'),
      Object.assign(new Error('x'), { name: Symbol('name'), message: 5 }),
      new Proxy(
        {},
        {
          getPrototypeOf() {
            throw new Error('trap');
          },
        },
      ),
      revoked.proxy,
    ];
    for (const [at, thrown] of hostile.entries()) {
      assert.doesNotThrow(() => JSON.stringify(toWire(thrown)), `toWire of the value ${at}`);
      assert.equal(typeof describeThrown(thrown), 'string');
      assert.ok(isError(fromWire(toWire(thrown)), errors.RemoteError));
    }
  });
});

it('an error with a message of several lines says it once in its stack', () => {
  const thrown = new Error('not equal:\n\n+ 1\n- 2');
  thrown.stack = 'Error: not equal:\n\n+ 1\n- 2\n    at check (worker.mjs:1:2)';
  assert.equal(fromWire(toWire(thrown)).stack, `RemoteError: ${thrown.stack}`);
});

describe('an error from a hostile peer', () => {
  it('never throws, and is always one of ours', () => {
    const code = fc.oneof(
      fc.integer(),
      fc.constantFrom<any>({ toString: null, valueOf: null }, [], null, 'x'),
      fc.jsonValue(),
    );
    const wire = fc.oneof(
      fc.jsonValue(),
      fc.record(
        {
          code,
          message: fc.oneof(fc.string(), fc.jsonValue()),
          data: fc.oneof(
            fc.jsonValue(),
            fc.record(
              {
                name: fc.oneof(
                  fc.constantFrom<any>(...table.map(({ row }) => row.name), '__proto__', 'constructor', 'toString'),
                  fc.jsonValue(),
                ),
                fields: fc.oneof(fc.jsonValue(), fc.record({ remote_stack: fc.oneof(fc.string(), fc.jsonValue()) })),
                retryable: fc.jsonValue(),
                stack: fc.jsonValue(),
              },
              { requiredKeys: [] },
            ),
          ),
        },
        { requiredKeys: [] },
      ),
    );
    fc.assert(
      fc.property(wire, (hostile) => {
        const got = fromWire(hostile);
        assert.ok(got instanceof MeshError);
        assert.equal(typeof got.message, 'string');
        assert.equal(typeof got.code, 'number');
        assert.equal(typeof got.retryable, 'boolean');
        describeThrown(got);
      }),
      { numRuns: 3000 },
    );
  });

  it('may even have a code that cannot be made text', () => {
    for (const code of [{ toString: null, valueOf: null }, { toString: 1 }, [[{ toString: null, valueOf: null }]]])
      assert.doesNotThrow(() => fromWire(JSON.parse(JSON.stringify({ code }))));
  });

  it('cannot reach prototypes through __proto__', () => {
    const got = fromWire(
      JSON.parse(
        '{"code":1,"message":"m","__proto__":{"polluted":1},"data":{"name":"BadInput","__proto__":{"polluted":1},"fields":{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}}}',
      ),
    );
    assert.ok(isError(got, errors.BadInput));
    for (const thing of [{}, got, Error.prototype, MeshError.prototype])
      assert.equal((thing as any).polluted, undefined);
    for (const name of ['__proto__', 'constructor', 'hasOwnProperty', 'toString'])
      assert.ok(isError(fromWire({ code: 5, message: 'm', data: { name } }), errors.RemoteError));
  });

  it('cannot choose whether to retry, nor another row’s code', () => {
    const got = fromWire({ code: -32003, message: 'm', data: { name: 'BadInput', retryable: true } });
    assert.equal(got.retryable, false);
    assert.equal(got.code, errors.BadInput.row.code);
  });

  it('is known by its code alone when it is one of JSON-RPC’s own', () => {
    for (const kind of [
      errors.ParseError,
      errors.InvalidRequest,
      errors.NoSuchMethod,
      errors.InvalidParams,
      errors.InternalError,
    ]) {
      const got = fromWire({ code: kind.row.code, message: 'in other words' });
      assert.ok(isError(got, kind as ErrorClass<any>));
      assert.equal(got.message, 'in other words');
    }
    assert.ok(isError(fromWire({ code: 42, message: 'm' }), errors.RemoteError));
  });
});

it('says of what is missing how it is started: a node or a kernel', () => {
  const none = (wanted: object) => new other_errors.NoNodeFits({ wanted, have: [] }).message;
  assert.match(none({ driver: 'lxc' }), /^No node fits\. .*There are no nodes; start one with: hauki node$/);
  for (const wanted of [{ kernel: 'any' }, { kernels: 3 }])
    assert.match(none(wanted), /^No kernel fits\. .*There are no kernels; start one with: hauki kernel --join$/);
  const some = new other_errors.NoNodeFits({ wanted: { kernel: 'Microkernel-9' }, have: ['Microkernel-7'] });
  assert.match(some.message, /^No kernel fits\. .*"Microkernel-9".* There is: Microkernel-7$/);
});
