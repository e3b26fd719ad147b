/** Errors on their way through a session: what was thrown arrives, as far as it can, and nothing else does. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BadInput,
  ConnectionLost,
  isError,
  LIMITS,
  NoSuchMethod,
  Overloaded,
  RemoteError,
  WorkerDied,
} from '@hauki/protocol';
import { atRest, join, KINDS, rejectsWith } from './joined.ts';

class OwnError extends Error {
  override name = 'OwnError';
  readonly code = 'E_OWN';
  readonly at = new Date(5);
  readonly again = () => 'called back';
}

const root = {
  plain: () => {
    throw new RangeError('too far');
  },
  later: async () => {
    throw new RangeError('too far, later');
  },
  caused: () => {
    throw new TypeError('outer', { cause: new RangeError('middle', { cause: { inner: [1n, undefined] } }) });
  },
  own: () => {
    throw new OwnError('mine');
  },
  many: () => {
    throw new AggregateError([new RangeError('one'), new TypeError('two')], 'several');
  },
  text: () => {
    throw 'just words';
  },
  nothing: () => {
    throw undefined;
  },
  object: () => {
    throw { code: 5 };
  },
  typed: () => {
    throw new BadInput({ what: 'x', why: 'because' });
  },
  retry: () => {
    throw new Overloaded({ what: 'the worker', limit: 5 });
  },
  dead: () => {
    throw new WorkerDied({ worker: 'w-1', cause: 'killed', reason: 'somebody killed it' });
  },
  typedWithCause: () => {
    throw Object.assign(new BadInput({ what: 'x', why: 'because' }), { cause: new RangeError('deeper') });
  },
  unsendable: () => {
    throw Object.assign(new RangeError('with a symbol'), { mark: Symbol('no') });
  },
  circular: () => {
    const error: any = new RangeError('round');
    error.cause = error;
    error.self = error;
    throw error;
  },
  huge: () => {
    throw new RangeError('x'.repeat(9_000_000));
  },
  hostile: () => {
    throw Object.defineProperty(new RangeError('trap'), 'cause', {
      get() {
        throw new Error('sprung');
      },
    });
  },
  hostileText: () => {
    throw {
      toString() {
        throw new Error('sprung');
      },
    };
  },
  pass: (f: any) => f(),
};

for (const kind of KINDS)
  describe(`an error over ${kind}`, () => {
    it('says what was thrown, by name and message, with the frames of where it was', async () => {
      await using t = await join(root, {}, { kind });
      const error = await rejectsWith(t.on_b.plain(), RemoteError);
      assert.deepEqual([error.message, error.fields.error_name], ['RangeError: too far', 'RangeError']);
      assert.match(String(error.stack), /errors-carried/);
      assert.equal((await rejectsWith(t.on_b.later(), RemoteError)).message, 'RangeError: too far, later');
      assert.equal((await rejectsWith(t.on_b.text(), RemoteError)).message, 'Error: just words');
      await rejectsWith(t.on_b.nothing(), RemoteError);
      await rejectsWith(t.on_b.object(), RemoteError);
      await atRest(t.a, t.b);
    });

    it('brings its cause and its own properties', async () => {
      await using t = await join(root, {}, { kind });
      const { cause }: any = await rejectsWith(t.on_b.caused(), RemoteError);
      assert.ok(cause instanceof TypeError && cause.message === 'outer');
      assert.ok(cause.cause instanceof RangeError && cause.cause.message === 'middle');
      assert.deepEqual(cause.cause.cause, { inner: [1n, undefined] });
      const own: any = (await rejectsWith(t.on_b.own(), RemoteError)).cause;
      assert.deepEqual([own.name, own.message, own.code, own.at], ['OwnError', 'mine', 'E_OWN', new Date(5)]);
      assert.equal(await own.again(), 'called back');
      own.again[Symbol.dispose]();
      const many: any = (await rejectsWith(t.on_b.many(), RemoteError)).cause;
      assert.ok(many instanceof AggregateError && many.errors[0] instanceof RangeError);
      const round: any = (await rejectsWith(t.on_b.circular(), RemoteError)).cause;
      assert.ok(round.cause === round && round.self === round);
      await atRest(t.a, t.b);
    });

    it('of the table arrives as its class, with its fields', async () => {
      await using t = await join(root, {}, { kind });
      assert.deepEqual((await rejectsWith(t.on_b.typed(), BadInput)).fields, { what: 'x', why: 'because' });
      const retry = await rejectsWith(t.on_b.retry(), Overloaded);
      assert.deepEqual([retry.retryable, retry.fields], [true, { what: 'the worker', limit: 5 }]);
      assert.equal((await rejectsWith(t.on_b.dead(), WorkerDied)).fields.cause, 'killed');
      assert.deepEqual((await rejectsWith(t.on_b.none(), NoSuchMethod)).fields.method, 'none');
      const deeper = await rejectsWith(t.on_b.typedWithCause(), BadInput);
      assert.ok(deeper.cause instanceof RangeError && deeper.cause.message === 'deeper');
      await atRest(t.a, t.b);
    });

    it('that cannot be sent whole is told in fewer words', async () => {
      await using t = await join(root, {}, { kind });
      const error = await rejectsWith(t.on_b.unsendable(), RemoteError);
      assert.deepEqual(
        [error.message, error.fields.error_name, error.cause],
        ['RangeError: with a symbol', 'RangeError', undefined],
      );
      assert.match((await rejectsWith(t.on_b.huge(), RemoteError)).message, /^RangeError: x{1000}/);
      assert.match((await rejectsWith(t.on_b.hostile(), RemoteError)).message, /RangeError: trap/);
      await rejectsWith(t.on_b.hostileText(), RemoteError);
      await rejectsWith(t.on_b.plain(), RemoteError);
      await atRest(t.a, t.b);
    });

    it('of whoever only calls tells nothing of where its code lies', async () => {
      const hears: unknown[] = [];
      const hear = (error: any): void => {
        // The stack of one that came in place of another is of this side.
        for (let one = error; one instanceof Error; one = one.cause as Error)
          hears.push(isError(one, RemoteError) ? '' : one.stack, { ...one });
      };
      const worker = {
        hear,
        calls: (f: any) => f().catch(hear),
        reads: async (stream: any) => {
          try {
            for await (const _ of stream);
          } catch (error) {
            hear(error);
          }
        },
        watches: (signal: AbortSignal) => hear(signal.reason),
      };
      await using t = await join(worker, {}, { kind, a: { dispatch: undefined } as object });
      const error = () => new RangeError('mine', { cause: Object.assign(new TypeError('deeper'), { code: 'E_OWN' }) });
      await t.on_b.hear(error());
      await t.on_b.calls(() => {
        throw error();
      });
      await t.on_b.reads(
        (async function* () {
          yield 1;
          throw error();
        })(),
      );
      await t.on_b.watches(AbortSignal.abort(error()));
      const said = JSON.stringify(hears);
      assert.ok(said.includes('mine') && said.includes('deeper') && said.includes('E_OWN'), said);
      assert.ok(!said.includes('errors-carried') && !said.includes('file:'), said);
    });

    it('keeps its cause on the way through a third, and does not grow by it', async () => {
      await using t = await join(root, {}, { kind });
      const thrown = async (f: () => unknown, expected: any) => {
        const callback = Object.assign(f, {});
        const error = await rejectsWith(t.on_b.pass(callback), expected);
        return error as any;
      };
      // Thrown here, carried there, thrown on there, carried back.
      const error = await thrown(() => {
        throw new TypeError('outer', { cause: new RangeError('inner') });
      }, RemoteError);
      assert.equal(error.message, 'TypeError: outer');
      assert.equal(error.fields.error_name, 'TypeError');
      assert.ok(error.cause instanceof TypeError && error.cause.cause instanceof RangeError);
      const lost = await thrown(() => {
        throw new ConnectionLost({ why: 'a cable' });
      }, ConnectionLost);
      assert.deepEqual([lost.fields, lost.cause], [{ why: 'a cable' }, undefined]);
    });
  });

describe('an error that is too large to travel', () => {
  it('keeps its name', async () => {
    await using t = await join({
      fail: () => {
        throw new RangeError('x'.repeat(LIMITS.message_bytes));
      },
    });
    const error = await rejectsWith(t.on_b.fail(), RemoteError);
    assert.equal(error.fields.error_name, 'RangeError');
    assert.equal(error.message.length, 4096);
  });
});
