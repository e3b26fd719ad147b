/** Pipelining: calls on results that are not there yet leave together, fail together, and leave nothing behind. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  Cancelled,
  DeadlineExceeded,
  isError,
  LIMITS,
  Overloaded,
  RefGone,
  RemoteError,
  Unserialisable,
} from '@hauki/protocol';
import { reference } from '../src/references.ts';
import { Session } from '../src/session.ts';
import type { FrameTransport, Transport } from '../src/transport.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { atRest, held, join, KINDS, rejectsWith, rootOf, serving } from './joined.ts';
import { settle } from './support.ts';

const later = <T>(value: T, turns = 3): Promise<T> => settle(turns).then(() => value);

class File {
  readonly name: string;
  readonly lines: string[] = [];
  constructor(name: string) {
    this.name = name;
  }
  write(line: string) {
    this.lines.push(line);
    return this;
  }
  async slowly(line: string) {
    await settle(5);
    return this.write(line);
  }
  read() {
    return this.lines.join('\n');
  }
  fail() {
    throw new RangeError('no such line');
  }
}

const makeRoot = () => ({
  open: (name = 'a') => new File(name),
  slow: (name = 'a') => later(new File(name)),
  one: () => 1,
  two: () => later(2),
  add: (a: number, b: number) => a + b,
  sum: (of: { list: number[]; map: Map<string, number> }) =>
    [...of.list, ...of.map.values()].reduce((x, y) => x + y, 0),
  nameOf: (file: File) => (file instanceof File ? file.name : typeof file),
  broken: () => {
    throw new RangeError('out of order');
  },
  brokenLater: async () => {
    await settle(2);
    throw new RangeError('out of order');
  },
  config: () => ({ deep: { port: 80, list: [1, 2, 3] }, text: 'four' }),
  tools: () => ({ up: { twice: (n: number) => n * 2 } }),
  when: () => new Date(7),
  self: () => reference({ self: () => reference({ end: () => 'end' }) }),
});

/** Rejections that nobody handled while `body` ran. */
async function unhandled(body: () => Promise<void>): Promise<unknown[]> {
  const heard: unknown[] = [];
  const hear = (reason: unknown) => void heard.push(reason);
  process.on('unhandledRejection', hear);
  try {
    await body();
    await settle();
  } finally {
    process.off('unhandledRejection', hear);
  }
  return heard;
}

/** Counts how often the direction of messages changes: two for each round trip. */
function turns(...ends: FrameTransport[]): () => number {
  let last = -1;
  let changes = 0;
  ends.forEach((end, i) => {
    const send = end.send.bind(end);
    (end as Transport).send = (text, bytes) => {
      // What lets go of something is nobody's round trip.
      if (!/"method":"rpc\.(release|forget)"/.test(text) && last !== i) {
        last = i;
        changes++;
      }
      send(text, bytes);
    };
  });
  return () => changes;
}

