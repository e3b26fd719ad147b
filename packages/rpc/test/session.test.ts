/**
 * Sessions: what both ends may rely on, in memory and over real TCP. Over 400 lines, because all parts share the helpers
 * that join two ends and speak raw frames.
 */
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { describe, it } from 'node:test';
import {
  BadInput,
  ConnectionLost,
  DeadlineExceeded,
  type ErrorClass,
  isError,
  LIMITS,
  type MeshError,
  NoSuchMethod,
  OutcomeUnknown,
  Overloaded,
  RemoteError,
  TooLarge,
  Unserialisable,
  WorkerDied,
} from '@hauki/protocol';
import fc from 'fast-check';
import { FRAMES_AT_ONCE } from '../src/frames.ts';
import { remote, serve } from '../src/serve.ts';
import { type Dispatch, Session, type SessionOptions } from '../src/session.ts';
import type { Transport, TransportEvents } from '../src/transport.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { streamTransport } from '../src/transports/stream.ts';
import { listening, settle, tcpPair, tornPair, until } from './support.ts';

const rejectsWith = async <F extends object>(promise: Promise<unknown>, kind: ErrorClass<F>): Promise<MeshError<F>> => {
  try {
    await promise;
  } catch (thrown) {
    assert.ok(isError(thrown, kind), `expected ${kind.row.name}, got ${thrown}`);
    return thrown;
  }
  assert.fail(`expected ${kind.row.name}, but it resolved`);
};

/** Records what a session sends, and lets a test play the peer. */
class Script implements Transport {
  readonly sent: any[] = [];
  readonly closes: string[] = [];
  events!: TransportEvents;
  buffered_bytes = 0;
  carried_bytes = 0;
  start(events: TransportEvents): void {
    this.events = events;
  }
  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
  close(reason = 'closed'): void {
    this.closes.push(reason);
    this.events.close(reason);
  }
  say(message: unknown): void {
    this.events.message(typeof message === 'string' ? message : JSON.stringify(message));
  }
}

const echo: Dispatch = (method, params) => {
  if (method === 'echo') return (params as unknown[])[0];
  if (method === 'fail') throw new RangeError('out of reach');
  if (method === 'typed') throw new BadInput({ what: 'x', why: 'because' });
  if (method === 'hang') return new Promise(() => {});
  throw new NoSuchMethod({ method, has: ['echo'] });
};

const pairs: Record<string, () => Promise<{ a: Transport; b: Transport; end(): Promise<void> }>> = {
  memory: async () => {
    const [a, b] = memoryPair();
    return { a, b, end: async () => {} };
  },
  TCP: async () => {
    const { a, b, end } = await tcpPair();
    return { a: streamTransport(a), b: streamTransport(b), end };
  },
  'TCP torn into single bytes': async () => {
    const { a, b, end } = await tornPair(() => 1 + Math.floor(Math.random() * 3));
    return { a: streamTransport(a), b: streamTransport(b), end };
  },
};

