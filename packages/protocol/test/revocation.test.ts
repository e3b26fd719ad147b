/** Less of what was granted: cutting and revoking only ever take away. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  BadInput,
  cutGrants,
  type GrantRequest,
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

  const of = (request: GrantRequest, ...secrets: [string, ...string[]][]) =>
    normaliseGrants(request, Object.fromEntries(secrets.map(([name, ...to]) => [name, { value: 'hush hush', to }])));
  const [a, b] = ['a.example:443', 'b.example:80'];
  const HELD: [Grants, Grants][] = [
    [of({ fetch: [{ to: a, per_minute: 5 }] }), of({ fetch: [{ to: a, per_minute: 5 }] })],
    [of({ fetch: [{ to: a, methods: ['GET', 'POST'] }] }), of({ fetch: [{ to: a, methods: ['GET'], per_minute: 1 }] })],
    [of({ meshfs: { read: ['gem-pointer://wiki/a/'] } }), of({ meshfs: { read: ['gem-pointer://wiki/a/b'] } })],
    [of({ volume: { name: 'v', quota_mib: 8 } }), of({ volume: { name: 'v', quota_mib: 8 } })],
    [of({ clone: { live: 2, total: 4, memory_mib: 8 } }), of({ clone: { live: 2, total: 4, memory_mib: 8 } })],
    [of({}, ['KEY', a, b]), of({}, ['KEY', b])],
  ];
  /** What is asked for, beside what there is that comes closest to it. */
  const BEYOND: [Grants, Grants][] = [
    [of({ fetch: [{ to: a, per_minute: 5 }] }), of({ fetch: [{ to: a, per_minute: 6 }] })],
    [of({ fetch: [{ to: a, per_minute: 5 }] }), of({ fetch: [a] })],
    [of({ fetch: [{ to: a, methods: ['GET'] }] }), of({ fetch: [{ to: a, methods: ['GET', 'POST'] }] })],
    [of({ fetch: [{ to: a, methods: ['GET'] }] }), of({ fetch: [a] })],
    [of({ fetch: [a] }), of({ fetch: [b] })],
    [of({ connect: [a] }), of({ connect: [b] })],
    [of({ fetch: [a] }), of({ connect: [a] })],
    [of({ meshfs: { read: ['gem-pointer://wiki/a/b'] } }), of({ meshfs: { read: ['gem-pointer://wiki/a/'] } })],
    [of({ meshfs: { read: ['gem-pointer://wiki/a/'] } }), of({ meshfs: { write: ['gem-pointer://wiki/a/b'] } })],
    [of({ volume: 'v' }), of({ volume: 'w' })],
    [of({ clone: { live: 2, total: 4, memory_mib: 8 } }), of({ clone: { live: 3, total: 4, memory_mib: 8 } })],
    [of({ clone: { live: 2, total: 4, memory_mib: 8 } }), of({ clone: { live: 2, total: 5, memory_mib: 8 } })],
    [of({ clone: { live: 2, total: 4, memory_mib: 8 } }), of({ clone: { live: 2, total: 4, memory_mib: 9 } })],
    [of({}), of({ clone: 1 })],
    [of({}, ['KEY', a]), of({}, ['KEY', a, b])],
    [of({}, ['KEY', a]), of({}, ['OTHER', a])],
  ];

  it('go no further: in no target, method, rate, prefix, name, number, or host for a secret', () => {
    for (const [has, asked] of HELD) {
      assert.equal(grantsWithin(has, asked), undefined, JSON.stringify(asked));
      assert.deepEqual(cutGrants(has, asked), asked);
    }
    for (const [has, asked] of BEYOND) {
      assert.notEqual(grantsWithin(has, asked), undefined, JSON.stringify([has, asked]));
      assert.notDeepEqual(cutGrants(has, asked), asked);
    }
    // What a guest has already of these cannot be taken from it.
    const larger = of({ volume: { name: 'v', quota_mib: 9 } });
    assert.notEqual(grantsWithin(of({ volume: { name: 'v', quota_mib: 8 } }), larger), undefined);
    for (const kind of ['time', 'random']) assert.notEqual(grantsWithin(of({}), of({ [kind]: true })), undefined, kind);
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
  it('knows what it names in every spelling', () => {
    const has = normaliseGrants({ connect: ['a.example:443'], meshfs: { read: ['gem-pointer://wiki/a/'] } });
    const left = revokeGrants(has, { connect: ['A.example.:443'], meshfs: { read: ['gem-pointer://WIKI/a/'] } });
    assert.deepEqual([left.connect, left.meshfs.read], [[], []]);
  });

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