for (const kind of KINDS)
  describe(`pipelined calls over ${kind}`, () => {
    it('go on objects, functions, paths and results of results', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      const g = t.on_b;
      assert.equal(await g.open().write('x').write('y').read(), 'x\ny');
      assert.equal(await g.slow().slowly('x').write('y').read(), 'x\ny');
      assert.equal(await g.tools().up.twice(4), 8);
      assert.equal(await g.config().deep.port, 80);
      assert.equal(await g.config().deep.list.length, 3);
      assert.equal(await g.config().text.length, 4);
      assert.equal(await g.config().nothing, undefined);
      assert.equal(await g.self().self().end(), 'end');
      await atRest(t.a, t.b);
    });

    it('take results as arguments, at any depth, settled or not', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      const g = t.on_b;
      assert.equal(await g.add(g.one(), g.two()), 3);
      assert.equal(await g.add(g.add(g.two(), 1), g.config().deep.port), 83);
      assert.equal(await g.sum({ list: [g.one(), 5, g.two()], map: new Map([['a', g.two()]]) }), 10);
      assert.equal(await g.nameOf(g.open('mine')), 'mine');
      assert.equal(await g.nameOf(g.slow('late').write('x')), 'late');
      const one = g.one();
      assert.deepEqual([await g.add(one, one), await one], [2, 1]);
      await atRest(t.a, t.b);
    });

    it('wait for arguments behind a call that itself waits', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      const g = t.on_b;
      // The second waits behind the first, although its own argument has long been there.
      const first = g.add(g.two(), 1);
      const second = g.nameOf(g.open('quick'));
      assert.deepEqual(await Promise.all([first, second]), [3, 'quick']);
      // Calls on the result of a call that waits for its argument.
      assert.equal(await g.open(g.slow('x').read()).write(g.slow().slowly('late').read()).read(), 'late');
      const file = g.open();
      const done = [file.write(g.slow().slowly('1').read()), file.write('2'), file.read()];
      assert.equal(await done[2], '1\n2');
      await Promise.all(done).then((all) => all[0][Symbol.dispose]());
      await atRest(t.a, t.b);
    });

    it('keep their order with plain calls on the same target', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      await using file = await t.on_b.open();
      const calls = Array.from({ length: 40 }, (_, i) =>
        i % 3 === 0 ? file.write(t.on_b.add(i, t.on_b.two())).name : file.write(i),
      );
      const text = file.read();
      await Promise.allSettled(calls);
      assert.equal(await text, Array.from({ length: 40 }, (_, i) => (i % 3 === 0 ? i + 2 : i)).join('\n'));
      await file[Symbol.asyncDispose]();
      await atRest(t.a, t.b);
    });

    it('fail as their first link does, each of them, and nothing goes unhandled', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      const g = t.on_b;
      const heard = await unhandled(async () => {
        for (const method of ['broken', 'brokenLater'] as const) {
          const first = g[method]();
          const dependents = [
            first.read(),
            first.write('x').read(),
            first.name,
            g.add(first, 1),
            g.add(first.x.y, 1).z(),
          ];
          for (const each of dependents) assert.match((await rejectsWith(each, RemoteError)).message, /out of order/);
        }
        assert.match((await rejectsWith(g.open().fail().read(), RemoteError)).message, /no such line/);
      });
      assert.deepEqual(heard, []);
      await atRest(t.a, t.b);
    });

    it('that cannot begin reject, and do not throw', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      await using other = await join(makeRoot(), {}, { kind });
      const g = t.on_b;
      const heard = await unhandled(async () => {
        await rejectsWith(g.open(Symbol('no')).write().read(), Unserialisable);
        await rejectsWith(g.add(g.one(Symbol('no')), 2), Unserialisable);
        await rejectsWith(g.add({ at: [g.one(Symbol('no')).x.y] }, 2), Unserialisable);
        const foreign = await rejectsWith(g.add(other.on_b.one(), 2), Unserialisable);
        assert.match(foreign.message, /await it/);
        const old = g.one();
        await old;
        await rejectsWith(g.add(old, 1), Unserialisable);
        await rejectsWith(g.add(Promise.resolve(1), 1), Unserialisable);
        await t[Symbol.asyncDispose]();
        await assert.rejects(g.open().write('x').read(), { name: 'ConnectionLost' });
        await assert.rejects(g.add(g.one(), 1), { name: 'ConnectionLost' });
      });
      assert.deepEqual(heard, []);
    });

    it('can be made on a result that is under way or there already', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      const file = t.on_b.slow();
      await settle(1);
      assert.equal(await file.write('x').write('y').read(), 'x\ny');
      const config = t.on_b.config();
      await settle(1);
      assert.equal(await config.deep.port, 80);
      await settle(5);
      assert.equal(await config.deep.list.length, 3);
      assert.equal(await config.text, 'four');
    });

    it('let the first promise be looked at too, before, with or after them', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      const g = t.on_b;
      for (const wait of [() => undefined, () => settle(3)]) {
        const promise = g.slow();
        const read = promise.read();
        await wait();
        using file = await promise;
        assert.equal(await read, '');
        assert.equal(await (await file.write('x')).read(), 'x');
        const after = g.open();
        await after.read();
        using opened = await after;
        assert.equal(await opened.read(), '');
        const told = g.open('named');
        assert.equal(await g.nameOf(told), 'named');
        using same = await told;
        assert.equal(await same.read(), '');
      }
      await atRest(t.a, t.b);
    });

    it('let a result be looked at long after, where it holds data', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      const [config, when] = [t.on_b.config(), t.on_b.when()];
      await config.deep.port;
      await assert.rejects(when.nothing());
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal((await config).deep.port, 80);
      assert.deepEqual(await when, new Date(7));
      // What stays on the other side has been let go of meanwhile, and says so.
      const file = t.on_b.open();
      await file.read();
      await new Promise((resolve) => setTimeout(resolve, 20));
      await rejectsWith(file, RefGone);
      await atRest(t.a, t.b);
    });
  });

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
    t.a.close();
    await assert.rejects(next, { name: 'OutcomeUnknown' });
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
