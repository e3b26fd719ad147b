/** The exported `state` of a module in JavaScript, as its plugin gives it away and takes it over. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { deserialize, serialize } from 'node:v8';
import { decodeValue, encodeValue } from '@hauki/rpc';
import { pluginObject } from '../src/guest/plugin.ts';

const refs = { give: () => assert.fail('it goes by reference'), take: () => assert.fail('it came by reference') };

/** What arrives of a state: over the wire to the kernel, which keeps it, and back. */
function sent(state: unknown): unknown {
  const { text, bytes = [] } = encodeValue(state, refs);
  return deserialize(serialize(decodeValue(JSON.parse(text), Buffer.concat(bytes), refs)));
}

/** Swaps a version of a module for another one; gives the latter's lines of log. */
async function swap(before: { state: unknown }, after: { state: unknown }): Promise<string[]> {
  const lines: string[] = [];
  const [old, young] = [before, after].map((module) =>
    pluginObject(Object.assign(module, { default: { fetch() {} } }), { log: (text) => void lines.push(text) }),
  );
  const described = (await young!.call('describe', [])) as { state: string };
  assert.equal(described.state, 'export');
  const given = await old!.call('dehydrate', []);
  await young!.call('hydrate', [sent(given), 1]);
  return lines;
}
/** What a state has become in a version whose own is `first`. */
async function taken<T>(state: unknown, first: T): Promise<T> {
  const after = { state: first };
  assert.deepEqual(await swap({ state }, after), []);
  assert.equal(after.state, first, 'it is filled in place');
  return after.state;
}

describe('the exported state of a module in JavaScript', () => {
  it('takes any member where it begins without one', async () => {
    const all = { a: 1, list: [1, { b: 2 }], none: null, map: new Map([[1, 2]]) };
    assert.deepEqual(await taken(all, {}), all);
    const bare = Object.assign(Object.create(null), { a: 1 });
    assert.deepEqual({ ...(await taken(bare, Object.create(null))) }, { a: 1 });
  });

  it('takes what is given to a member that had no value yet, whatever its type', async () => {
    const first = { user: null, last: undefined, n: 0 };
    const now = { user: { name: 'Ada' }, last: [1], n: 3 };
    assert.deepEqual(await taken(now, first as object), now);
  });

  it('is the present value of the binding, in both versions', async () => {
    const before = { state: { n: 1 } as object };
    const after = { state: { n: 0 } as object };
    const old = pluginObject(Object.assign(before, { default: { fetch() {} } }), {});
    before.state = { n: 5 };
    const young = pluginObject(Object.assign(after, { default: { fetch() {} } }), {});
    after.state = { n: 0, begun: true };
    await young.call('hydrate', [sent(await old.call('dehydrate', [])), 1]);
    assert.deepEqual(after.state, { n: 5, begun: true });
  });

  it('may be an instance of a class, whose members are taken over', async () => {
    class Counter {
      n = 0;
      last: object | null = null;
      count() {
        return ++this.n;
      }
      get doubled() {
        return this.n * 2;
      }
    }
    const counter = Object.assign(new Counter(), { n: 4, last: { a: 1 } });
    const now = await taken(counter, new Counter());
    assert.deepEqual([now.count(), now.doubled, now.last], [5, 10, { a: 1 }]);
    class Register extends Map<string, number> {
      add(name: string) {
        return this.set(name, 1);
      }
    }
    const register = await taken(new Register([['a', 2]]), new Register());
    assert.deepEqual(
      [...register.add('b')],
      [
        ['a', 2],
        ['b', 1],
      ],
    );
  });

  it('has members of any name, and nothing is done by a name', async () => {
    const state = JSON.parse('{"constructor": 1, "__proto__": {"polluted": true}, "toString": "a", "n": 2}');
    const now = (await taken(state, {})) as Record<string, unknown>;
    assert.deepEqual(Object.keys(now).sort(), ['__proto__', 'constructor', 'n', 'toString']);
    assert.equal(Object.getPrototypeOf(now), Object.prototype);
    assert.equal(now.polluted, undefined);
    assert.deepEqual(await taken({ constructor: 5, n: 1 }, { constructor: 0, n: 0 }), { constructor: 5, n: 1 });
  });

  it('may be a list, a set, a date or numbers in a row, of any length', async () => {
    const list = Array.from({ length: 300_000 }, (_, i) => i);
    assert.equal((await taken(list, [1])).length, 300_000);
    assert.deepEqual(await taken(new Set(['a']), new Set(['b'])), new Set(['a']));
    assert.deepEqual(await taken(new Date(5), new Date(0)), new Date(5));
    assert.deepEqual(await taken(new Float64Array([1, 2]), new Float64Array(2)), new Float64Array([1, 2]));
  });

  it('does not take what is computed, and takes itself for itself', async () => {
    const make = (n: number) => ({
      n,
      self: null as unknown,
      get doubled() {
        return this.n * 2;
      },
    });
    const state = make(4);
    state.self = state;
    const now = await taken(state, make(0));
    assert.equal(now.doubled, 8);
    assert.equal(now.self, now);
    const tree: any = { name: 'root', children: [{ name: 'leaf' }], by_name: new Map(), all: new Set() };
    tree.children[0].parent = tree;
    tree.by_name.set('root', tree).set('leaf', tree.children[0]);
    tree.all.add(tree).add(tree.children[0]);
    const grown = await taken(tree, { name: '', children: [] as any[], by_name: new Map(), all: new Set() });
    const [leaf] = grown.children;
    assert.equal(leaf.parent, grown);
    assert.deepEqual([grown.by_name.get('root'), grown.by_name.get('leaf')], [grown, leaf]);
    assert.ok(grown.all.has(grown) && grown.all.has(leaf) && grown.all.size === 2);
  });

  it('says in the log what it left behind: what is of another type, or has no place', async () => {
    const after = { state: { n: 'text', kept: 1 } };
    const lines = await swap({ state: { n: 1, kept: 2, gone: 3 } }, after);
    assert.deepEqual(after.state, { n: 'text', kept: 2 });
    assert.match(lines.join(), /not taken over.*: n, gone$/);
    assert.match((await swap({ state: [1] }, { state: {} })).join(), /not taken over.*: state$/);
    assert.match((await swap({ state: { a: 1 } }, { state: new Map() })).join(), /: state$/);
  });
});
