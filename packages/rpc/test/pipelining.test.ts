/** Pipelining: calls on results that are not there yet leave together, fail together, and are found later too. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RefGone, RemoteError, Unserialisable } from '@hauki/protocol';
import { atRest, join, KINDS, rejectsWith } from './joined.ts';
import { makeRoot, unhandled } from './pipelining-support.ts';
import { settle } from './support.ts';

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

    it('that cannot begin reject, also where their arguments cannot be read, or lead back to one another', async () => {
      await using t = await join(makeRoot(), {}, { kind });
      const g = t.on_b;
      const throwing = {
        get at() {
          throw new RangeError('not to be read');
        },
      };
      const { proxy, revoke } = Proxy.revocable({}, {});
      revoke();
      // Each of a hundred leads to all of them: whoever went every way would never end.
      const circle: object[] = [];
      for (let i = 0; i < 100; i++) circle.push({ circle });
      const heard = await unhandled(async () => {
        for (const each of [throwing, [throwing], proxy]) await rejectsWith(g.add(each, g.two()), Unserialisable);
        await t[Symbol.asyncDispose]();
        for (const each of [throwing, proxy, circle])
          await assert.rejects(g.add(each, g.two()), { name: 'ConnectionLost' });
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
