/** What a peer may reach in this side's values, and hold of them: own data, what it was given, as much as there is room for. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LIMITS, NoSuchMethod, Overloaded, RefGone, TooLarge } from '@hauki/protocol';
import { encode, Session } from '../src/index.ts';
import { checkedPath, read } from '../src/invoke.ts';
import type { Served } from '../src/served.ts';
import type { TransportEvents } from '../src/transport.ts';
import { atRest, held, join, rejectsWith } from './joined.ts';
import { settle } from './support.ts';

/** A session whose peer is the test, which says what it likes and hears what is sent. */
function facing(dispatch: (method: string, params: unknown) => unknown, options: { literal?: typeof encode } = {}) {
  let events: TransportEvents;
  const sent: any[] = [];
  const session = new Session({
    transport: {
      start: (own) => {
        events = own;
      },
      send: (text) => void sent.push(JSON.parse(text)),
      close: (reason = 'closed') => events.close(reason),
      buffered_bytes: 0,
      carried_bytes: 0,
    },
    dispatch,
    ...options,
  });
  const say = (message: object, tagged = false) =>
    events.message(JSON.stringify({ jsonrpc: '2.0', ...message }), tagged ? new Uint8Array(0) : undefined);
  return { session, sent, say };
}

describe('what a peer reaches', () => {
  it('is own data of plain values: no getter runs, nothing is inherited, and instances stay where they are', () => {
    const getter = {
      get it(): never {
        return assert.fail('it was run');
      },
    };
    assert.equal(read({ a: [{ b: 1 }] }, ['a', '0', 'b']), 1);
    assert.equal(read(Object.assign(Object.create(null), { a: 1 }), ['a']), 1);
    assert.deepEqual([read([1, 2], ['length']), read('four', ['length'])], [2, 4]);
    assert.equal(read(getter, ['it']), undefined);
    for (const name of ['toString', '__proto__', 'constructor']) assert.equal(read({}, [name]), undefined);
    class Account {
      secret = 7;
    }
    const refuses = (value: unknown, name: string) =>
      assert.throws(
        () => read(value, [name]),
        (error: Error) => error instanceof NoSuchMethod,
      );
    refuses(new Account(), 'secret');
    refuses(new Map([['secret', 7]]), 'size');
    refuses(() => 1, 'name');
    refuses(5, 'constructor');
    const [names, chars] = [Array(32).fill('a'), 'a'.repeat(256)];
    assert.deepEqual([checkedPath(undefined), checkedPath(names), checkedPath([chars])], [[], names, [chars]]);
    for (const path of [[...names, 'a'], [`${chars}a`], [5], 'a', { length: 1 }, null])
      assert.throws(() => checkedPath(path), NoSuchMethod);
  });

  it('is nothing tagged where it has not said that it knows tags', async () => {
    const { session, say } = facing(() => assert.fail('it was called'), { literal: encode });
    say({ id: 1, method: 'keep', params: [{ $: ['mine', 1, 'function'] }] }, true);
    assert.equal(await session.closed, 'the peer sent tagged values without rpc.open');
  });

  it('waits for nothing once what a call had waited for is there', async () => {
    const called: string[] = [];
    const first = Promise.withResolvers<unknown>();
    const { session, say } = facing((method) => {
      called.push(method);
      return method === 'first' ? first.promise : 1;
    });
    say({ id: 1, method: 'first', params: [], rpc: { keep: true } });
    say({ id: 2, method: 'second', params: [{ $: ['result', 1, []] }] }, true);
    say({ id: 3, method: 'third', params: [] });
    assert.deepEqual(called, ['first']);
    first.resolve({});
    await settle();
    assert.deepEqual(called, ['first', 'second', 'third']);
    say({ id: 4, method: 'fourth', params: [] });
    assert.equal(called.at(-1), 'fourth');
    session.close();
  });
});

describe('what a peer asked for', () => {
  it('does not begin any more once the session is over', async () => {
    const called: string[] = [];
    const { session, say } = facing((method) => {
      called.push(method);
      return new Promise(() => {});
    });
    say({ id: 1, method: 'first', params: [], rpc: { keep: true } });
    say({ id: 2, method: 'second', params: [{ $: ['result', 1, []] }] }, true);
    say({ id: 3, method: 'third', params: [] });
    session.close();
    await session.closed;
    await settle();
    assert.deepEqual(called, ['first']);
  });

  it('hears of the session’s end, also where it wants no answer, whatever ended before it', async () => {
    const ended: string[] = [];
    const first = Promise.withResolvers<void>();
    const serving = (method: string, _params: unknown, _session: Session, call: Served) => {
      call.onabort = () => void ended.push(method);
      return method === 'second' ? first.promise : new Promise(() => {});
    };
    const { session, say } = facing(serving as never);
    for (const method of ['first', 'second', 'third']) say({ method, params: [] });
    say({ id: 1, method: 'fourth', params: [] });
    first.resolve();
    await settle();
    session.close();
    await session.closed;
    assert.deepEqual(ended.sort(), ['first', 'fourth', 'third']);
  });
});

