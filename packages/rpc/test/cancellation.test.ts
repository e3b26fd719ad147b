/** Cancellation and deadlines: both sides stop, at once, and nothing of the call is left on either. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Cancelled, DeadlineExceeded } from '@hauki/protocol';
import { withOptions } from '../src/ghost.ts';
import type { Served } from '../src/served.ts';
import { Session } from '../src/session.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { atRest, held, join, KINDS, now, rejectsWith } from './joined.ts';
import { settle, until } from './support.ts';

class Worker {
  calls: Served[] = [];
  heard: unknown[] = [];
  ends: ((value?: unknown) => void)[] = [];
  /** Ends when its caller gives up. */
  obedient() {
    const call = now.call!;
    this.calls.push(call);
    return new Promise((_, reject) => {
      call.signal.addEventListener('abort', () => {
        this.heard.push(call.signal.reason);
        reject(call.signal.reason);
      });
    });
  }
  /** Ends when the test says so. */
  stubborn() {
    this.calls.push(now.call!);
    return new Promise((resolve) => this.ends.push(resolve));
  }
  time() {
    const { timeout_ms, deadline } = now.call!;
    return { timeout_ms, left: deadline === undefined ? undefined : deadline - Date.now() };
  }
  until(signal: AbortSignal) {
    if (signal.aborted) return ['already', signal.reason];
    return new Promise((resolve) =>
      signal.addEventListener('abort', () => {
        this.heard.push(signal.reason);
        resolve(['then', signal.reason]);
      }),
    );
  }
  async keep(signal: AbortSignal) {
    signal.addEventListener('abort', () => this.heard.push(signal.reason));
  }
  async fetching(signal: AbortSignal) {
    await settle(3);
    signal.throwIfAborted();
    return signal instanceof AbortSignal;
  }
  nothing() {}
}

