/** References: what goes over a session without being copied, in both directions, and how both sides let go of it. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { NoSuchMethod, RefGone, RemoteError } from '@hauki/protocol';
import { sourceOf, withOptions } from '../src/ghost.ts';
import { RemotePromise } from '../src/promise.ts';
import { reference } from '../src/references.ts';
import { atRest, held, join, KINDS, rejectsWith, rootOf } from './joined.ts';
import { settle, until } from './support.ts';

class Counter {
  count = 0;
  #secret = 7;
  disposed = 0;
  add(by = 1) {
    this.count += by;
    return this.count;
  }
  secret() {
    return this.#secret;
  }
  get looks() {
    return this.add(1000);
  }
  _private() {
    return 'private';
  }
  fail() {
    throw new RangeError('too far');
  }
  [Symbol.dispose]() {
    this.disposed++;
  }
}

for (const kind of KINDS)
  describe(`references over ${kind}`, () => {
    it('let a function be called many times, also after the call that brought it has ended', async () => {
      let kept: any;
      await using t = await join(
        {
          keep(f: unknown) {
            kept = f;
          },
          run: (n: number) => kept(n),
        },
        {},
        { kind },
      );
      const heard: number[] = [];
      await t.on_b.keep((n: number) => {
        heard.push(n);
        return n * 2;
      });
      const answers = [await t.on_b.run(1), await t.on_b.run(2), await kept(3)];
      assert.deepEqual(
        [heard, answers],
        [
          [1, 2, 3],
          [2, 4, 6],
        ],
      );
      kept[Symbol.dispose]();
      await atRest(t.a, t.b);
    });

    it('carry what a callback throws to whoever called it', async () => {
      await using t = await join(
        {
          run: async (f: any) => {
            using call = f;
            return call();
          },
        },
        {},
        { kind },
      );
      const error = await rejectsWith(
        t.on_b.run(() => {
          throw new RangeError('not today');
        }),
        RemoteError,
      );
      assert.match(error.message, /RangeError: not today/);
      await atRest(t.a, t.b);
    });

    it('stand for instances of classes: their public methods, nothing else', async () => {
      const counter = new Counter();
      await using t = await join({ counter: () => counter }, {}, { kind });
      const ghost = await t.on_b.counter();
      assert.deepEqual([await ghost.add(), await ghost.add(4), await ghost.secret()], [1, 5, 7]);
      for (const name of ['count', 'looks', '_private', 'hasOwnProperty', 'disposed', '__defineGetter__', 'nothing'])
        await rejectsWith(ghost[name](), NoSuchMethod);
      assert.match((await rejectsWith(ghost.fail(), RemoteError)).message, /too far/);
      assert.equal(counter.count, 5, 'no getter has run');
      await ghost[Symbol.asyncDispose]();
      await atRest(t.a, t.b);
    });

    it('give a peer that speaks by itself no more than that', async () => {
      const counter = new Counter();
      await using t = await join(
        { counter: () => counter, tools: () => ({ f: (x: number) => x, at: { deep: 3 } }) },
        {},
        { kind },
      );
      const ghost = await t.on_b.counter();
      const source = sourceOf(ghost)!;
      for (const name of [
        'constructor',
        '__proto__',
        'toString',
        'valueOf',
        '__lookupGetter__',
        'isPrototypeOf',
        'rpc.nothing',
        'then',
      ])
        await rejectsWith(source.call(name, []), NoSuchMethod);
      // A path goes through own properties of plain values only.
      const raw = (path: string[], method: string) => {
        const { source } = RemotePromise.begunBy(t.on_b.tools())!;
        return source.reach(path, method === 'get' ? undefined : []);
      };
      assert.equal(await raw(['at', 'deep'], 'get'), 3);
      assert.equal(await raw(['hasOwnProperty'], 'get'), undefined);
      await rejectsWith(raw(['f', 'name'], 'get'), NoSuchMethod);
      await rejectsWith(raw(['f', 'call'], 'call'), NoSuchMethod);
      await rejectsWith(raw(['at', 'isPrototypeOf'], 'call'), NoSuchMethod);
      await ghost[Symbol.asyncDispose]();
      await atRest(t.a, t.b);
    });

    it('keep identity: the same object is the same ghost, and a ghost sent home is the object', async () => {
      const counter = new Counter();
      const f = () => 1;
      const same: boolean[] = [];
      await using t = await join(
        {
          counter: () => counter,
          twice: () => [counter, counter, f, f],
          home: (o: unknown, g: unknown) => void same.push(o === counter, g === f),
        },
        {},
        { kind },
      );
      const ghost = await t.on_b.counter();
      const [one, two, g, h] = await t.on_b.twice();
      assert.ok(ghost === one && one === two && g === h);
      await t.on_b.home(ghost, g);
      await t.on_b.home(withOptions(ghost, { timeout_ms: 5_000 }), h);
      assert.deepEqual(same, [true, true, true, true]);
      assert.deepEqual([held(t.a).imported, held(t.b).exported], [2, 2]);
      ghost[Symbol.dispose]();
      g[Symbol.dispose]();
      await atRest(t.a, t.b);
    });

    it('go out for plain objects that are marked with reference()', async () => {
      const state = { hits: 0, hit: () => ++state.hits };
      await using t = await join({ state: () => reference(state), copied: () => ({ hits: 3 }) }, {}, { kind });
      const ghost = await t.on_b.state();
      await ghost.hit();
      assert.equal(await ghost.hit(), 2);
      assert.equal(state.hits, 2);
      assert.deepEqual(await t.on_b.copied(), { hits: 3 });
      ghost[Symbol.dispose]();
      await atRest(t.a, t.b);
    });

    it('are let go of at once, however often they were given', async () => {
      const counter = new Counter();
      await using t = await join({ counter: () => counter }, {}, { kind });
      const ghosts = [];
      for (let i = 0; i < 5; i++) ghosts.push(await t.on_b.counter());
      assert.equal(new Set(ghosts).size, 1);
      {
        await using _ = ghosts[0];
      }
      await atRest(t.a, t.b);
      assert.equal(counter.disposed, 1);
    });

    it('survive a release that crosses another giving', async () => {
      const counter = new Counter();
      await using t = await join({ counter: () => counter }, {}, { kind });
      for (let i = 0; i < 50; i++) {
        const first = await t.on_b.counter();
        // The next one is under way while the first is let go of.
        const again = t.on_b.counter();
        first[Symbol.dispose]();
        const second = await again;
        assert.equal(await second.add(), i + 1);
        second[Symbol.dispose]();
      }
      await atRest(t.a, t.b);
    });

    it('are dead after their release, also when the same object comes again', async () => {
      const counter = new Counter();
      await using t = await join({ counter: () => counter, take: (x: unknown) => typeof x }, {}, { kind });
      const old = await t.on_b.counter();
      old[Symbol.dispose]();
      await rejectsWith(old.add(), RefGone);
      await rejectsWith(t.on_b.take(old), RefGone);
      await rejectsWith(old.add().more.and(), RefGone);
      const fresh = await t.on_b.counter();
      assert.notEqual(fresh, old);
      await rejectsWith(old.add(), RefGone);
      await rejectsWith(t.on_b.take(old), RefGone);
      // Letting go of the old one again takes nothing from the new one.
      old[Symbol.dispose]();
      assert.equal(await fresh.add(), 1);
      fresh[Symbol.dispose]();
      await atRest(t.a, t.b);
    });

    it('that a function stands for are dead after their release as well', async () => {
      const f = (n: number) => n + 1;
      await using t = await join({ f: () => f }, {}, { kind });
      const far = await t.on_b.f();
      {
        using g = far;
        assert.equal(await g(1), 2);
      }
      await rejectsWith(far(1), RefGone);
      await atRest(t.a, t.b);
    });

    it('that are unknown give RefGone, and the session lives', async () => {
      const counter = new Counter();
      await using t = await join({ counter: () => counter, echo: (x: unknown) => x }, {}, { kind });
      const ghost = await t.on_b.counter();
      // The other side lets go of what it has given out, as it does when a session of its own ends.
      t.a.notify('rpc.release', [[[1, 1]]]);
      await rejectsWith(ghost.add(), RefGone);
      await rejectsWith(t.on_b.echo(ghost), RefGone);
      assert.equal(await t.on_b.echo(4), 4);
      t.a.notify('rpc.release', [[[99, 1], [1, -5], ['x', 1], [1, 'y'], null]]);
      assert.equal(await t.on_b.echo(5), 5);
      ghost[Symbol.dispose]();
      await atRest(t.a, t.b);
    });

    it('let go of the rest of a message that refers to something unknown', async () => {
      const counter = new Counter();
      await using t = await join({ counter: () => counter, echo: (..._: unknown[]) => 1 }, {}, { kind });
      const ghost = await t.on_b.counter();
      t.a.notify('rpc.release', [[[1, 1]]]);
      async function* items() {
        yield 1;
      }
      await rejectsWith(
        t.on_b.echo(() => 1, { x: [() => 2] }, ghost, new Map([[1, () => 3]]), items()),
        RefGone,
      );
      ghost[Symbol.dispose]();
      await atRest(t.a, t.b);
    });

    it('of objects that are disposable end them when the last reference goes, or the session', async () => {
      const [one, two] = [new Counter(), new Counter()];
      const t = await join({ one: () => one, two: () => two }, {}, { kind });
      const a = await t.on_b.one();
      await t.on_b.two();
      assert.deepEqual([one.disposed, two.disposed], [0, 0]);
      a[Symbol.dispose]();
      await until(() => one.disposed === 1, 'the disposal');
      assert.equal(two.disposed, 0);
      await t[Symbol.asyncDispose]();
      await until(() => two.disposed === 1, 'the disposal at the end');
      assert.equal(one.disposed, 1);
    });

    it('of one object in two sessions end it when the last of them lets go', async () => {
      const counter = new Counter();
      await using s = await join({ counter: () => counter }, {}, { kind });
      await using t = await join({ counter: () => counter }, {}, { kind });
      const [one, two] = [await s.on_b.counter(), await t.on_b.counter()];
      one[Symbol.dispose]();
      await atRest(s.a, s.b);
      await settle();
      assert.equal(counter.disposed, 0);
      assert.equal(await two.add(), 1);
      two[Symbol.dispose]();
      await until(() => counter.disposed === 1, 'the disposal');
    });

    it('that could not be sent after all leave nothing behind, and end nothing', async () => {
      const counter = new Counter();
      await using t = await join(
        { echo: (x: unknown) => x, bad: () => [counter, () => 1, Symbol('no')] },
        {},
        { kind },
      );
      await assert.rejects(t.on_b.echo([() => 1, counter, Symbol('no')]), { name: 'Unserialisable' });
      await assert.rejects(t.on_b.bad(), { name: 'Unserialisable' });
      await assert.rejects(t.on_b.echo([counter, 'x'.repeat(9_000_000)]), { name: 'TooLarge' });
      await atRest(t.a, t.b);
      assert.equal(counter.disposed, 0);
    });

    it('go in both directions at once, and nest', async () => {
      class Room {
        readonly #heard: any[] = [];
        join(guest: any) {
          this.#heard.push(guest);
          return { leave: () => guest[Symbol.dispose]() };
        }
        async say(text: string) {
          return Promise.all(this.#heard.map((guest) => guest.hear(text, (reply: string) => `${text}, ${reply}`)));
        }
      }
      class Guest {
        constructor(name: string) {
          this.name = name;
        }
        name: string;
        async hear(_text: string, reply: any) {
          using answer = reply;
          return answer(this.name);
        }
      }
      const room = new Room();
      await using t = await join({ room: () => room }, {}, { kind });
      await using ghost = await t.on_b.room();
      const places = [await ghost.join(new Guest('Ada')), await ghost.join(new Guest('Bo'))];
      assert.deepEqual(await ghost.say('hello'), ['hello, Ada', 'hello, Bo']);
      for (const place of places) {
        await place.leave();
        place.leave[Symbol.dispose]();
      }
      await ghost[Symbol.asyncDispose]();
      await atRest(t.a, t.b);
    });
  });

describe('a reference that its holder forgets', () => {
  it('warns once, and stays in the tables', async () => {
    const script = `
      import { Session, memoryPair } from ${JSON.stringify(new URL('../src/index.ts', import.meta.url).href)};
      const [x, y] = memoryPair();
      const a = new Session({ transport: x });
      const b = new Session({ transport: y, dispatch: () => [() => 1, () => 2, () => 3] });
      await (async () => { await a.call('any'); })();
      for (let i = 0; i < 20; i++) { await new Promise((next) => setTimeout(next, 5)); globalThis.gc(); }
      console.log(JSON.stringify([a.stats().imported, b.stats().exported]));`;
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      ['--expose-gc', '--input-type=module', '-e', script],
      { cwd: fileURLToPath(new URL('..', import.meta.url)), timeout: 30_000 },
    );
    assert.equal(stdout.trim(), '[3,3]');
    assert.equal(stderr.match(/MeshReferenceWarning/g)?.length, 1, stderr);
    assert.match(stderr, /without being let go of.*using/s);
  });
});

describe('the end of a session', () => {
  it('makes its references fail with the reason, and never hang', async () => {
    const counter = new Counter();
    const t = await join({ counter: () => counter, f: () => () => 1 });
    const [ghost, f] = [await t.on_b.counter(), await t.on_b.f()];
    await t[Symbol.asyncDispose]();
    await assert.rejects(ghost.add(), { name: 'ConnectionLost' });
    await assert.rejects(f(), { name: 'ConnectionLost' });
    await assert.rejects(ghost.add().and.then_some(), { name: 'ConnectionLost' });
    ghost[Symbol.dispose]();
    await ghost[Symbol.asyncDispose]();
    await assert.rejects(rootOf(t.a).counter().add(), { name: 'ConnectionLost' });
  });
});
