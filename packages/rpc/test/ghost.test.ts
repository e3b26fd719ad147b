/**
 * Ghosts: only `ghost.method(…)` is a call; whatever else is done to one makes none and breaks nothing. Over 400 lines,
 * because each way of touching an object is a case of its own.
 */
import assert from 'node:assert/strict';
import { Console } from 'node:console';
import { Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { format, inspect, isDeepStrictEqual, types } from 'node:util';
import { isError, NoSuchMethod } from '@hauki/protocol';
import { workerObject } from '../../vault/src/guest/worker-object.ts';
import { type Ghost, type GhostSource, ghost, pendingGhost, sourceOf, withOptions } from '../src/ghost.ts';
import { serve } from '../src/serve.ts';
import { Session } from '../src/session.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { settle } from './support.ts';

interface Scout {
  look(where: string): string;
  worker(): string;
}

class Source implements GhostSource {
  label = 'w-scout';
  readonly calls: [string, unknown[], unknown][] = [];
  disposed = 0;
  async call(method: string, args: unknown[], options?: unknown): Promise<unknown> {
    this.calls.push([method, args, options]);
    return `${method} answered`;
  }
  async dispose(): Promise<void> {
    this.disposed++;
  }
}

const make = () => {
  const source = new Source();
  return { source, scout: ghost<Scout>(source) as Ghost<Scout> & Record<PropertyKey, any> };
};

const sink = () => {
  let text = '';
  const stream = new Writable({
    write(chunk, _encoding, done) {
      text += chunk;
      done();
    },
  });
  return { console: new Console(stream, stream), text: () => text };
};

describe('a ghost', () => {
  it('calls methods with their arguments, and gives the same function each time', async () => {
    const { source, scout } = make();
    assert.equal(await scout.look('north'), 'look answered');
    const { look } = scout;
    assert.equal(look, scout.look);
    await look('south');
    assert.deepEqual(
      source.calls.map(([method, args]) => [method, args]),
      [
        ['look', ['north']],
        ['look', ['south']],
      ],
    );
  });

  const harmless: [string, (scout: any) => unknown][] = [
    ['util.inspect', (g) => assert.match(inspect(g), /Ghost \{.*w-scout/s)],
    [
      'util.inspect with everything switched on',
      (g) => inspect(g, { showHidden: true, showProxy: true, getters: true, depth: Infinity, sorted: true }),
    ],
    [
      'console.log, dir, table and error',
      (g) => {
        const { console, text } = sink();
        console.log(g, [g], { g });
        console.log('%s %d %i %f %j %o %O %c', g, g, g, g, g, g, g, g);
        console.dir(g, { showHidden: true });
        console.table([g]);
        console.error(new Error('with a ghost', { cause: g }));
        assert.match(text(), /Ghost/);
      },
    ],
    ['util.format', (g) => assert.match(format('%s|%j|%o', g, g, g), /w-scout/)],
    ['JSON.stringify', (g) => assert.equal(JSON.stringify({ g }), '{"g":"[Ghost w-scout]"}')],
    ['String()', (g) => assert.equal(String(g), '[Ghost w-scout]')],
    ['a template', (g) => assert.equal(`${g}`, '[Ghost w-scout]')],
    [
      'adding and comparing',
      (g) => assert.deepEqual([`${g}!`, g < 1, g > 1, +g], ['[Ghost w-scout]!', false, false, NaN]),
    ],
    [
      '== in its loose form',
      (g) => {
        const loosely = new Function('a', 'b', 'return a == b') as (a: unknown, b: unknown) => boolean;
        assert.deepEqual(
          [null, 1, '[Ghost w-scout]', g, make().scout].map((other) => loosely(g, other)),
          [false, false, true, true, false],
        );
      },
    ],
    ['Object.prototype.toString', (g) => assert.equal(Object.prototype.toString.call(g), '[object Ghost]')],
    [
      'toString, toLocaleString and valueOf',
      (g) =>
        assert.deepEqual(
          [g.toString(), g.toLocaleString(), g.valueOf() === g],
          ['[Ghost w-scout]', '[Ghost w-scout]', true],
        ),
    ],
    ['in', (g) => assert.deepEqual(['look' in g, 'then' in g, Symbol.asyncDispose in g], [false, false, true])],
    [
      'Object.keys, entries, for in',
      (g) => {
        for (const key in g) void key;
        return [Object.keys(g), Object.entries(g), Reflect.ownKeys(g), Object.getOwnPropertyDescriptors(g)];
      },
    ],
    ['spread and assign', (g) => [{ ...g }, Object.assign({}, g)]],
    [
      'symbols',
      (g) => {
        for (const name of Reflect.ownKeys(Symbol)) {
          const symbol = (Symbol as any)[name];
          if (typeof symbol !== 'symbol') continue;
          const value = g[symbol];
          if (symbol === Symbol.toStringTag) assert.equal(value, 'Ghost');
          else if ([Symbol.asyncDispose, Symbol.dispose, Symbol.toPrimitive].includes(symbol))
            assert.equal(typeof value, 'function');
          else assert.equal(value, undefined);
        }
        assert.equal(g[Symbol.for('nodejs.util.inspect.custom')], undefined);
      },
    ],
    [
      'instanceof and prototypes',
      (g) => [g instanceof Promise, g instanceof Error, Object.getPrototypeOf(g), g.constructor.name],
    ],
    [
      'type tests',
      (g) =>
        assert.deepEqual(
          [typeof g, Array.isArray(g), types.isPromise(g), types.isNativeError(g), Error.isError(g)],
          ['object', false, false, false, false],
        ),
    ],
    ['assert.deepEqual with itself', (g) => assert.deepEqual(g, g)],
    [
      'comparing with another ghost and with plain objects',
      (g) => {
        const other = make().scout;
        isDeepStrictEqual(g, other);
        assert.throws(() => assert.deepStrictEqual(g, { worker: 'w-scout' }), assert.AssertionError);
        assert.throws(() => assert.deepStrictEqual([g], [1]), assert.AssertionError);
        assert.throws(() => assert.equal(g, 1), assert.AssertionError);
      },
    ],
    ['use as a key', (g) => assert.ok(new Map([[g, 1]]).has(g) && new Set([g]).has(g) && new WeakSet([g]).has(g))],
    ['await', async (g) => assert.equal(await g, g)],
    ['Promise.resolve', async (g) => assert.equal(await Promise.resolve(g), g)],
    [
      'Promise.all and race',
      async (g) => assert.deepEqual([(await Promise.all([g]))[0] === g, (await Promise.race([g])) === g], [true, true]),
    ],
    ['returning it from an async function', async (g) => assert.equal(await (async () => g)(), g)],
    [
      'an async iterator',
      async (g) => {
        const given = async function* () {
          yield g;
        };
        for await (const each of given()) assert.equal(each, g);
      },
    ],
    ['structuredClone, which refuses it', (g) => assert.throws(() => structuredClone(g), { name: 'DataCloneError' })],
    [
      'what test tools and frameworks look up',
      (g) =>
        assert.deepEqual(
          [g.nodeType, g.$$typeof, g.asymmetricMatch, g.inspect, g.prototype, Reflect.get(g, '__proto__')],
          Array(6).fill(undefined),
        ),
    ],
    [
      'throwing it',
      (g) => {
        try {
          throw g;
        } catch (thrown) {
          assert.equal(thrown, g);
          String(thrown);
        }
      },
    ],
    ['sourceOf', (g) => assert.ok(sourceOf(g) instanceof Source)],
    [
      'deleting, freezing, changing the prototype',
      (g) => {
        assert.throws(() => {
          delete g.look;
        }, TypeError);
        assert.throws(() => Object.defineProperty(g, 'look', { value: 1 }), TypeError);
        assert.throws(() => Object.setPrototypeOf(g, null), TypeError);
        assert.throws(() => Object.freeze(g), TypeError);
      },
    ],
    [
      'setting a property',
      (g) => {
        const set = (key: PropertyKey) => () => {
          g[key] = 1;
        };
        assert.throws(set('speed'), {
          name: 'TypeError',
          message: /no properties to set.*w-scout.*speed.*Call a method/,
        });
        assert.throws(set('worker'), { name: 'TypeError', message: /worker/ });
        assert.throws(set('then'), { name: 'TypeError', message: /then/ });
        assert.throws(set(Symbol('mark')), { name: 'TypeError', message: /mark/ });
      },
    ],
  ];
  for (const [what, act] of harmless)
    it(`makes no call and survives: ${what}`, async () => {
      const { source, scout } = make();
      await act(scout);
      await settle(3);
      assert.deepEqual(source.calls, []);
      assert.equal(source.disposed, 0);
      // Positive control: the same ghost still calls.
      await scout.look('x');
      assert.equal(source.calls.length, 1);
    });

  it('is disposed of by `await using`', async () => {
    const source = new Source();
    {
      await using scout = ghost<Scout>(source);
      await scout.look('x');
      assert.equal(source.disposed, 0);
    }
    assert.equal(source.disposed, 1);
  });

  it('calls a method that has the name of a property of its own target', async () => {
    const { source, scout } = make();
    assert.equal(await scout.worker(), 'worker answered');
    assert.equal(source.calls.length, 1);
  });

  it('takes other call options, and leaves the first ghost as it was', async () => {
    const { source, scout } = make();
    const hurried = withOptions(scout, { timeout_ms: 5 });
    await hurried.look('a');
    await scout.look('b');
    assert.deepEqual(
      source.calls.map(([, , options]) => options),
      [{ timeout_ms: 5 }, undefined],
    );
    assert.equal(sourceOf(hurried), source);
    assert.throws(() => withOptions({}, {}), TypeError);
    assert.equal(sourceOf({}), undefined);
    assert.equal(sourceOf(null), undefined);
    assert.equal(sourceOf('text'), undefined);
  });
});

describe('a pending ghost', () => {
  const pending = () => {
    const source = new Source() as Source & { ready: Promise<Ghost<Scout>> };
    source.label = 'not born yet';
    let born!: () => void;
    let fail!: (error: Error) => void;
    const birth = new Promise<void>((resolve, reject) => {
      born = () => {
        source.label = 'w-born';
        resolve();
      };
      fail = reject;
    });
    const call = source.call.bind(source);
    source.call = async (...args) => {
      await birth;
      return call(...args);
    };
    const settled: GhostSource = { label: 'w-born', call: source.call, dispose: () => source.dispose() };
    source.ready = birth.then(() => ghost<Scout>(settled));
    source.ready.catch(() => {});
    return { source, born, fail, scout: pendingGhost<Scout>(source) };
  };

  it('can be called before its worker is there', async () => {
    const { source, born, scout } = pending();
    const answer = scout.look('early');
    await settle(3);
    assert.deepEqual(source.calls, []);
    born();
    assert.equal(await answer, 'look answered');
  });

  it('can be awaited to a ghost that is no thenable', async () => {
    const { born, scout } = pending();
    born();
    const real = await scout;
    assert.equal((real as any).then, undefined);
    assert.equal(await real, real);
    assert.equal(await real.look('x'), 'look answered');
    assert.match(inspect(scout), /w-born/);
    assert.equal(String(real), '[Ghost w-born]');
  });

  it('can be inspected, stringified and compared while it waits, without a call', async () => {
    const { source, born, scout } = pending();
    inspect(scout, { showHidden: true });
    JSON.stringify(scout);
    void `${scout}`;
    void { ...(scout as object) };
    assert.ok(!isDeepStrictEqual(scout, {}));
    born();
    await scout;
    assert.deepEqual(source.calls, []);
  });

  it('that fails rejects its calls and whoever awaits it, and nothing goes unhandled', async () => {
    const unhandled: unknown[] = [];
    const hear = (reason: unknown) => void unhandled.push(reason);
    process.on('unhandledRejection', hear);
    try {
      const { fail, scout } = pending();
      const call = assert.rejects(scout.look('x'), /no node/);
      const awaited = assert.rejects(async () => await scout, /no node/);
      const caught = scout.catch((error: Error) => error.message);
      const ended = scout.finally(() => {}).then(undefined, (error: Error) => error.message);
      fail(new Error('no node fits'));
      await Promise.all([call, awaited]);
      assert.equal(await caught, 'no node fits');
      assert.equal(await ended, 'no node fits');
      // Nobody looks at this one at all.
      const lonely = pending();
      lonely.fail(new Error('unseen'));
      inspect(lonely.scout);
      await settle();
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.deepEqual(unhandled, []);
    } finally {
      process.off('unhandledRejection', hear);
    }
  });

  it('keeps waiting through withOptions', async () => {
    const { source, born, scout } = pending();
    const hurried = withOptions(scout, { timeout_ms: 7 });
    const answer = hurried.look('x');
    born();
    await answer;
    assert.deepEqual(source.calls[0]![2], { timeout_ms: 7 });
  });
});

describe('a ghost over a session', () => {
  const over = (dispatch: ConstructorParameters<typeof Session>[0]['dispatch']) => {
    const [a, b] = memoryPair();
    const session = new Session({ transport: a });
    new Session({ transport: b, dispatch: dispatch! });
    const source: GhostSource = {
      label: 'w-1',
      call: (method, args, options) => session.call(method, args, options),
      dispose: async () => session.close(),
    };
    return ghost<any>(source);
  };

  it('names the method that is missing and those that there are, through serve', async () => {
    const shop: any = over(serve({ buy: () => 1, sell: () => 2 }, ['buy', 'sell']));
    assert.equal(await shop.buy(), 1);
    await assert.rejects(shop.steal(), (thrown) => {
      assert.ok(isError(thrown, NoSuchMethod));
      assert.deepEqual(thrown.fields, { method: 'steal', has: ['buy', 'sell'] });
      assert.match(thrown.message, /steal.*buy, sell/);
      return true;
    });
    await shop[Symbol.asyncDispose]();
  });

  it('names them through a worker object too', async () => {
    class Shop {
      buy() {
        return 1;
      }
      _till() {
        return 'private';
      }
    }
    const worker = workerObject({ default: Shop }, {});
    const shop: any = over((method, params) => worker.call(method, params));
    assert.equal(await shop.buy(), 1);
    for (const method of ['_till', 'hasOwnProperty', '__defineGetter__', 'isPrototypeOf'])
      await assert.rejects(shop[method](), (thrown) => {
        assert.ok(isError(thrown, NoSuchMethod));
        assert.deepEqual(thrown.fields, { method, has: ['buy'] });
        return true;
      });
    await shop[Symbol.asyncDispose]();
  });
});