for (const kind of KINDS)
  describe(`cancellation over ${kind}`, () => {
    it('rejects at once, and the other side hears why', async () => {
      const worker = new Worker();
      await using t = await join(worker, {}, { kind });
      const controller = new AbortController();
      const call = withOptions(t.on_b, { signal: controller.signal }).obedient();
      await t.on_b.nothing();
      controller.abort(new Error('no longer wanted'));
      assert.equal(held(t.a).in_flight, 0, 'at once');
      const error = await rejectsWith(call, Cancelled);
      assert.deepEqual(
        [error.fields.method, error.fields.why, error.fields.may_have_run],
        ['obedient', 'no longer wanted', true],
      );
      await until(() => worker.heard.length === 1, 'the other side to hear');
      assert.match(String(worker.heard[0]), /no longer wanted/);
      await atRest(t.a, t.b);
    });

    it('and its deadline hold for what is called on the result too', async () => {
      class Account {
        hang() {
          return new Promise(() => {});
        }
        self() {
          return this;
        }
      }
      await using t = await join({ open: () => new Account() }, {}, { kind });
      await rejectsWith(withOptions(t.on_b, { timeout_ms: 300 }).open().hang(), DeadlineExceeded);
      const controller = new AbortController();
      const { signal } = controller;
      const together = withOptions(t.on_b, { signal }).open().self().hang();
      const opening = withOptions(t.on_b, { signal }).open();
      using account = await opening;
      // By now the result is there, and these go after it.
      const afterwards = opening.self().hang();
      const heard = Promise.all([rejectsWith(together, Cancelled), rejectsWith(afterwards, Cancelled)]);
      await t.on_b.open().self();
      controller.abort();
      await heard;
      assert.ok(account);
    });

    it('and its deadline are refused where they are none, before anything is sent', async () => {
      await using t = await join(new Worker(), {}, { kind });
      for (const ms of [Number.NaN, -1, '5', null, 5n] as number[]) {
        assert.throws(() => withOptions(t.on_b, { timeout_ms: ms }), /timeout_ms must be 0 ms or more/);
        assert.throws(() => withOptions(t.on_b, { kill_after_ms: ms }), /kill_after_ms must be 0 ms or more/);
      }
      for (const signal of [{}, 'soon', null] as unknown[] as AbortSignal[])
        assert.throws(() => withOptions(t.on_b, { signal }), /signal must be the one of an AbortController/);
      await withOptions(t.on_b, { timeout_ms: Infinity }).nothing();
      await atRest(t.a, t.b);
    });

    it('is told from a deadline, which the other side hears as such, also one that it did not know of', async () => {
      const worker = new Worker();
      const named = (reason: unknown) => (reason as Error).name;
      await using t = await join(worker, {}, { kind });
      await rejectsWith(withOptions(t.on_b, { timeout_ms: 40 }).obedient(), DeadlineExceeded);
      await using own = await join(worker, {}, { kind, a: { timeout_ms: 50 } });
      await rejectsWith(own.on_b.obedient(), DeadlineExceeded);
      await until(() => worker.heard.length === 2, 'the other side to hear of both');
      assert.deepEqual(
        worker.heard.map((reason) => [named(reason), (reason as { fields: { timeout_ms: number } }).fields.timeout_ms]),
        [
          ['DeadlineExceeded', 40],
          ['DeadlineExceeded', 50],
        ],
      );
      const controller = new AbortController();
      const call = withOptions(t.on_b, { signal: controller.signal }).obedient();
      await t.on_b.nothing();
      controller.abort(new Error('It() gave no answer within 7 ms. So it says'));
      await rejectsWith(call, Cancelled);
      await until(() => worker.heard.length === 3, 'the other side to hear');
      assert.equal(named(worker.heard[2]), 'Cancelled', 'whatever its caller says');
      await atRest(t.a, t.b);
    });

    it('of a call in the turn that made it keeps it from being sent', async () => {
      const worker = new Worker();
      await using t = await join(worker, {}, { kind });
      const controller = new AbortController();
      const options = { signal: controller.signal };
      const call = withOptions(t.on_b, options).keep(() => 1, worker);
      controller.abort();
      assert.equal((await rejectsWith(call, Cancelled)).fields.may_have_run, false);
      assert.equal((await rejectsWith(withOptions(t.on_b, options).nothing(), Cancelled)).fields.may_have_run, false);
      await t.on_b.nothing();
      assert.equal(t.b.stats().calls_served, 1);
      await atRest(t.a, t.b);
    });

    it('leaves no listeners on a signal that outlives its calls', async () => {
      await using t = await join(new Worker(), {}, { kind });
      const controller = new AbortController();
      let listeners = 0;
      const { signal } = controller;
      for (const [method, by] of [
        ['addEventListener', 1],
        ['removeEventListener', -1],
      ] as const) {
        const real = signal[method].bind(signal) as (...args: unknown[]) => void;
        (signal as any)[method] = (...args: unknown[]) => {
          listeners += by;
          real(...args);
        };
      }
      const hurried = withOptions(t.on_b, { signal });
      await Promise.all(Array.from({ length: 20 }, () => hurried.nothing()));
      for (let i = 0; i < 20; i++) await t.on_b.keep(signal);
      await Promise.all(Array.from({ length: 20 }, () => t.on_b.keep(signal)));
      await assert.rejects(hurried.none(), { name: 'NoSuchMethod' });
      assert.equal(listeners, 0);
      await atRest(t.a, t.b);
    });

    it('goes by a signal that is an argument, as it would at home', async () => {
      const worker = new Worker();
      await using t = await join(worker, {}, { kind });
      const controller = new AbortController();
      const call = t.on_b.until(controller.signal);
      await t.on_b.nothing();
      controller.abort(new RangeError('far enough'));
      const [when, reason] = await call;
      assert.equal(when, 'then');
      assert.ok(reason instanceof RangeError && reason.message === 'far enough');
      assert.equal((await t.on_b.until(controller.signal))[0], 'already', 'it was aborted before it was sent');
      assert.equal(await t.on_b.fetching(new AbortController().signal), true);
      await assert.rejects(t.on_b.fetching(AbortSignal.abort(new RangeError('before'))), /before/);
      await assert.rejects(t.on_b.fetching(AbortSignal.abort()), { name: /.*/, message: /abort/i });
      const late = await t.on_b.until(AbortSignal.timeout(5));
      assert.match(String(late[1]), /TimeoutError|timeout/i);
      await atRest(t.a, t.b);
    });

    it('says something of a reason that cannot be sent', async () => {
      await using t = await join(new Worker(), {}, { kind });
      const controller = new AbortController();
      const call = t.on_b.until(controller.signal);
      await settle();
      controller.abort({ why: Symbol('secret') });
      const [, reason] = await call;
      assert.ok(reason instanceof Error);
      await atRest(t.a, t.b);
    });

    it('reaches every call that has the same signal, and no call that is over', async () => {
      const worker = new Worker();
      await using t = await join(worker, {}, { kind });
      const controller = new AbortController();
      const waiting = [t.on_b.until(controller.signal), t.on_b.until(controller.signal)];
      await t.on_b.keep(controller.signal);
      await settle();
      controller.abort(1);
      assert.deepEqual(await Promise.all(waiting), [
        ['then', 1],
        ['then', 1],
      ]);
      // The call that only kept it still hears, as long as another call had the signal open.
      assert.equal(worker.heard.length, 3);
      const other = new AbortController();
      await t.on_b.keep(other.signal);
      other.abort(2);
      await t.on_b.nothing();
      assert.equal(worker.heard.length, 3);
      await atRest(t.a, t.b);
    });

    it('lets late answers go, with what they refer to', async () => {
      const worker = new Worker();
      await using t = await join(worker, {}, { kind });
      const controller = new AbortController();
      const call = withOptions(t.on_b, { signal: controller.signal }).stubborn();
      const timed = withOptions(t.on_b, { timeout_ms: 20 }).stubborn();
      const over = Promise.all([rejectsWith(call, Cancelled), rejectsWith(timed, DeadlineExceeded)]);
      await until(() => worker.ends.length === 2, 'both calls to have come');
      controller.abort();
      await over;
      async function* items() {
        yield 1;
      }
      const value = [() => 1, worker, items(), new AbortController().signal, { $: ['mine', 1, 'function'] }];
      for (const end of worker.ends) end(value[2] === undefined ? 0 : [...value]);
      value.length = 0;
      await atRest(t.a, t.b);
    });

    it('does not let go of what a late answer only looks like', async () => {
      const worker = new Worker();
      const f = () => 'alive';
      await using t = await join({ f: () => f, stubborn: () => worker.stubborn(), nothing() {} }, {}, { kind });
      using far = await t.on_b.f();
      const call = withOptions(t.on_b, { timeout_ms: 20 }).stubborn();
      await rejectsWith(call, DeadlineExceeded);
      await until(() => worker.ends.length === 1, 'the call to have come');
      worker.ends[0]!([{ $: ['mine', 1, 'function'] }, { $: ['mine', 1, 'function'], x: new Date(0) }]);
      await t.on_b.nothing();
      assert.equal(await far(), 'alive');
    });
  });

