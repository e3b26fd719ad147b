/** Pipelining: round trips, room, arguments that are waited for, and calls on what is still to come. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Cancelled, DeadlineExceeded, isError, LIMITS, Overloaded } from '@hauki/protocol';
import { Session } from '../src/session.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { atRest, held, join, KINDS, rejectsWith, rootOf, serving } from './joined.ts';
import { makeRoot, turns, unhandled } from './pipelining-support.ts';
import { settle } from './support.ts';

describe('pipelining', () => {
  it('takes one round trip, however long the chain', async () => {
    const [x, y] = memoryPair();
    const changes = turns(x, y);
    const a = new Session({ transport: x });
    const b = new Session({ transport: y, dispatch: serving(makeRoot()) });
    const g = rootOf(a);
    let chain = g.open();
    for (let i = 0; i < 9; i++) chain = chain.write(String(i));
    assert.equal(await chain.read(), '0\n1\n2\n3\n4\n5\n6\n7\n8');
    assert.equal(changes(), 2);
    assert.equal(await g.add(g.add(g.one(), g.one()), g.config().deep.port), 82);
    assert.equal(changes(), 4);
    await atRest(a, b);
    a.close();
  });

  it('leaves nothing behind, ten thousand times', async () => {
    await using t = await join(makeRoot());
    let most = 0;
    for (let i = 0; i < 10_000; i++) {
      assert.equal(await t.on_b.open().read(), '');
      most = Math.max(most, t.b.stats().exported, t.b.stats().kept);
      if (i % 100 === 99) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await atRest(t.a, t.b);
    assert.ok(most < 1000, `${most} at once`);
  });

  it('frees a kept result when the calls on it are over, not before', async () => {
    let release!: (value: string) => void;
    const gate = new Promise<string>((resolve) => {
      release = resolve;
    });
    await using t = await join({ ...makeRoot(), wait: () => gate });
    const waiting = t.on_b.open().write(t.on_b.wait()).read();
    const other = t.on_b.open().read();
    await settle();
    assert.ok(held(t.b).kept >= 2, 'what waits is still kept');
    release('at last');
    assert.equal(await waiting, 'at last');
    assert.equal(await other, '');
    await atRest(t.a, t.b);
  });

  it('goes on past a result that the caller gave up', async () => {
    await using t = await join({ ...makeRoot(), never: () => new Promise(() => {}) });
    const controller = new AbortController();
    const call = t.a.call('never', [], { signal: controller.signal }) as any;
    const next = call.read();
    controller.abort(new Error('enough'));
    await assert.rejects(call, { name: 'Cancelled' });
    const gone = t.a.call('open', [], { timeout_ms: 60_000 }) as any;
    assert.equal(await gone.read(), '');
    // Given up with it: its signal held for what was called on it.
    await assert.rejects(next, { name: 'Cancelled' });
  });

  it('lets a heartbeat pass calls that wait for their arguments', async () => {
    let release!: (value: number) => void;
    const gate = new Promise<number>((resolve) => {
      release = resolve;
    });
    const root = makeRoot();
    await using t = await join(
      root,
      {},
      {
        b: {
          dispatch: (method, params, session, call) => {
            if (method === 'rpc.heartbeat') return 'alive';
            return method === 'gate' ? gate : serving(root)(method, params, session, call);
          },
        },
      },
    );
    const waiting = t.on_b.add(t.on_b.gate(), 1);
    const behind = t.on_b.add(1, 1);
    assert.equal(await t.a.call('rpc.heartbeat'), 'alive');
    release(4);
    assert.deepEqual(await Promise.all([waiting, behind]), [5, 2]);
  });

  it('refuses to keep more results than there is room for', async () => {
    const [x, y] = memoryPair();
    const b = new Session({ transport: y, dispatch: serving({ open: () => 1 }) });
    const answers: any[] = [];
    x.start({ message: (text) => void answers.push(JSON.parse(text)), close: () => {} });
    // A peer that never forgets.
    for (let id = 1; id <= 10_003; id++)
      x.send(JSON.stringify({ jsonrpc: '2.0', id, method: 'open', params: [], rpc: { keep: true } }));
    await settle();
    assert.deepEqual([b.stats().kept, answers.length], [10_000, 10_003]);
    assert.deepEqual(
      answers.filter((answer) => answer.error).map((answer) => answer.error.data.name),
      Array(3).fill(Overloaded.row.name),
    );
    x.send(JSON.stringify({ jsonrpc: '2.0', method: 'rpc.forget', params: [1, 2, 3] }));
    x.send(JSON.stringify({ jsonrpc: '2.0', id: 20_000, method: 'open', params: [], rpc: { keep: true } }));
    await settle();
    assert.equal(answers.at(-1).result, 1);
    x.close();
  });
});

describe('a call that waits for its arguments', () => {
  class Slow {
    heard: string[] = [];
    slow(value: unknown) {
      return settle(20).then(() => value);
    }
    async total(first: number, items: AsyncIterable<number>) {
      let sum = first;
      for await (const item of items) sum += item;
      return sum;
    }
    why(_: unknown, signal: AbortSignal) {
      return String(signal.aborted && signal.reason);
    }
    fail() {
      return settle(5).then(() => {
        throw new RangeError('no such thing');
      });
    }
  }

  for (const kind of KINDS)
    it(`has all of the streams and signals that came with it, over ${kind}`, async () => {
      await using t = await join(new Slow(), {}, { kind });
      async function* count(to: number) {
        for (let i = 0; i < to; i++) yield i;
      }
      assert.equal(await t.on_b.total(t.on_b.slow(1), count(100)), 4951);
      const [one, two] = [t.on_b.total(t.on_b.slow(1), count(3)), t.on_b.total(2, count(4))];
      assert.deepEqual(await Promise.all([one, two]), [4, 8]);
      const controller = new AbortController();
      const told = t.on_b.why(t.on_b.slow(1), controller.signal);
      await settle(2);
      controller.abort(new Error('meanwhile'));
      assert.match(await told, /meanwhile/);
      await atRest(t.a, t.b);
    });

  it('lets go of what it brought when they fail', async () => {
    await using t = await join(new Slow());
    let closed = false;
    async function* count() {
      try {
        for (let i = 0; ; i++) yield i;
      } finally {
        closed = true;
      }
    }
    const call = t.on_b.total(t.on_b.fail(), count(), () => 1, new AbortController().signal);
    await assert.rejects(call, /no such thing/);
    await atRest(t.a, t.b);
    assert.ok(closed);
  });
});

describe('pipelining on something that is still to come', () => {
  it('records calls, reads and results as arguments, and does them in order, in one round trip', async () => {
    const [x, y] = memoryPair();
    const changes = turns(x, y);
    const a = new Session({ transport: x, waits: true });
    const b = new Session({ transport: y, dispatch: serving(makeRoot()) });
    const on_b = rootOf(a);
    const file = on_b.open();
    await settle();
    const text = file.write('x').write('y').read();
    const port = on_b.config().deep.port;
    const waiting = Promise.all([text, port, on_b.add(on_b.one(), on_b.two()), on_b.open().fail().catch(String)]);
    await settle();
    assert.equal(changes(), 0);
    a.begin();
    const [read, number, sum, failed] = await waiting;
    assert.deepEqual([read, number, sum], ['x\ny', 80, 3]);
    assert.match(failed, /no such line/);
    // One for all that could leave at once; the answers came in two turns, because one of them was awaited over there.
    assert.ok(changes() <= 4, `${changes()} turns`);
    await atRest(a, b);
    a.close();
  });

  it('sends what arguments were when they were given', async () => {
    const [x, y] = memoryPair();
    const a = new Session({ transport: x, waits: true });
    const b = new Session({ transport: y, dispatch: serving(makeRoot()) });
    const of = { list: [1, 2], map: new Map([['three', 3]]) };
    const sum = rootOf(a).sum(of);
    of.list.push(4);
    a.begin();
    assert.equal(await sum, 6);
    await atRest(a, b);
    a.close();
  });

  it('fails everything that was recorded, and leaves nothing unhandled', async () => {
    const heard = await unhandled(async () => {
      const [x] = memoryPair();
      const why = new Overloaded({ what: 'the room', limit: 0 });
      const a = new Session({ transport: x, waits: true, explain: async () => why as never });
      const on_b = rootOf(a);
      const read = on_b.open().write('x').read();
      const port = on_b.config().deep.port;
      a.close('no room');
      await rejectsWith(read, Overloaded);
      await rejectsWith(Promise.resolve(port), Overloaded);
      await rejectsWith(on_b.open().read(), Overloaded);
    });
    assert.deepEqual(heard, []);
  });

  it('keeps to the deadlines and signals of its calls', async () => {
    const [x, y] = memoryPair();
    const a = new Session({ transport: x, waits: true, timeout_ms: 1 });
    const b = new Session({ transport: y, dispatch: serving(makeRoot()) });
    const controller = new AbortController();
    const left = a.call('one', [], { signal: controller.signal });
    const read = (a.call('open', [], { signal: controller.signal }) as any).write('x').read();
    const named = a.call('nameOf', [a.call('open', [], { signal: controller.signal })]);
    const late = a.call('one', [], { timeout_ms: 1 });
    controller.abort(new Error('no longer wanted'));
    // What goes on a call that is not sent is not sent either.
    for (const call of [left, read, named])
      assert.equal((await rejectsWith(call, Cancelled)).fields.may_have_run, false);
    // What sets no time of its own waits for the other side first.
    let over = false;
    const unhurried = a.call('one').then(
      () => (over = true),
      () => (over = true),
    );
    assert.equal((await rejectsWith(late, DeadlineExceeded)).fields.may_have_run, false);
    await settle(20);
    assert.equal(over, false);
    a.begin();
    await unhurried;
    assert.equal(b.stats().calls_served, 1);
    a.close();
  });

  it('refuses what is more than may wait', async () => {
    const [x] = memoryPair();
    const a = new Session({ transport: x, waits: true });
    const big = 'x'.repeat(LIMITS.message_bytes / 2);
    const heard = Array.from({ length: 12 }, () => a.call('open', [big]).catch((error) => isError(error, Overloaded)));
    await settle();
    a.close('it never came');
    const refused = (await Promise.all(heard)).filter(Boolean);
    assert.ok(refused.length > 0 && refused.length < 12, `${refused.length} refused`);
  });
});
