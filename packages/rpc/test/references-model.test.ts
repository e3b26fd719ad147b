/** Random programs of calls, callbacks, streams, pipelines and releases: over a session they do what they do at home. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describe as said } from '@hauki/protocol';
import fc from 'fast-check';
import { atRest, join, type Kind } from './joined.ts';

/** What programs work on. Nothing here knows whether it is far away. */
class Tally {
  static ended = 0;
  count = 0;
  add(n: number) {
    this.count += n;
    return this.count;
  }
  async slowly(n: number) {
    const sum = this.add(n);
    await Promise.resolve();
    return sum;
  }
  chain(n: number) {
    this.add(n);
    return this;
  }
  add2(a: number, b: number) {
    return this.add(a * 2 + b);
  }
  make(n: number) {
    return new Tally().chain(n);
  }
  self() {
    return this;
  }
  async visit(f: any) {
    const answer = await f(this.count);
    f[Symbol.dispose]?.();
    return this.add(answer);
  }
  *stream(n: number) {
    for (let i = 0; i < n; i++) yield [this.count, i];
  }
  async total(items: AsyncIterable<number>, most: number) {
    for await (const item of items) {
      this.add(item);
      if (--most <= 0) break;
    }
    return this.count;
  }
  merge(other: Tally) {
    assert.ok(other instanceof Tally, 'what is sent home is the object itself');
    return this.add(other.count);
  }
  copy() {
    return { count: this.count, map: new Map([[this.count, new Date(0)]]), nothing: undefined };
  }
  fail(n: number) {
    throw new RangeError(`${n} is too far for ${this.count}`);
  }
  [Symbol.dispose]() {
    Tally.ended++;
  }
}

const n = fc.integer({ min: -5, max: 5 });
const at = fc.nat(7);
const few = fc.nat(6);
const step = fc.oneof(
  fc.record({ do: fc.constant('make' as const), at, n }),
  fc.record({ do: fc.constant('add' as const), at, n }),
  fc.record({ do: fc.constant('together' as const), at, ns: fc.array(n, { maxLength: 6 }) }),
  fc.record({ do: fc.constant('pipe' as const), at, ns: fc.array(n, { minLength: 1, maxLength: 6 }) }),
  fc.record({ do: fc.constant('born' as const), at, n }),
  fc.record({ do: fc.constant('results' as const), at, to: at, n }),
  fc.record({ do: fc.constant('same' as const), at }),
  fc.record({ do: fc.constant('visit' as const), at, n }),
  fc.record({ do: fc.constant('stream' as const), at, few, take: few }),
  fc.record({ do: fc.constant('total' as const), at, few, take: few }),
  fc.record({ do: fc.constant('merge' as const), at, to: at }),
  fc.record({ do: fc.constant('copy' as const), at }),
  fc.record({ do: fc.constant('fail' as const), at, n }),
  fc.record({ do: fc.constant('release' as const), at }),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** Runs a program on a root; `far`: through a session, where calls on results need not wait for them. */
async function run(program: Step[], root: any, far: boolean): Promise<unknown[]> {
  const things: any[] = [root];
  const results: unknown[] = [];
  /** Calls one after the other on each other's results. */
  const chain = async (first: any, calls: ((on: any) => any)[]) => {
    let last = first;
    for (const call of calls) last = far ? call(last) : call(await last);
    return last;
  };
  async function* count(to: number) {
    for (let i = 0; i < to; i++) yield i;
  }
  for (const each of program) {
    const index = each.at % things.length;
    const thing = things[index];
    const other = 'to' in each ? things[each.to % things.length] : undefined;
    switch (each.do) {
      case 'make':
        things.push(await thing.make(each.n));
        break;
      case 'add':
        results.push(await thing.slowly(each.n));
        break;
      case 'together':
        results.push(await Promise.all(each.ns.map((m, i) => (i % 2 ? thing.add(m) : thing.chain(m).add(m)))));
        break;
      case 'pipe':
        results.push(await chain(thing, [...each.ns.map((m) => (on: any) => on.chain(m)), (on) => on.add(1)]));
        break;
      case 'born': {
        // Nobody looks at what is made between.
        const calls = [(on: any) => on.make(each.n), (on: any) => on.make(1), (on: any) => on.add(1)];
        results.push(await chain(thing, calls));
        if (!far) Tally.ended += 2;
        break;
      }
      case 'results':
        results.push(
          far
            ? await thing.add2(other.slowly(each.n), other.add(1))
            : thing.add2(await other.slowly(each.n), await other.add(1)),
        );
        break;
      case 'same':
        results.push((await thing.self()) === thing);
        break;
      case 'visit':
        results.push(await thing.visit((x: number) => x + each.n));
        break;
      case 'stream': {
        const items: unknown[] = [];
        for await (const item of await thing.stream(each.few)) if (items.push(item) > each.take) break;
        results.push(items);
        break;
      }
      case 'total':
        results.push(await thing.total(count(each.few), each.take));
        break;
      case 'merge':
        results.push(await thing.merge(other));
        break;
      case 'copy':
        results.push(await thing.copy());
        break;
      case 'fail':
        results.push(
          await (async () => thing.fail(each.n))().catch((error) => said(error).replace('RangeError: ', '')),
        );
        break;
      case 'release':
        if (index > 0) things.splice(index, 1)[0][Symbol.dispose]();
    }
  }
  for (const thing of things) thing[Symbol.dispose]();
  return results;
}

/** Runs a program here and over there. */
async function compare(program: Step[], kind: Kind): Promise<void> {
  Tally.ended = 0;
  const here = await run(program, new Tally(), false);
  const ended = Tally.ended;
  Tally.ended = 0;
  await using t = await join({ open: () => new Tally() }, {}, { kind });
  const there = await run(program, await t.on_b.open(), true);
  assert.deepEqual(there, here);
  await atRest(t.a, t.b);
  assert.equal(Tally.ended, ended);
}

describe('a program over a session', () => {
  for (const [kind, numRuns] of [
    ['memory', 200],
    ['TCP', 40],
  ] as const)
    it(`does what it does at home, and leaves nothing behind (${kind})`, async () => {
      const programs = fc.array(step, { maxLength: 25 });
      await fc.assert(
        fc.asyncProperty(programs, (program) => compare(program, kind)),
        { numRuns },
      );
    });
});