for (const [name, makePair] of Object.entries(pairs))
  describe(`a session over ${name}`, () => {
    const using = async (
      body: (a: Session, b: Session) => Promise<void>,
      of_a: Partial<SessionOptions> = {},
      of_b: Partial<SessionOptions> = {},
    ) => {
      const { a, b, end } = await makePair();
      const left = new Session({ transport: a, dispatch: echo, ...of_a });
      const right = new Session({ transport: b, dispatch: echo, ...of_b });
      try {
        await body(left, right);
      } finally {
        left.close();
        right.close();
        await end();
      }
    };

    it('carries calls and errors both ways at once', () =>
      using(async (a, b) => {
        const work = [a, b].flatMap((session, side) =>
          Array.from({ length: 20 }, async (_, i) => {
            assert.deepEqual(await session.call('echo', [{ side, i, text: 'päätös 😀' }]), {
              side,
              i,
              text: 'päätös 😀',
            });
            const remote_error = await rejectsWith(session.call('fail'), RemoteError);
            assert.equal(remote_error.message, 'RangeError: out of reach');
            assert.equal(remote_error.fields.error_name, 'RangeError');
            const typed = await rejectsWith(session.call('typed'), BadInput);
            assert.deepEqual(typed.fields, { what: 'x', why: 'because' });
            assert.deepEqual((await rejectsWith(session.call('nothing'), NoSuchMethod)).fields, {
              method: 'nothing',
              has: ['echo'],
            });
          }),
        );
        await Promise.all(work);
      }));

    it('keeps many calls in flight and matches answers that come out of order', () =>
      using(
        async (a) => {
          const order: number[] = [];
          const calls = Array.from({ length: 50 }, (_, i) =>
            a.call('later', [i]).then((v) => void order.push(v as number)),
          );
          await Promise.all(calls);
          assert.deepEqual(
            order,
            Array.from({ length: 50 }, (_, i) => 49 - i),
          );
        },
        {},
        {
          dispatch: (() => {
            // Holds all, then answers the last first.
            const held: (() => void)[] = [];
            return (_, params) =>
              new Promise((resolve) => {
                held.push(() => resolve((params as number[])[0]));
                if (held.length === 50)
                  setImmediate(() => {
                    for (const go of held.reverse()) go();
                  });
              });
          })(),
        },
      ));

    it('delivers notifications in order, and answers none', async () => {
      const heard: unknown[] = [];
      await using(
        async (a) => {
          for (let i = 0; i < 10; i++) a.notify('note', [i]);
          assert.equal(await a.call('echo', ['after']), 'after');
          assert.deepEqual(heard, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
          assert.ok(a.open);
        },
        {},
        {
          dispatch: (method, params, session, call) => {
            if (method !== 'note') return echo(method, params, session, call);
            heard.push((params as unknown[])[0]);
            throw new Error('nobody hears of this');
          },
        },
      );
    });

    it('lets what serves a call call back over the same session', () =>
      using(
        async (a) => {
          assert.equal(await a.call('twice', ['x']), 'x');
        },
        {},
        { dispatch: (_, params, session) => session.call('echo', params as unknown[]) },
      ));

    it('rejects what waits with OutcomeUnknown when it closes, and what comes later with ConnectionLost', () =>
      using(async (a, b) => {
        const waiting = [a.call('hang'), a.call('hang'), b.call('hang')];
        const outcomes = waiting.map((call) => rejectsWith(call, OutcomeUnknown));
        await settle();
        a.close('enough of this');
        const [first] = await Promise.all(outcomes);
        assert.equal(first!.fields.method, 'hang');
        assert.equal(first!.fields.why, 'enough of this');
        assert.equal(first!.retryable, false);
        assert.equal(await a.closed, 'enough of this');
        await b.closed;
        for (const session of [a, b]) {
          assert.equal(session.open, false);
          assert.equal((await rejectsWith(session.call('echo', [1]), ConnectionLost)).retryable, true);
          assert.throws(
            () => session.notify('echo', [1]),
            (thrown) => isError(thrown, ConnectionLost),
          );
        }
      }));

    it('says what `explain` knows, to those who waited and to those who come later', async () => {
      let asked = 0;
      const died = () => new WorkerDied({ worker: 'w-1', cause: 'oom', reason: 'out of memory' });
      await using(
        async (a, b) => {
          const waiting = rejectsWith(a.call('hang'), WorkerDied);
          await settle();
          b.close();
          await until(() => !a.open, 'the end to be noticed');
          // Asked while the explanation is still on its way.
          const meanwhile = rejectsWith(a.call('echo', [1]), WorkerDied);
          assert.equal((await waiting).fields.cause, 'oom');
          await meanwhile;
          const { fields } = await rejectsWith(a.call('echo', [1]), WorkerDied);
          assert.equal(await a.closed, fields.reason);
          assert.equal(asked, 1);
        },
        {
          explain: async () => {
            asked++;
            await new Promise((resolve) => setTimeout(resolve, 20));
            return died();
          },
        },
      );
    });

    it('leaves the outcome unknown when nobody can explain', () =>
      using(
        async (a, b) => {
          const waiting = rejectsWith(a.call('hang'), OutcomeUnknown);
          await settle();
          b.close();
          await waiting;
          await rejectsWith(a.call('echo', [1]), ConnectionLost);
        },
        { explain: () => Promise.reject(new Error('the core is gone too')) },
      ));

    it('answers an oversized result with TooLarge, and lives on', () =>
      using(
        async (a) => {
          const error = await rejectsWith(a.call('huge'), TooLarge);
          assert.equal(error.fields.limit_bytes, LIMITS.message_bytes);
          assert.equal(await a.call('echo', ['alive']), 'alive');
        },
        {},
        {
          dispatch: (method, params, session, call) =>
            method === 'huge' ? 'x'.repeat(LIMITS.message_bytes + 1) : echo(method, params, session, call),
        },
      ));

    it('gives an error for an answer that cannot be sent, and lives on', () =>
      using(
        async (a) => {
          const error = await rejectsWith(a.call('odd'), Unserialisable);
          assert.match(error.message, /inner.*symbol/);
          assert.equal(await a.call('echo', ['alive']), 'alive');
        },
        {},
        {
          dispatch: (method, params, session, call) =>
            method === 'odd' ? { inner: Symbol('one') } : echo(method, params, session, call),
        },
      ));
  });

describe('sizes are counted in bytes, as frames are', () => {
  const using = async (body: (a: Session) => Promise<void>) => {
    const { a, b, end } = await tcpPair();
    const left = new Session({ transport: streamTransport(a) });
    const right = new Session({
      transport: streamTransport(b),
      dispatch: (method, params) => (method === 'wide' ? '€'.repeat(3 * 1024 * 1024) : (params as unknown[]).length),
    });
    try {
      await body(left);
    } finally {
      left.close();
      right.close();
      await end();
    }
  };

  it('an answer that is too large only in UTF-8 is an error at the caller, and the session lives', () =>
    using(async (a) => {
      await rejectsWith(a.call('wide'), TooLarge);
      assert.equal(await a.call('count', [1, 2]), 2);
    }));

  it('parameters that are too large only in UTF-8 are refused before they are sent', () =>
    using(async (a) => {
      await rejectsWith(a.call('count', ['€'.repeat(3 * 1024 * 1024)]), TooLarge);
      assert.equal(await a.call('count', [1, 2]), 2);
    }));

  it('parameters that fit, but not with the message around them, are refused before they are sent', () =>
    using(async (a) => {
      await rejectsWith(a.call('count', ['x'.repeat(LIMITS.message_bytes - 10)]), TooLarge);
      assert.throws(
        () => a.notify('count', ['x'.repeat(LIMITS.message_bytes - 10)]),
        (thrown) => isError(thrown, TooLarge),
      );
      assert.equal(await a.call('count', [1, 2]), 2);
    }));

  it('the largest message that is allowed arrives', () =>
    using(async (a) => {
      assert.equal(await a.call('count', ['x'.repeat(LIMITS.message_bytes - 100)]), 1);
    }));
});

describe('deadlines', () => {
  it('a call that gets no answer fails with DeadlineExceeded at the caller, and may have run', async () => {
    const [a, b] = memoryPair();
    const session = new Session({ transport: a, timeout_ms: 30 });
    new Session({ transport: b, dispatch: echo });
    const keep = setInterval(() => {}, 1000);
    const error = await rejectsWith(session.call('hang'), DeadlineExceeded);
    assert.deepEqual(error.fields, { what: 'hang()', timeout_ms: 30, may_have_run: true });
    assert.equal(error.retryable, false);
    const named = await rejectsWith(session.call('hang', [], { timeout_ms: 5 }), DeadlineExceeded);
    assert.equal(named.fields.timeout_ms, 5);
    assert.equal(await session.call('echo', ['alive']), 'alive');
    clearInterval(keep);
    session.close();
  });

  it('each call has its own, whatever order they were made in', async (t) => {
    let now = 1_000;
    t.mock.timers.enable({ apis: ['setTimeout'] });
    t.mock.method(performance, 'now', () => now);
    const [a, b] = memoryPair();
    const session = new Session({ transport: a });
    new Session({ transport: b, dispatch: echo });
    const fired: [after_ms: number, timeout_ms: number][] = [];
    const all = [300, 10, 150, 450, 10].map((timeout_ms) =>
      rejectsWith(session.call('hang', [], { timeout_ms }), DeadlineExceeded).then(() =>
        fired.push([now - 1_000, timeout_ms]),
      ),
    );
    for (let steps = 0; steps < 50; steps++) {
      now += 10;
      t.mock.timers.tick(10);
      await laid();
    }
    assert.deepEqual(
      fired,
      [10, 10, 150, 300, 450].map((ms) => [ms, ms]),
    );
    await Promise.all(all);
    session.close();
  });

  it('a late answer is ignored', async () => {
    const script = new Script();
    const session = new Session({ transport: script });
    const keep = setInterval(() => {}, 1000);
    await rejectsWith(session.call('slow', [], { timeout_ms: 5 }), DeadlineExceeded);
    script.say({ jsonrpc: '2.0', id: script.sent[0].id, result: 'too late' });
    assert.ok(session.open);
    const next = session.call('quick');
    await laid();
    const { id } = script.sent.at(-1);
    script.say({ jsonrpc: '2.0', id, result: 'in time' });
    script.say({ jsonrpc: '2.0', id, result: 'twice' });
    script.say({ jsonrpc: '2.0', id: 999_999, result: 'never asked' });
    assert.equal(await next, 'in time');
    assert.ok(session.open);
    clearInterval(keep);
  });

  it('a deadline beyond the range of timers does not make the timer spin', async () => {
    const warnings: Error[] = [];
    const hear = (warning: Error) => void (warning.name === 'TimeoutOverflowWarning' && warnings.push(warning));
    process.on('warning', hear);
    const script = new Script();
    const session = new Session({ transport: script });
    const call = session.call('long', [], { timeout_ms: 30 * 24 * 3600 * 1000 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    script.say({ jsonrpc: '2.0', id: script.sent[0].id, result: 'done' });
    assert.equal(await call, 'done');
    process.off('warning', hear);
    assert.deepEqual(warnings, []);
  });
});

/** Calls leave at the end of the turn that made them. */
const laid = () => new Promise((resolve) => setImmediate(resolve));

describe('limits', () => {
  it('refuses calls beyond those in flight with Overloaded, and takes them again when answers came', async () => {
    const script = new Script();
    const session = new Session({ transport: script });
    const calls = Array.from({ length: LIMITS.calls_in_flight }, () => session.call('x'));
    const refused = await rejectsWith(session.call('one too many'), Overloaded);
    assert.equal(refused.fields.limit, LIMITS.calls_in_flight);
    assert.equal(refused.retryable, true);
    await laid();
    assert.equal(script.sent.length, LIMITS.calls_in_flight);
    script.say({ jsonrpc: '2.0', id: script.sent[0].id, result: 1 });
    const taken = session.call('again');
    await laid();
    assert.equal(script.sent.at(-1).method, 'again');
    for (const { id } of script.sent.slice(1)) script.say({ jsonrpc: '2.0', id, result: 1 });
    await Promise.all([...calls, taken]);
  });

  it('serves a bounded number of calls at once, and refuses the rest with Overloaded', async () => {
    const script = new Script();
    const held: (() => void)[] = [];
    new Session({ transport: script, dispatch: () => new Promise<void>((resolve) => held.push(resolve)) });
    for (let id = 1; id <= LIMITS.calls_in_flight + 1; id++) script.say({ jsonrpc: '2.0', id, method: 'x' });
    await settle();
    assert.equal(held.length, LIMITS.calls_in_flight);
    assert.deepEqual(
      script.sent.map(({ id, error }) => [id, error.data.name]),
      [[LIMITS.calls_in_flight + 1, 'Overloaded']],
    );
    held[0]!();
    await settle();
    script.say({ jsonrpc: '2.0', id: 'next', method: 'x' });
    assert.equal(held.length, LIMITS.calls_in_flight + 1);
  });

  it('refuses calls while too many bytes are unsent, and begins the peer’s when it has read', async () => {
    const script = new Script();
    const session = new Session({ transport: script, dispatch: () => 'an answer' });
    script.buffered_bytes = LIMITS.unsent_bytes + 1;
    await rejectsWith(session.call('x'), Overloaded);
    assert.throws(
      () => session.notify('x'),
      (thrown) => isError(thrown, Overloaded),
    );
    assert.deepEqual(script.sent, []);
    script.say({ jsonrpc: '2.0', id: 1, method: 'x' });
    await settle();
    assert.deepEqual(script.sent, []);
    script.buffered_bytes = 0;
    await until(() => script.sent.length > 0, 'the answer');
    assert.deepEqual(script.sent, [{ jsonrpc: '2.0', id: 1, result: 'an answer' }]);
    assert.deepEqual(script.closes, []);
  });

  it('refuses parameters that cannot be sent, naming the place, and sends nothing', async () => {
    const script = new Script();
    const session = new Session({ transport: script });
    const bad: [unknown, RegExp][] = [
      [{ deep: { mark: Symbol('x') } }, /deep\.mark.*symbol/],
      [[1, 2, Promise.resolve(3)], /\[2\].*Promise/],
      [{ seen: new WeakMap() }, /seen.*WeakMap/],
      [{ made: class {} }, /made.*class/],
    ];
    for (const [value, pattern] of bad)
      assert.match((await rejectsWith(session.call('x', [value]), Unserialisable)).message, pattern);
    assert.throws(
      () => session.notify('x', [Symbol('x')]),
      (thrown) => isError(thrown, Unserialisable),
    );
    assert.equal(script.sent.length, 0);
    const call = session.call('still alive');
    await laid();
    script.say({ jsonrpc: '2.0', id: script.sent[0].id, result: true });
    assert.equal(await call, true);
  });

  it('sends the messages of one turn in as few writes as pay off', async () => {
    let writes = 0;
    const stream = new Duplex({
      read() {},
      write(_chunk, _encoding, done) {
        writes++;
        done();
      },
    });
    const session = new Session({ transport: streamTransport(stream) });
    for (let i = 0; i < 100; i++) {
      session.call('x', [i]).catch(() => {});
      session.notify('y', [i]);
    }
    await settle();
    assert.equal(writes, Math.ceil(200 / FRAMES_AT_ONCE));
    session.close();
  });
});

describe('a peer that breaks the protocol', () => {
  const bad: [string, string][] = [
    ['something that is not JSON', '{"jsonrpc"'],
    ['a number', '1'],
    ['null', 'null'],
    ['an array', '[]'],
    ['neither a call nor an answer', '{"jsonrpc":"2.0"}'],
    ['an error without an id', '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}'],
    ['an answer to a text', '{"jsonrpc":"2.0","id":"x","result":1}'],
  ];
  for (const [what, text] of bad)
    it(`ends the session by sending ${what}; callers are told`, async () => {
      const script = new Script();
      const session = new Session({ transport: script });
      const waiting = rejectsWith(session.call('x'), OutcomeUnknown);
      script.say(text);
      await waiting;
      assert.equal(session.open, false);
      assert.equal(script.closes.length, 1);
    });

  it('is told to a hostile error member by nothing worse than an error of the call', async () => {
    for (const error of [
      null,
      1,
      'text',
      [],
      {},
      { code: { toString: null, valueOf: null }, message: 1 },
      { code: 'x', message: {}, data: { name: '__proto__', fields: null } },
      { code: -32000, message: 'm', data: { name: 'RemoteError', fields: { remote_stack: 5 } } },
      JSON.parse('{"code":1,"message":"m","data":{"name":"BadInput","fields":{"__proto__":{"polluted":true}}}}'),
    ]) {
      const script = new Script();
      const session = new Session({ transport: script });
      const call = session.call('x');
      await laid();
      script.say({ jsonrpc: '2.0', id: script.sent[0].id, error });
      await assert.rejects(call, (thrown) => thrown instanceof Error);
      assert.ok(session.open);
    }
    assert.equal(({} as any).polluted, undefined);
  });

  it('ends with its own session; others of the same server live', async () => {
    const sessions: Session[] = [];
    const server = await listening((socket) => {
      sessions.push(new Session({ transport: streamTransport(socket), dispatch: echo }));
    });
    const good = new Session({ transport: streamTransport(connect(server.port, '127.0.0.1')) });
    assert.equal(await good.call('echo', ['before']), 'before');
    const text = Buffer.from('{"not json');
    const malformed = Buffer.concat([Buffer.from([0, 0, 0, text.length + 1, 1]), text]);
    for (const bytes of [malformed, Buffer.from([0, 0xff, 0xff, 0xff, 1]), Buffer.from([0, 0, 0, 3, 9, 1, 2]), text]) {
      const hostile = connect(server.port, '127.0.0.1');
      hostile.on('error', () => {});
      const gone = new Promise((resolve) => hostile.on('close', resolve));
      hostile.write(bytes);
      await gone;
      assert.equal(await good.call('echo', ['during']), 'during');
    }
    assert.deepEqual(
      sessions.map((session) => session.open),
      [true, false, false, false, false],
    );
    good.close();
    await server.end();
  });

  it('cannot crash a session with any message', async () => {
    const messageish = fc.oneof(
      fc.json(),
      fc.string({ unit: 'binary' }),
      fc
        .record(
          {
            jsonrpc: fc.constant('2.0'),
            id: fc.oneof(fc.constantFrom(1, 2, null, 'x', true, {}, [], 1e308, -0), fc.jsonValue()),
            method: fc.oneof(fc.constantFrom('echo', '__proto__', 'constructor', 'then'), fc.jsonValue()),
            params: fc.jsonValue(),
            result: fc.jsonValue(),
            error: fc.oneof(
              fc.jsonValue(),
              fc.record(
                {
                  code: fc.oneof(fc.integer(), fc.jsonValue(), fc.constant({ toString: null, valueOf: null })),
                  message: fc.oneof(fc.string(), fc.jsonValue()),
                  data: fc.oneof(
                    fc.jsonValue(),
                    fc.record({
                      name: fc.constantFrom('RemoteError', 'TooLarge', 'NoSuchMethod', '__proto__', 1),
                      fields: fc.jsonValue(),
                    }),
                  ),
                },
                { requiredKeys: [] },
              ),
            ),
          },
          { requiredKeys: [] },
        )
        .map((message) => JSON.stringify(message)),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(messageish, { maxLength: 6 }), async (messages) => {
        const script = new Script();
        const session = new Session({ transport: script, dispatch: echo });
        const calls = [session.call('a'), session.call('b')].map((call) => call.catch((thrown) => thrown));
        for (const message of messages) if (session.open) script.say(message);
        session.close();
        await Promise.all(calls);
        assert.equal(script.sent.filter(({ method }) => method === undefined).length <= messages.length, true);
      }),
      { numRuns: 500 },
    );
  });

  it('cannot crash a server with any bytes', async () => {
    const server = await listening((socket) => {
      new Session({ transport: streamTransport(socket), dispatch: echo });
    });
    const good = new Session({ transport: streamTransport(connect(server.port, '127.0.0.1')) });
    const frameish = fc
      .tuple(fc.nat({ max: 40 }), fc.constantFrom(1, 1, 1, 0, 2), fc.uint8Array({ maxLength: 40 }))
      .map(([length, kind, body]) => Uint8Array.from([0, 0, 0, length, kind, ...body]));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.uint8Array({ maxLength: 80 }), frameish), { minLength: 1 }),
        async (chunks) => {
          const hostile: Socket = connect(server.port, '127.0.0.1');
          hostile.on('error', () => {});
          const gone = new Promise((resolve) => hostile.on('close', resolve));
          for (const chunk of chunks) hostile.write(chunk);
          hostile.end();
          hostile.resume();
          await gone;
          assert.equal(await good.call('echo', ['alive']), 'alive');
        },
      ),
      { numRuns: 150 },
    );
    good.close();
    await server.end();
  });
});