/** A worker whose caller writes its messages by hand, into `x`. */
function calledByHand() {
  const [x, y] = memoryPair();
  const worker = new Worker();
  const b = new Session({
    transport: y,
    dispatch: (_method, _params, _session, call) => {
      now.call = call;
      return worker.obedient();
    },
  });
  x.start({ message: () => {}, close: () => {} });
  return { x, b, worker };
}

describe('a deadline', () => {
  it('reaches the callee: how long, and until when', async () => {
    await using t = await join(new Worker());
    const { timeout_ms, left } = await withOptions(t.on_b, { timeout_ms: 5_000 }).time();
    assert.equal(timeout_ms, 5_000);
    assert.ok(left > 0 && left <= 5_000);
    assert.deepEqual(await t.on_b.time(), { timeout_ms: undefined, left: undefined });
  });

  it('rejects the caller and aborts the callee', async () => {
    const worker = new Worker();
    await using t = await join(worker);
    const error = await rejectsWith(withOptions(t.on_b, { timeout_ms: 30 }).obedient(), DeadlineExceeded);
    assert.deepEqual([error.fields.timeout_ms, error.fields.may_have_run], [30, true]);
    await until(() => worker.heard.length === 1, 'the callee to hear');
    assert.match(String(worker.heard[0]), /within 30 ms/);
    await atRest(t.a, t.b);
  });

  it('aborts the callee also when nothing of the caller comes any more', async () => {
    const { x, b, worker } = calledByHand();
    x.send(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'obedient', rpc: { timeout_ms: 20 } }));
    await until(() => worker.heard.length === 1, 'the callee to hear');
    assert.equal(b.stats().serving, 0);
    x.close();
  });

  it('is one also where the caller says why in what is no text', async () => {
    const { x, b, worker } = calledByHand();
    x.send(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'obedient' }));
    // What would throw if it were asked for its text.
    x.send(JSON.stringify({ jsonrpc: '2.0', method: 'rpc.cancel', params: [1, { toString: 1, valueOf: 1 }] }));
    await until(() => worker.heard.length === 1, 'the callee to hear');
    assert.match(String(worker.heard[0]), /Cancelled: The caller gave up: it did not say why/);
    assert.equal(b.open, true);
    x.close();
  });

  it('that cannot be is no deadline', async () => {
    const [x, y] = memoryPair();
    const calls: Served[] = [];
    new Session({ transport: y, dispatch: (_m, _p, _s, call) => void calls.push(call) });
    x.start({ message: () => {}, close: () => {} });
    for (const timeout_ms of [-1, 'soon', null, {}, [1]])
      x.send(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'm', rpc: { timeout_ms, traceparent: 7 } }));
    await settle();
    assert.deepEqual(
      calls.map((call) => [call.timeout_ms, call.traceparent, call.signal.aborted]),
      Array(5).fill([undefined, undefined, false]),
    );
    x.close();
  });

  it('ends the calls that go on it too', async () => {
    const worker = new Worker();
    await using t = await join(worker);
    const first = t.a.call('stubborn', [], { timeout_ms: 20 }) as any;
    const next = assert.rejects(first.read().more());
    await rejectsWith(first, DeadlineExceeded);
    await until(() => worker.ends.length === 1, 'the call to have come');
    worker.ends[0]!(4);
    await next;
    await atRest(t.a, t.b);
  });

  it('escalates to the worker only where the call does not end', async () => {
    const worker = new Worker();
    const killed: string[] = [];
    await using t = await join(worker, {}, { a: { kill: (why) => killed.push(why) } });
    const hurried = withOptions(t.on_b, { timeout_ms: 20, kill_after_ms: 800 });
    await rejectsWith(hurried.obedient(), DeadlineExceeded);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    assert.deepEqual(killed, []);
    await rejectsWith(hurried.stubborn(), DeadlineExceeded);
    await until(() => killed.length > 0 && worker.ends.length > 0, 'the escalation');
    assert.deepEqual(killed, ['stubborn() was given up and did not end']);
    worker.ends[0]!();
    await atRest(t.a, t.b);
  });

  it('is not missed for the end of the session', async () => {
    const worker = new Worker();
    const t = await join(worker);
    const call = withOptions(t.on_b, { timeout_ms: 60_000 }).obedient();
    await t.on_b.nothing();
    t.a.close('going');
    await assert.rejects(call, { name: 'OutcomeUnknown' });
    await until(() => worker.heard.length === 1, 'the callee to hear');
    await t[Symbol.asyncDispose]();
  });
});