describe('what a peer holds', () => {
  const takes = (references: number) => ({ b: { bounds: { kept: 1, references } } });

  it('is as much as it may, to the last one, of functions as of signals', async () => {
    const kept: unknown[] = [];
    await using t = await join({ keep: (...all: unknown[]) => void kept.push(...all) }, {}, takes(2));
    const functions = () => [() => 1, () => 2, () => 3];
    await rejectsWith(t.on_b.keep(...functions()), Overloaded);
    assert.equal(held(t.b).imported, 0);
    await t.on_b.keep(...functions().slice(1));
    assert.equal(held(t.b).imported, 2);
    for (const each of kept.splice(0)) (each as Disposable)[Symbol.dispose]();
    await atRest(t.a, t.b);
    const signals = () => [1, 2, 3].map(() => new AbortController().signal);
    const error = await rejectsWith(t.on_b.keep(...signals()), Overloaded);
    assert.match(error.message, /signals taken/);
    await t.on_b.keep(...signals().slice(1));
  });

  it('is not called once it was let go of, and nobody is asked', async () => {
    let given: any;
    await using t = await join({
      take(f: unknown) {
        given = f;
      },
    });
    await t.on_b.take(() => 1);
    given[Symbol.dispose]();
    const { calls_sent } = t.b.stats();
    const error = await rejectsWith(given(), RefGone);
    assert.match(error.message, /it was let go of here/);
    assert.equal(t.b.stats().calls_sent, calls_sent);
    const sent = await rejectsWith(t.on_a.take(given), RefGone);
    assert.match(sent.message, /that was to be sent/);
    assert.equal(t.b.stats().calls_sent, calls_sent);
  });

  it('of signals is aborted where the session ends', async () => {
    let signal: AbortSignal | undefined;
    await using t = await join({
      take(given: AbortSignal) {
        signal = given;
        return new Promise(() => {});
      },
    });
    const taken = t.on_b.take(new AbortController().signal);
    await settle();
    assert.equal(signal!.aborted, false);
    t.b.close();
    await assert.rejects(taken);
    assert.equal(signal!.aborted, true);
  });

  it('is let go of by counts that can be, and by no others', async () => {
    await using t = await join({ take() {} });
    await t.on_b.take(() => 1);
    assert.equal(held(t.a).exported, 1);
    const id = 1;
    for (const count of [-5, Number.NaN, 0, 'x', null]) t.b.notify('rpc.release', [[[id, count]]]);
    await settle();
    assert.equal(held(t.a).exported, 1);
    t.b.notify('rpc.release', [[[id, 1]]]);
    await settle();
    assert.equal(held(t.a).exported, 0);
  });

  it('of a stream ends where it is made, when an item of it cannot be sent', async () => {
    const ended = Promise.withResolvers<void>();
    await using t = await join({
      async *read() {
        try {
          yield 1;
          yield Symbol('not to be sent');
        } finally {
          ended.resolve();
        }
      },
    });
    const items: unknown[] = [];
    await assert.rejects(async () => {
      for await (const item of await t.on_b.read()) items.push(item);
    }, /is a symbol/);
    await ended.promise;
    assert.deepEqual(items, [1]);
    await atRest(t.a, t.b);
  });

  it('of a stream is no more than may wait unread, however much it grants', async () => {
    const { session, sent, say } = facing(async function* () {
      for (let i = 0; i < 200; i++) yield 'x'.repeat(10_000);
    } as never);
    say({ id: 1, method: 'read', params: [] });
    const items = async (): Promise<number> => {
      for (let before = -1; before < sent.length; ) {
        before = sent.length;
        await settle();
      }
      return sent.filter(({ method }) => method === 'rpc.item').length;
    };
    const once = await items();
    assert.ok(once > 0 && once <= LIMITS.stream_bytes / 10_000 + 1, `${once}`);
    const stream = sent.find(({ id }) => id === 1).result.$[1];
    for (const amount of [{ $: ['number', 'NaN'] }, -1e12, 0])
      say({ method: 'rpc.credit', params: [stream, amount] }, true);
    assert.equal(await items(), once);
    say({ method: 'rpc.credit', params: [stream, 1e12] });
    const twice = await items();
    assert.ok(twice > once && twice <= 2 * once + 1, `${once}, then ${twice}`);
    session.close();
  });

  it('is nothing of a message that is too large once it is written', async () => {
    await using t = await join({ take() {} });
    const text = '\u0001'.repeat(LIMITS.message_bytes / 4);
    let begun = false;
    async function* stream() {
      begun = true;
      yield 1;
    }
    const all = [() => 1, stream(), text];
    await rejectsWith(t.on_b.take(...all), TooLarge);
    await t.on_b.take(1);
    assert.deepEqual([held(t.a).exported, held(t.a).streams, begun], [0, 0, false]);
    assert.ok(t.a.open);
  });
});
