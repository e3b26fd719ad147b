/** Quotas of tokens: no burst passes, what is taken is counted for all above, and no token gives more than it has. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BadInput, Forbidden, isError, QuotaExceeded, type TokenQuota } from '@hauki/protocol';
import fc from 'fast-check';
import Fastify from 'fastify';
import { leastOf, NO_QUOTA, narrowQuota, Quotas } from '../src/quotas.ts';
import { tokenRoutes } from '../src/routes/tokens.ts';

const exceeded = (limit: number, used: number) => (error: unknown) =>
  isError(error, QuotaExceeded) && error.fields.limit === limit && error.fields.used === used;

function make(quotas: Record<string, Partial<TokenQuota>>) {
  const workers: { owner: string; memory_mib: number }[] = [];
  const clock = { now: 0 };
  const all = new Quotas({
    quota: (token) => (Object.hasOwn(quotas, token) ? { ...NO_QUOTA, ...quotas[token] } : undefined),
    workers: () => workers,
    now: () => clock.now,
  });
  return { all, workers, clock };
}

describe('the quota of a token', () => {
  it('counts vaults and memory of the token and of all below it, and says what is taken', () => {
    const { all, workers } = make({ a: { vaults: 2, memory_mib: 100 } });
    workers.push({ owner: 'a/b', memory_mib: 60 });
    assert.throws(() => all.reserve('a/c', 50, true), exceeded(100, 60));
    all.reserve('a', 40, true);
    assert.throws(() => all.reserve('a', 0, true), exceeded(2, 2));
    all.reserve('other', 1_000_000, true);
    assert.deepEqual(all.used('a'), { vaults: 2, memory_mib: 100, clones_last_minute: 0 });
  });

  it('is listed with what is taken of it, and a list of any length looks at the workers once', async (t) => {
    const { all, workers } = make({});
    workers.push({ owner: 'a/b', memory_mib: 60 }, { owner: 'a', memory_mib: 1 }, { owner: 'c', memory_mib: 5 });
    all.reserve('c', 7, true);
    let looks = 0;
    workers[Symbol.iterator] = () => {
      looks++;
      return workers.values();
    };
    const tokens = { list: () => ['a', 'b', 'c', 'd'].map((id) => ({ id })) };
    const app = Fastify();
    t.after(() => app.close());
    await app.register(tokenRoutes, { tokens, quotas: all } as never);
    const listed = (await app.inject('/api/v2/tokens')).json().tokens;
    assert.equal(looks, 1);
    for (const { id, used } of listed) assert.deepEqual(used, all.used(id), id);
    assert.deepEqual(
      listed.map(({ used }: { used: { memory_mib: number } }) => used.memory_mib),
      [61, 60, 12, 0],
    );
  });

  it('gives back what is released, and what lives no more', () => {
    const { all, workers } = make({ a: { vaults: 1 } });
    const release = all.reserve('a', 1, true);
    assert.throws(() => all.reserve('a', 1, true), exceeded(1, 1));
    release();
    workers.push({ owner: 'a', memory_mib: 1 });
    assert.throws(() => all.reserve('a', 1, true), exceeded(1, 1));
    workers.pop();
    all.reserve('a', 1, true);
  });

  it('bounds clones of the last minute; starting again is none', () => {
    const { all, clock } = make({ a: { clones_per_minute: 2 } });
    all.reserve('a/b', 1, true);
    clock.now = 30_000;
    all.reserve('a', 1, true);
    all.reserve('a', 1, false);
    assert.throws(() => all.reserve('a', 1, true), exceeded(2, 2));
    clock.now = 60_001;
    all.reserve('a', 1, true);
    assert.throws(() => all.reserve('a', 1, true), exceeded(2, 2));
    all.forget('a');
    assert.equal(all.used('a').clones_last_minute, 0);
  });

  it('counts a clone for each above it that has a rate', () => {
    const { all } = make({ a: { clones_per_minute: 9 }, b: { clones_per_minute: 9 } });
    all.reserve('a/b', 1, true);
    assert.deepEqual(
      ['a', 'b'].map((token) => all.used(token).clones_last_minute),
      [1, 1],
    );
  });

  it('says what is exceeded, by how much, and what to do', () => {
    const { all, clock } = make({ a: { vaults: 2, memory_mib: 100, clones_per_minute: 2 } });
    const told = (memory_mib: number) => {
      try {
        all.reserve('a', memory_mib, true);
      } catch (error) {
        assert.ok(isError(error, QuotaExceeded));
        return error;
      }
      return assert.fail('it was let in');
    };
    assert.match(
      told(101).message,
      /of 100 MiB of memory together of the token a 0 are taken, and 101 more would be 1 too/,
    );
    assert.match(told(101).message, /Ask for less/);
    const release = all.reserve('a', 60, true);
    const memory = told(64);
    assert.match(memory.message, /60 are taken, and 64 more would be 24 too many.*End some/);
    assert.deepEqual(memory.fields, { what: 'MiB of memory together of the token a', limit: 100, used: 60, asked: 64 });
    clock.now = 18_000;
    const second = all.reserve('a', 10, true);
    assert.match(
      told(10).message,
      /of 2 vaults at once of the token a 2 are taken, and 1 more would be 1 too many.*End/,
    );
    release();
    second();
    const rate = told(10);
    assert.match(rate.message, /of 2 clones in a minute of the token a 2 are taken.*Try again in 42 s/);
    assert.equal(rate.fields.wait_ms, 42_000);
    clock.now += rate.fields.wait_ms! - 1;
    assert.equal(told(10).fields.wait_ms, 1);
    clock.now += 1;
    all.reserve('a', 10, true);
  });

  it('takes nothing where it refuses', () => {
    const { all } = make({ a: { clones_per_minute: 5 }, b: { vaults: 1 } });
    all.reserve('a/b', 1, true);
    for (let i = 0; i < 10; i++) assert.throws(() => all.reserve('a/b', 1, true), exceeded(1, 1));
    assert.equal(all.used('a').clones_last_minute, 1);
  });

  it('is never passed, whatever is reserved, born, dies and is released', () => {
    const owners = fc.constantFrom('a', 'a/b', 'a/b/c', 'a/d', 'e');
    const limit = fc.option(fc.integer({ min: 1, max: 6 }), { nil: null });
    const quota = fc.record({ vaults: limit, memory_mib: limit, clones_per_minute: limit });
    const step = fc.oneof(
      fc.record({ do: fc.constant('reserve' as const), owner: owners, memory: fc.integer({ min: 0, max: 3 }) }),
      fc.record({ do: fc.constantFrom('release' as const, 'born' as const, 'die' as const), at: fc.nat(20) }),
      fc.record({ do: fc.constant('wait' as const), ms: fc.nat(40_000) }),
    );
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom('a', 'b', 'c', 'd'), quota),
        fc.array(step, { maxLength: 40 }),
        (quotas, steps) => {
          const { all, workers, clock } = make(quotas);
          const held: { owner: string; memory_mib: number; release: () => void }[] = [];
          for (const one of steps) {
            if (one.do === 'wait') clock.now += one.ms;
            else if (one.do === 'reserve') {
              try {
                held.push({
                  owner: one.owner,
                  memory_mib: one.memory,
                  release: all.reserve(one.owner, one.memory, true),
                });
              } catch (error) {
                assert.ok(isError(error, QuotaExceeded));
              }
            } else if (one.do === 'die') workers.splice(one.at, 1);
            else {
              const [taken] = held.splice(one.at, 1);
              if (taken && one.do === 'born') workers.push(taken);
              taken?.release();
            }
            for (const [token, { vaults, memory_mib, clones_per_minute }] of Object.entries(quotas)) {
              const mine = [...workers, ...held].filter(({ owner }) => owner.split('/').includes(token));
              const used = all.used(token);
              assert.equal(used.vaults, mine.length);
              if (vaults !== null) assert.ok(mine.length <= vaults);
              if (memory_mib !== null) assert.ok(used.memory_mib <= memory_mib);
              if (clones_per_minute !== null) assert.ok(used.clones_last_minute <= clones_per_minute);
            }
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('the quota of a narrower token', () => {
  it('is no wider than its maker’s, and bounded', () => {
    const maker = { ...NO_QUOTA, vaults: 5 };
    assert.deepEqual(narrowQuota(maker, { vaults: 5, memory_mib: 64 }), { ...NO_QUOTA, vaults: 5, memory_mib: 64 });
    assert.deepEqual(narrowQuota(maker), NO_QUOTA, 'left out: the maker’s bounds it still');
    assert.throws(
      () => narrowQuota(maker, { vaults: 6 }),
      (error) => isError(error, Forbidden),
    );
    for (const wrong of [0, -1, 1.5, Number.NaN, 1e9])
      assert.throws(
        () => narrowQuota(maker, { memory_mib: wrong }),
        (error) => isError(error, BadInput),
        String(wrong),
      );
  });

  it('is measured against the least of all above it', () => {
    const quotas = [{ ...NO_QUOTA, vaults: 3 }, NO_QUOTA, { ...NO_QUOTA, vaults: 7, memory_mib: 9 }];
    for (const all of [quotas, quotas.toReversed()])
      assert.deepEqual(leastOf(all), { vaults: 3, memory_mib: 9, clones_per_minute: null });
  });
});
