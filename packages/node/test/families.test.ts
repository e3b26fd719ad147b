/** The bookkeeping of families: what every chain of clones has together never exceeds what the first one was granted. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantMissing, isError, type Job, NO_GRANTS, QuotaExceeded, WorkerDied, WorkerUnknown } from '@hauki/protocol';
import fc from 'fast-check';
import { Families } from '../src/families.ts';

const job = (worker: string, parent?: string, clone = { live: 3, total: 5, memory_mib: 20 }, memory_mib = 4) =>
  ({ worker, memory_mib, grants: { ...NO_GRANTS, clone }, ...(parent ? { parent } : {}) }) as unknown as Job;
const end = { cause: 'destructed', reason: 'enough' } as const;

describe('families', () => {
  it('count every descendant for every ancestor, whatever comes and goes', () => {
    const step = fc.record({ of: fc.nat(8), leaves: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const families = new Families();
        families.join(job('root'));
        const parents = new Map<string, string | undefined>([['root', undefined]]);
        const above = (name: string): string[] => {
          const parent = parents.get(name);
          return parent === undefined ? [] : [parent, ...above(parent)];
        };
        const below = (name: string) => [...parents.keys()].filter((one) => above(one).includes(name));
        const ever = new Map<string, number>();
        const leave = (name: string): void => {
          const children = families.leave(name, end);
          assert.deepEqual(
            children.toSorted(),
            [...parents]
              .filter(([, p]) => p === name)
              .map(([n]) => n)
              .toSorted(),
          );
          parents.delete(name);
          for (const child of children) leave(child);
        };
        let n = 0;
        for (const { of, leaves } of steps) {
          const name = [...parents.keys()][of % parents.size]!;
          if (leaves) {
            if (name !== 'root') leave(name);
            continue;
          }
          const child = `w-${n++}`;
          const chain = [name, ...above(name)];
          const fits = chain.every(
            (one) => below(one).length < 3 && (ever.get(one) ?? 0) < 5 && below(one).length * 4 + 4 <= 20,
          );
          try {
            families.join(job(child, name));
            assert.ok(fits, 'more was let in than granted');
            parents.set(child, name);
            for (const one of chain) ever.set(one, (ever.get(one) ?? 0) + 1);
          } catch (error) {
            assert.ok(isError(error, QuotaExceeded), String(error));
            assert.ok(!fits, 'less was let in than granted');
          }
        }
      }),
    );
  });

  it('let go of those whose parent left before them', () => {
    const families = new Families();
    families.join(job('root'));
    families.join(job('child', 'root'));
    families.join(job('grandchild', 'child'));
    families.leave('child', end);
    families.leave('grandchild', end);
    for (const n of [1, 2, 3]) families.join(job(`next-${n}`, 'root', undefined, 6));
    assert.throws(
      () => families.join(job('next-4', 'root')),
      (error) => isError(error, QuotaExceeded) && error.fields.what === 'clone.live',
    );
  });

  it('remember a bounded number of ends, the latest', () => {
    const families = new Families();
    families.join(job('a', undefined, { live: 1, total: 100, memory_mib: 4 }));
    for (let n = 0; n < 65; n++) {
      families.join(job(`c-${n}`, 'a'));
      families.leave(`c-${n}`, end);
    }
    assert.throws(
      () => families.demandChild('a', 'c-0'),
      (error) => isError(error, WorkerUnknown),
    );
    assert.throws(
      () => families.demandChild('a', 'c-1'),
      (error) => isError(error, WorkerDied),
    );
  });

  it('give a clone no more than its parent has, and count what it does for all above it', () => {
    const families = new Families();
    const connecting = (one: Job, ...connect: string[]) => ({ ...one, grants: { ...one.grants, connect } });
    families.join(connecting(job('a'), 'x.example:1'));
    families.join(connecting(job('b', 'a'), 'x.example:1', 'y.example:1'));
    families.join(job('c', 'b'));
    assert.deepEqual(families.grantsOf('b').connect, ['x.example:1']);
    assert.deepEqual(
      families.allowancesOf('c').map(({ worker }) => worker),
      ['c', 'b', 'a'],
    );
  });

  it('know their own, living and ended, and nobody else’s', () => {
    const families = new Families();
    families.join(job('a'));
    families.join(job('b'));
    families.join(job('c', 'a'));
    families.demandChild('a', 'c');
    assert.throws(
      () => families.demandChild('b', 'c'),
      (error) => isError(error, WorkerUnknown),
    );
    assert.throws(
      () => families.demandChild('a', 'b'),
      (error) => isError(error, WorkerUnknown),
    );
    families.leave('c', end);
    assert.throws(
      () => families.demandChild('a', 'c'),
      (error) => isError(error, WorkerDied),
    );
    assert.throws(
      () => families.join(job('d', 'nobody')),
      (error) => isError(error, WorkerUnknown),
    );
    families.regrant('a', { ...NO_GRANTS });
    assert.throws(
      () => families.join(job('d', 'a')),
      (error) => isError(error, GrantMissing),
    );
    families.leave('a', end);
    assert.equal(families.isWanted(job('d', 'a')), false);
  });
});