describe('what a dispatch throws', () => {
  it('reaches the caller as an error, whatever it is', async () => {
    const revoked = Proxy.revocable({}, {});
    revoked.revoke();
    const hostile: unknown[] = [
      undefined,
      null,
      'text',
      1n,
      Symbol('s'),
      Object.create(null),
      {
        get message() {
          throw new Error('no');
        },
      },
      Object.defineProperty(new Error('x'), 'message', {
        get() {
          throw new Error('no');
        },
      }),
      Object.assign(new Error('x'), { name: Symbol('name') }),
      new Proxy(
        {},
        {
          getPrototypeOf() {
            throw new Error('no');
          },
        },
      ),
      revoked.proxy,
    ];
    for (const thrown of hostile) {
      const [a, b] = memoryPair();
      const session = new Session({ transport: a });
      new Session({
        transport: b,
        dispatch: () => {
          throw thrown;
        },
      });
      const timer = setTimeout(() => session.close('no answer came'), 5_000);
      const error = await session.call('x').catch((e) => e);
      clearTimeout(timer);
      assert.ok(isError(error, RemoteError), `got ${error}`);
      session.close();
    }
  });
});

describe('serve and remote', () => {
  class Shop {
    stock = 3;
    left(): number {
      return this.stock;
    }
    named(given: { a: number }): number {
      return given.a;
    }
    secret(): string {
      return 'not listed';
    }
  }

  it('calls the listed methods of the object and nothing else', async () => {
    const [a, b] = memoryPair();
    const session = new Session({ transport: a });
    new Session({ transport: b, dispatch: serve(new Shop(), ['left', 'named']) });
    const shop = remote<{ left(): Promise<number>; named(given: { a: number }): Promise<number> }>(session);
    assert.equal(await shop.left(), 3);
    assert.equal(await shop.named({ a: 5 }), 5);
    for (const method of ['secret', 'stock', 'constructor', '__proto__', 'toString', 'hasOwnProperty', ''])
      assert.deepEqual((await rejectsWith(session.call(method), NoSuchMethod)).fields, {
        method,
        has: ['left', 'named'],
      });
    // Not taken for a promise.
    assert.equal(await shop, shop);
    session.close();
  });

  it('a side that offers nothing says so', async () => {
    const [a, b] = memoryPair();
    const session = new Session({ transport: a });
    new Session({ transport: b });
    assert.match((await rejectsWith(session.call('x'), NoSuchMethod)).message, /There are no methods/);
    session.close();
  });
});
