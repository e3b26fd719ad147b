/** Less of what was granted: cutting and revoking only ever take away. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  BadInput,
  cutGrants,
  type Grants,
  grantsWithin,
  isError,
  normaliseGrants,
  revokeGrants,
} from '../src/index.ts';

const target = fc.constantFrom('a.example:443', 'b.example:80', 'c.example:1');
const prefix = fc.constantFrom(
  'gem-pointer://wiki/a/',
  'gem-pointer://wiki/a/b',
  'gem-pointer://wiki/',
  'gem-pointer://x/y',
);
const grants: fc.Arbitrary<Grants> = fc
  .record({
    fetch: fc.array(
      fc.record({
        to: target,
        methods: fc.subarray(['GET', 'POST']),
        per_minute: fc.constantFrom(0, 1, 10),
      }),
      { maxLength: 4 },
    ),
    connect: fc.uniqueArray(target),
    meshfs: fc.record({ read: fc.uniqueArray(prefix), write: fc.uniqueArray(prefix) }),
    volume: fc.option(fc.record({ name: fc.constantFrom('v', 'w'), quota_mib: fc.integer({ min: 1, max: 64 }) })),
    clone: fc.option(
      fc.record({
        live: fc.integer({ min: 1, max: 3 }),
        total: fc.integer({ min: 3, max: 6 }),
        memory_mib: fc.integer({ min: 1, max: 9 }),
      }),
    ),
    time: fc.boolean(),
    random: fc.boolean(),
  })
  .map((request) => normaliseGrants(request));

describe('grants within grants', () => {
  it('are within themselves; what is left after a cut is within both, but for the clock and entropy', () => {
    fc.assert(
      fc.property(grants, grants, (one, other) => {
        assert.equal(grantsWithin(one, one), undefined);
        const cut = cutGrants(one, other);
        assert.equal(grantsWithin(other, cut), undefined);
        const { volume } = other;
        const { time, random } = other;
        // A volume keeps its size.
        const most = { ...one, time, random, volume: volume?.name === one.volume?.name ? volume : one.volume };
        assert.equal(grantsWithin(most, cut), undefined);
        assert.deepEqual(cutGrants(one, cut), cut);
      }),
    );
  });

  it('pass on: what is within a part is within the whole', () => {
    fc.assert(
      fc.property(grants, grants, grants, (a, b, c) => {
        if (grantsWithin(a, b) === undefined && grantsWithin(b, c) === undefined)
          assert.equal(grantsWithin(a, c), undefined);
      }),
    );
  });
});

describe('revoking', () => {
  it('leaves what was not named, and nothing more than there was', () => {
    fc.assert(
      fc.property(grants, target, (has, to) => {
        const none = revokeGrants(has, {
          fetch: true,
          connect: true,
          meshfs: { read: true },
          volume: true,
          clone: true,
        });
        assert.deepEqual(
          [none.fetch, none.connect, none.meshfs.read, none.volume, none.clone],
          [[], [], [], null, null],
        );
        assert.deepEqual(none.meshfs.write, has.meshfs.write);
        assert.equal(grantsWithin(has, none), undefined);
        try {
          const some = revokeGrants(has, { fetch: [to.toUpperCase()] });
          assert.ok(!some.fetch.some((one) => one.to === to) && has.fetch.some((one) => one.to === to));
        } catch (error) {
          assert.ok(isError(error, BadInput) && !has.fetch.some((one) => one.to === to));
        }
      }),
    );
  });
});
