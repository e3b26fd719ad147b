/** Streams: what gives items one after the other crosses a session with credit, both ways, and ends on both sides. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { LIMITS, Overloaded, RemoteError } from '@hauki/protocol';
import { Session } from '../src/session.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { atRest, held, join, KINDS, rejectsWith, serving } from './joined.ts';
import { settle, until } from './support.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const collect = async <T>(items: AsyncIterable<T>): Promise<T[]> => {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
};

class Source {
  produced = 0;
  finished = 0;
  async *count(to: number, text = '') {
    try {
      for (let i = 0; i < to; i++) {
        this.produced++;
        yield text ? `${i}${text}` : i;
      }
    } finally {
      this.finished++;
    }
  }
  *plainly(to: number) {
    try {
      for (let i = 0; i < to; i++) {
        this.produced++;
        yield i;
      }
    } finally {
      this.finished++;
    }
  }
  *promises() {
    yield Promise.resolve(1);
    yield settle(2).then(() => 2);
  }
  async *failing() {
    yield 1;
    throw Object.assign(new RangeError('ran dry', { cause: new TypeError('no rain') }), { litres: 0 });
  }
  async *unsendable() {
    try {
      yield 1;
      yield Symbol('no');
    } finally {
      this.finished++;
    }
  }
  async *silent() {
    try {
      yield 1;
      await new Promise(() => {});
    } finally {
      this.finished++;
    }
  }
  web(to: number) {
    const each = this.count(to);
    return new ReadableStream({
      pull: async (controller) => {
        const { done, value } = await each.next();
        if (done) controller.close();
        else controller.enqueue(new Uint8Array([value as number]));
      },
      cancel: () => void each.return(undefined),
    });
  }
  node(to: number) {
    return Readable.from(this.count(to));
  }
  async *empties(to: number) {
    for (let i = 0; i < to; i++) {
      this.produced++;
      yield '';
    }
  }
  async *things() {
    yield new Map([[1, new Date(5)]]);
    yield Buffer.from('bytes');
    yield (n: number) => n * 2;
    yield { again: (n: number) => n * 3 };
  }
  both(to: number) {
    return { first: this.count(to), second: this.plainly(to), when: new Date(1) };
  }
  async total(items: AsyncIterable<number>) {
    let sum = 0;
    for await (const item of items) sum += item;
    return sum;
  }
  async some(items: AsyncIterable<number>, n: number) {
    const got: number[] = [];
    for await (const item of items) if (got.push(item) >= n) break;
    return got;
  }
  async *double(items: AsyncIterable<number>) {
    for await (const item of items) yield item * 2;
  }
}

for (const kind of KINDS)
  describe(`streams over ${kind}`, () => {
    it('carry generators, plain generators, byte streams and Node streams from the other side', async () => {
      await using t = await join(new Source(), {}, { kind });
      const g = t.on_b;
      assert.deepEqual(await collect(await g.count(5)), [0, 1, 2, 3, 4]);
      assert.deepEqual(await collect(await g.plainly(3)), [0, 1, 2]);
      assert.deepEqual(await collect(await g.promises()), [1, 2]);
      assert.deepEqual(await collect(await g.count(0)), []);
      const web = await g.web(3);
      assert.ok(web instanceof ReadableStream);
      assert.deepEqual(await collect(web as never), [new Uint8Array([0]), new Uint8Array([1]), new Uint8Array([2])]);
      assert.deepEqual(await collect(await g.node(3)), [0, 1, 2]);
      await atRest(t.a, t.b);
    });

    it('carry the same the other way, as arguments, and through', async () => {
      const here = new Source();
      await using t = await join(new Source(), {}, { kind });
      const g = t.on_b;
      assert.equal(await g.total(here.count(100)), 4950);
      assert.equal(await g.total(here.plainly(10)), 45);
      assert.equal(await g.total(here.node(10)), 45);
      assert.deepEqual(await collect(await g.double(here.count(4))), [0, 2, 4, 6]);
      assert.deepEqual(await collect(await g.double(await g.double(await g.count(3)))), [0, 4, 8]);
      await atRest(t.a, t.b);
      assert.equal(here.finished, 4);
    });

    it('carry references and bytes in their items', async () => {
      await using t = await join(new Source(), {}, { kind });
      const [map, bytes, f, object] = (await collect(await t.on_b.things())) as any[];
      assert.deepEqual(map, new Map([[1, new Date(5)]]));
      assert.deepEqual(bytes, new Uint8Array(Buffer.from('bytes')));
      assert.deepEqual([await f(2), await object.again(2)], [4, 6]);
      f[Symbol.dispose]();
      object.again[Symbol.dispose]();
      await atRest(t.a, t.b);
    });

    it('let go of references in items that nobody reads', async () => {
      await using t = await join(
        {
          *things() {
            for (let i = 0; i < 50; i++) yield [() => i, new Map([[i, () => i]])];
          },
        },
        {},
        { kind },
      );
      const stream = await t.on_b.things();
      await settle();
      const { value } = await stream.next();
      await stream.return();
      value[0][Symbol.dispose]();
      value[1].get(0)[Symbol.dispose]();
      await atRest(t.a, t.b);
    });

    it('leave what came after alone when one ends whose items nobody read', async () => {
      await using t = await join(
        {
          *bytes() {
            for (let i = 0; i < 50; i++) yield new Uint8Array(100);
          },
          async *slowly() {
            for (let i = 0; i < 5; i++) yield settle(5).then(() => i);
          },
          double: () => (n: number) => n * 2,
        },
        {},
        { kind },
      );
      const unread = await t.on_b.bytes();
      await unread.next();
      await settle();
      const others = await t.on_b.slowly();
      const double = await t.on_b.double();
      const all = collect(others);
      await unread.return();
      assert.deepEqual(await all, [0, 1, 2, 3, 4]);
      assert.equal(await double(2), 4);
      double[Symbol.dispose]();
      await atRest(t.a, t.b);
    });

    it('bound what a producer is ahead of a reader that reads nothing, or slowly', async () => {
      const source = new Source();
      await using t = await join(source, {}, { kind });
      const text = 'x'.repeat(1000);
      const items = await t.on_b.count(100_000, text);
      await settle(100);
      const window = Math.ceil(LIMITS.stream_bytes / 1064) + 2;
      assert.ok(source.produced > 100 && source.produced <= window, `${source.produced} of ${window}`);
      let read = 0;
      for await (const _ of items) {
        read++;
        if (read % 100 === 0) {
          await settle(30);
          assert.ok(source.produced - read <= window, `${source.produced - read} ahead`);
        }
        if (read === 1000) break;
      }
      await until(() => source.finished === 1, 'the generator to be closed');
      await atRest(t.a, t.b);
    });

    it('bound empty items too', async () => {
      const source = new Source();
      await using t = await join(source, {}, { kind });
      const items = await t.on_b.empties(1_000_000);
      await settle(100);
      assert.ok(source.produced > 100 && source.produced < LIMITS.stream_bytes / 64, `${source.produced}`);
      await items.return();
      await atRest(t.a, t.b);
    });

    it('close the producer when the reader leaves, however it leaves', async () => {
      const source = new Source();
      await using t = await join(source, {}, { kind });
      for await (const item of await t.on_b.count(1e9)) if (item === 10) break;
      await until(() => source.finished === 1, 'break');
      await assert.rejects(async () => {
        for await (const _ of await t.on_b.plainly(1e9)) throw new Error('enough');
      }, /enough/);
      await until(() => source.finished === 2, 'throw');
      {
        await using items = await t.on_b.count(1e9);
        await items.next();
      }
      await until(() => source.finished === 3, 'await using');
      const web = (await t.on_b.web(200)) as ReadableStream;
      const reader = web.getReader();
      await reader.read();
      await reader.cancel();
      await until(() => source.finished === 4, 'cancel');
      const here = new Source();
      assert.deepEqual(await t.on_b.some(here.count(1e9), 3), [0, 1, 2]);
      await until(() => here.finished === 1, 'the other way');
      await atRest(t.a, t.b);
    });

    it('bring what the producer throws, with its cause and its properties', async () => {
      await using t = await join(new Source(), {}, { kind });
      const items = await t.on_b.failing();
      assert.deepEqual(await items.next(), { done: false, value: 1 });
      const error: any = await rejectsWith(items.next(), RemoteError);
      assert.match(error.message, /RangeError: ran dry/);
      assert.ok(error.cause instanceof RangeError && error.cause.cause instanceof TypeError);
      assert.equal(error.cause.litres, 0);
      assert.deepEqual(await items.next(), { done: true, value: undefined });
      const web = (await t.on_b.unsendable()) as AsyncIterator<number>;
      await web.next();
      await assert.rejects(web.next(), { name: 'Unserialisable' });
      await atRest(t.a, t.b);
    });

    it('end with the session: readers hear why, generators are closed', async () => {
      const source = new Source();
      const t = await join(source, {}, { kind });
      const items = await t.on_b.silent();
      await items.next();
      const more = items.next();
      const counting = await t.on_b.count(1e9, 'x'.repeat(1000));
      await counting.next();
      t.a.close('gone home');
      await assert.rejects(more, { name: 'ConnectionLost', message: /gone home/ });
      await assert.rejects(
        async () => {
          for await (const _ of counting);
        },
        { name: 'ConnectionLost' },
      );
      await until(() => source.finished === 1, 'the counting generator to be closed');
      await t[Symbol.asyncDispose]();
    });

    it('are read by whichever reads a kept result, and by nobody else', async () => {
      const source = new Source();
      await using t = await join(source, {}, { kind });
      // The other side reads the one itself: nothing of it comes here.
      assert.equal(await t.on_b.total(t.on_b.count(100)), 4950);
      const both = t.on_b.both(5);
      assert.equal(await t.on_b.total(both.first), 10);
      // Whoever looks at the result has all of both.
      const { when, first, second } = await both;
      assert.equal(when.getTime(), 1);
      assert.deepEqual(await collect(second), [0, 1, 2, 3, 4]);
      await first.return();
      // A stream that began with nobody waits for its first reader.
      const later = t.on_b.both(3);
      await later.when;
      const items = (await later).first;
      await settle();
      assert.deepEqual(await collect(items), [0, 1, 2]);
      await (await later).second.return();
      await atRest(t.a, t.b);
    });

    it('carry 64 MiB of bytes in little memory', async () => {
      const chunk = 256 * 1024;
      const count = (64 * 1024 * 1024) / chunk;
      await using t = await join(
        {
          *bytes() {
            for (let i = 0; i < count; i++) yield new Uint8Array(chunk).fill(i);
          },
        },
        {},
        { kind },
      );
      let got = 0;
      let most = 0;
      collectGarbage();
      const before = process.memoryUsage().arrayBuffers;
      let grown = 0;
      for await (const item of (await t.on_b.bytes()) as AsyncIterable<Uint8Array>) {
        assert.equal(item[chunk - 1], (got / chunk) & 255);
        got += item.length;
        if (got % (16 * chunk) === 0) {
          collectGarbage();
          grown = Math.max(grown, process.memoryUsage().arrayBuffers - before);
        }
        most = Math.max(most, t.a.stats().buffered_bytes, t.b.stats().buffered_bytes);
      }
      assert.equal(got, 64 * 1024 * 1024);
      assert.ok(most < 4 * LIMITS.stream_bytes, `${most} bytes unsent`);
      assert.ok(grown < 32 * 1024 * 1024, `${grown} bytes of buffers`);
      await atRest(t.a, t.b);
    });

    it('are refused beyond their number, and the session goes on', async () => {
      const source = new Source();
      await using t = await join(source, {}, { kind });
      const open = [];
      for (let i = 0; i < LIMITS.streams; i++) open.push(await t.on_b.count(1e9, 'x'.repeat(10_000)));
      await rejectsWith(t.on_b.count(1), Overloaded);
      // The other direction has room of its own.
      assert.equal(await t.on_b.total(new Source().count(3)), 3);
      for (const each of open.splice(0)) await each.return();
      assert.deepEqual(await collect(await t.on_b.count(2)), [0, 1]);
      await atRest(t.a, t.b);
    });
  });

describe('a stream', () => {
  it('that sends without credit ends its session, and no other', async () => {
    const [x, y] = memoryPair();
    const source = new Source();
    const b = new Session({ transport: y, dispatch: serving(source) });
    await using other = await join(source);
    x.start({ message: () => {}, close: () => {} });
    const items = { jsonrpc: '2.0', id: 1, method: 'some', params: [{ $: ['mine', 1, 'iterable'] }, 1e9] };
    x.send(JSON.stringify(items), []);
    const item = JSON.stringify({ jsonrpc: '2.0', method: 'rpc.item', params: [1, 'x'.repeat(100_000)] });
    for (let i = 0; i < 3; i++) x.send(item);
    await settle();
    assert.ok(b.open, 'within its credit, and read at once');
    const lazy = { jsonrpc: '2.0', id: 2, method: 'never', params: [{ $: ['mine', 2, 'iterable', 0] }] };
    x.send(JSON.stringify(lazy), []);
    x.send(JSON.stringify({ jsonrpc: '2.0', method: 'rpc.item', params: [2, 1] }));
    assert.match(await b.closed, /without credit/);
    assert.deepEqual(await collect(await other.on_b.count(2)), [0, 1]);
  });

  it('of the peer that nobody knows is let be', async () => {
    await using t = await join(new Source());
    for (const method of ['item', 'end', 'fail', 'credit', 'stop']) t.a.notify(`rpc.${method}`, [99, 1000]);
    t.a.notify('rpc.item', [99, () => 1]);
    t.a.notify('rpc.credit', ['x', -1]);
    assert.deepEqual(await collect(await t.on_b.count(2)), [0, 1]);
    await atRest(t.a, t.b);
  });

  it('whose message never leaves is let go of, though it never began', async () => {
    const here = new Source();
    await using t = await join(new Source());
    const controller = new AbortController();
    const items = here.count(5);
    const call = t.a.call('total', [items], { signal: controller.signal });
    controller.abort();
    await assert.rejects(call, { name: 'Cancelled' });
    await atRest(t.a, t.b);
    assert.deepEqual(await items.next(), { done: true, value: undefined });
    assert.deepEqual(held(t.b).streams, 0);
  });

  it('that waits for nothing keeps its producer from being asked again', async () => {
    const source = new Source();
    await using t = await join(source);
    const items = await t.on_b.silent();
    assert.deepEqual(await items.next(), { done: false, value: 1 });
    const waiting = items.next();
    await items.return();
    assert.deepEqual(await waiting, { done: true, value: undefined });
    await atRest(t.a, t.b);
  });
});
