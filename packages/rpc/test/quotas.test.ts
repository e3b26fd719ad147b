/** Quotas: each bound of a session is a typed error, and hurts that session only. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LIMITS, Overloaded, TooLarge, Unserialisable } from '@hauki/protocol';
import { Session } from '../src/session.ts';
import type { Transport, TransportEvents } from '../src/transport.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { atRest, held, join, rejectsWith, serving } from './joined.ts';
import { settle, until } from './support.ts';

/** A peer that speaks by itself, beside a session whose neighbour must not notice. */
async function stranger(root: object) {
  const [x, y] = memoryPair();
  const session = new Session({ transport: y, dispatch: serving(root) });
  const heard: any[] = [];
  x.start({ message: (text) => void heard.push(JSON.parse(text)), close: () => {} });
  const neighbour = await join({ one: () => 1 });
  return {
    session,
    heard,
    say: (message: object, tagged = false) =>
      x.send(JSON.stringify({ jsonrpc: '2.0', ...message }), tagged ? [] : undefined),
    async [Symbol.asyncDispose]() {
      assert.equal(await neighbour.on_b.one(), 1);
      await neighbour[Symbol.asyncDispose]();
      x.close();
    },
  };
}

describe('a quota', () => {
  it('bounds what a session gives out, all at once or bit by bit', async () => {
    const keep: unknown[] = [];
    await using t = await join({ keep: (...all: unknown[]) => void keep.push(...all), nothing: () => 0 });
    const some = (n: number) => Array.from({ length: n }, () => () => 1);
    await rejectsWith(t.on_b.keep(...some(LIMITS.exports + 1)), Overloaded);
    assert.equal(held(t.a).exported, 0);
    await t.on_b.keep(...some(LIMITS.exports - 5));
    const error = await rejectsWith(t.on_b.keep(...some(6)), Overloaded);
    assert.match(error.message, /references given out/);
    assert.equal(await t.on_b.nothing(), 0);
    await t.on_b.keep(...some(5));
    for (const each of keep.splice(0)) (each as Disposable)[Symbol.dispose]();
    await atRest(t.a, t.b);
    await t.on_b.keep(() => 1);
  });

  it('bounds what a session takes: the message fails, and all that it brought is let go of', async () => {
    const keep: unknown[] = [];
    await using t = await stranger({ keep: (...all: unknown[]) => void keep.push(...all) });
    const mine = (from: number, n: number) =>
      Array.from({ length: n }, (_, i) => ({ $: ['mine', from + i, 'function'] }));
    t.say({ id: 1, method: 'keep', params: mine(1, LIMITS.exports - 1) }, true);
    await settle();
    assert.equal(t.session.stats().imported, LIMITS.exports - 1);
    t.say({ id: 2, method: 'keep', params: [...mine(20_000, 3), { $: ['mine', 30_000, 'iterable'] }] }, true);
    await settle();
    assert.equal(t.session.stats().imported, LIMITS.exports - 1);
    const answer = t.heard.find((message) => message.id === 2);
    assert.equal(answer.error.data.name, 'Overloaded');
    const released = t.heard
      .filter((message) => message.method === 'rpc.release')
      .flatMap((message) => message.params[0])
      .map(([id, count]: number[]) => `${id}×${count}`);
    assert.deepEqual(released.sort(), ['20000×1', '20001×1', '20002×1']);
    assert.deepEqual(
      t.heard.filter((message) => message.method === 'rpc.stop').map((message) => message.params),
      [[30_000]],
    );
    t.say({ id: 3, method: 'keep', params: mine(1, 4) }, true);
    await settle();
    assert.equal(t.heard.at(-1).id, 3);
  });

  it('bounds the calls that wait for their answers', async () => {
    const ends: ((value: unknown) => void)[] = [];
    await using t = await join({ wait: () => new Promise((resolve) => ends.push(resolve)), one: () => 1 });
    const waiting = Array.from({ length: LIMITS.calls_in_flight }, () => t.on_b.wait());
    const error = await rejectsWith(t.on_b.one(), Overloaded);
    assert.match(error.message, /calls in flight/);
    assert.equal(error.retryable, true);
    await rejectsWith(t.on_b.one(() => 1).more(), Overloaded);
    await settle();
    for (const end of ends) end(0);
    await Promise.all(waiting);
    assert.equal(await t.on_b.one(), 1);
    await atRest(t.a, t.b);
  });

  it('bounds the calls that are served, also those without an id and those that share one', async () => {
    const never = new Promise(() => {});
    for (const id of [(i: number) => i, () => undefined, () => 7]) {
      let begun = 0;
      await using t = await stranger({
        wait: () => {
          begun++;
          return never;
        },
      });
      for (let i = 0; i < LIMITS.calls_in_flight + 10; i++)
        t.say({ ...(id(i) === undefined ? {} : { id: id(i) }), method: 'wait', params: [] });
      await settle();
      assert.equal(begun, LIMITS.calls_in_flight);
      assert.equal(t.session.stats().serving, LIMITS.calls_in_flight);
      const refused = t.heard.filter((message) => message.error?.data.name === 'Overloaded').length;
      assert.equal(refused, id(1) === undefined ? 0 : 10);
      assert.ok(t.session.open);
    }
  });

  it('lets go of what refused calls brought', async () => {
    const ends: ((value: unknown) => void)[] = [];
    await using t = await stranger({ wait: () => new Promise((resolve) => ends.push(resolve)) });
    for (let i = 0; i < LIMITS.calls_in_flight; i++) t.say({ id: i, method: 'wait', params: [] });
    const params = [
      { $: ['mine', 5, 'function'] },
      { $: ['mine', 6, 'stream'] },
      { $: ['object', { $: ['mine', 9, 'function'] }] },
    ];
    t.say({ id: 99_999, method: 'wait', params }, true);
    await settle();
    assert.deepEqual(
      t.heard.map(({ method, params: told, id }) => [method ?? id, told]),
      [
        ['rpc.release', [[[5, 1]]]],
        ['rpc.stop', [6]],
        [99_999, undefined],
      ],
    );
    assert.equal(t.session.stats().imported, 0);
    for (const end of ends) end(0);
  });

  it('bounds a message, and the depth of a value', async () => {
    await using t = await join({
      echo: (x: unknown) => x,
      big: () => 'x'.repeat(LIMITS.message_bytes),
      bytes: () => [new Uint8Array(LIMITS.message_bytes), () => 1],
      deep: (n: number) => deep(n),
    });
    const deep = (n: number): unknown => (n === 0 ? [] : [deep(n - 1)]);
    await rejectsWith(t.on_b.echo('x'.repeat(LIMITS.message_bytes)), TooLarge);
    await rejectsWith(
      t.on_b.echo(() => 1, new Uint8Array(LIMITS.message_bytes)),
      TooLarge,
    );
    await rejectsWith(t.on_b.big(), TooLarge);
    await rejectsWith(t.on_b.bytes(), TooLarge);
    await rejectsWith(t.on_b.echo(deep(200)), Unserialisable);
    await rejectsWith(t.on_b.deep(200), Unserialisable);
    assert.deepEqual(await t.on_b.echo([undefined, 1n]), [undefined, 1n]);
    await atRest(t.a, t.b);
  });

  it('of depth ends the session of a peer that does not keep it', async () => {
    const deep = (n: number): unknown => (n === 0 ? { $: ['undefined'] } : [deep(n - 1)]);
    for (const params of [[deep(500)], [{ $: ['mystery'] }], [{ $: ['mine', 'x', 'function'] }]]) {
      await using t = await stranger({ echo: (x: unknown) => x });
      t.say({ id: 1, method: 'echo', params }, true);
      assert.match(await t.session.closed, /protocol/);
    }
  });

  it('of depth holds for what is only taken apart to let go of it', async () => {
    const [x, y] = memoryPair();
    const a = new Session({ transport: x });
    y.start({ message: () => {}, close: () => {} });
    const call = (a.call('open', []) as any).read();
    call.catch(() => {});
    const text = `{"jsonrpc":"2.0","id":1,"result":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    y.send(text, []);
    y.send('{"jsonrpc":"2.0","id":2,"result":5}', []);
    assert.equal(await call, 5);
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.ok(a.open);
    a.close();
  });

  it('of what is unsent holds up answers to a peer that reads, and loses none', async () => {
    const mib = (n: number) => new Uint8Array(n * 1024 * 1024);
    await using t = await join(
      {
        get: (n: number) => mib(n),
        later: (n: number) => Promise.resolve(mib(n)),
        thrown: (n: number) => {
          throw new RangeError('x'.repeat(n * 1024 * 1024));
        },
        back: (f: ((bytes: Uint8Array) => Promise<number>) & Disposable) => {
          using callback = f;
          for (let i = 0; i < 5; i++) callback(mib(7)).catch(() => {});
          return 'answered';
        },
        count: (bytes: Uint8Array) => bytes.length,
      },
      {},
      { kind: 'TCP' },
    );
    for (const method of ['get', 'later']) {
      const answers = await Promise.all(Array.from({ length: 80 }, () => t.on_b[method](1)));
      assert.equal(answers.length, 80);
    }
    const failed = await Promise.allSettled(Array.from({ length: 20 }, () => t.on_b.thrown(3)));
    assert.ok(failed.every(({ status, reason }: any) => status === 'rejected' && reason.name === 'RemoteError'));
    assert.equal(await t.on_b.back((bytes: Uint8Array) => bytes.length), 'answered');
    assert.equal(await t.on_b.count(mib(1)), 1024 * 1024);
    await atRest(t.a, t.b);
  });

  it('of what calls brought refuses more of them while they are served', async () => {
    const ends: (() => void)[] = [];
    await using t = await join({
      save: (bytes: Uint8Array) => new Promise((resolve) => ends.push(() => resolve(bytes.length))),
    });
    const waiting: Promise<unknown>[] = [];
    const chunk = new Uint8Array(4 * 1024 * 1024);
    for (let i = 0; i < 20; i++) {
      waiting.push(t.on_b.save(chunk).catch((error: Error) => error));
      await settle(1);
    }
    assert.equal(ends.length, LIMITS.served_bytes / chunk.length);
    for (const end of ends.splice(0)) end();
    await until(() => t.b.stats().serving === 0, 'all to be answered');
    for (const refused of await Promise.all(waiting.slice(16)))
      assert.match((refused as Error).message, /bytes of calls being served/);
    const again = t.on_b.save(chunk);
    await until(() => ends.length === 1, 'it to be taken again');
    ends[0]!();
    assert.equal(await again, chunk.length);
    await atRest(t.a, t.b);
  });

  it('bounds what waits to leave: new calls are refused, and a peer that never reads is cut off', async (context) => {
    class Stuck implements Transport {
      buffered_bytes = 0;
      carried_bytes = 0;
      events!: TransportEvents;
      start(events: TransportEvents) {
        this.events = events;
      }
      send(text: string) {
        this.buffered_bytes += text.length;
      }
      close(reason = 'closed') {
        this.events.close(reason);
      }
    }
    const stuck = new Stuck();
    const begun: string[] = [];
    const session = new Session({
      transport: stuck,
      dispatch: (method) => {
        begun.push(method);
        return 'x'.repeat(1_000_000);
      },
    });
    const waiting = [];
    while (stuck.buffered_bytes <= LIMITS.unsent_bytes) {
      waiting.push(session.call('m', ['x'.repeat(4_000_000)]).catch((error) => error.name));
      await settle(1);
    }
    const error = await rejectsWith(session.call('m'), Overloaded);
    assert.match(error.message, /unsent bytes/);
    assert.ok(session.open);
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const unsent = stuck.buffered_bytes;
    stuck.events.message('{"jsonrpc":"2.0","id":1,"method":"m"}');
    stuck.events.message('{"jsonrpc":"2.0","id":2,"method":"rpc.heartbeat"}');
    await settle();
    assert.deepEqual(begun, ['rpc.heartbeat']);
    assert.ok(stuck.buffered_bytes > unsent);
    const wait = (ms: number) => {
      for (let waited = 0; waited < ms; waited += 20) context.mock.timers.tick(20);
    };
    wait(LIMITS.unread_ms - 1_000);
    assert.ok(session.open);
    stuck.buffered_bytes -= 1;
    wait(LIMITS.unread_ms - 1_000);
    assert.ok(session.open);
    wait(2_000);
    assert.match(await session.closed, /more slowly than it asks/);
    assert.deepEqual(begun, ['rpc.heartbeat']);
    assert.deepEqual([...new Set(await Promise.all(waiting))], ['OutcomeUnknown']);
  });

  it('bounds the streams of each direction by themselves', async () => {
    const never = async function* () {
      await new Promise(() => {});
      yield 1;
    };
    await using t = await stranger({ take: () => new Promise(() => {}), give: () => never() });
    for (let i = 0; i < LIMITS.streams + 2; i++)
      t.say({ id: i, method: 'take', params: [{ $: ['mine', i + 1, 'iterable'] }] }, true);
    await settle();
    const refused = t.heard.filter((message) => message.error);
    assert.deepEqual(
      refused.map((message) => message.error.data.name),
      ['Overloaded', 'Overloaded'],
    );
    for (let i = 0; i < LIMITS.streams + 2; i++) t.say({ id: 1000 + i, method: 'give', params: [] });
    await settle();
    assert.equal(t.heard.filter((message) => message.error).length, 4);
    assert.equal(t.session.stats().streams, 2 * LIMITS.streams);
  });

  it('of one session is not another’s', async () => {
    const ends: ((value: unknown) => void)[] = [];
    const root = { wait: () => new Promise((resolve) => ends.push(resolve)), one: () => 1 };
    await using s = await join(root);
    await using t = await join(root);
    const waiting = Array.from({ length: LIMITS.calls_in_flight }, () => s.on_b.wait());
    await rejectsWith(s.on_b.one(), Overloaded);
    assert.equal(await t.on_b.one(), 1);
    await until(() => ends.length === waiting.length, 'all to have begun');
    for (const end of ends) end(1);
    await Promise.all(waiting);
  });
});
