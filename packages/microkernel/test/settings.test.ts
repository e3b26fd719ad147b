/** Which versions serve, and how much: what comes of one that comes in, and of one that is taken out. Pure. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, Overloaded } from '@hauki/protocol';
import fc from 'fast-check';
import { KERNEL_LIMITS } from '../src/limits.ts';
import { liveWith, liveWithout } from '../src/settings.ts';

describe('the weights of a module’s versions', () => {
  it('add up to a hundred, whatever comes in and goes out', () => {
    const weights = fc.array(fc.integer({ min: 0, max: 100 }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(weights, (all) => {
        let live = liveWith([], 1, 30);
        assert.deepEqual(live, [{ version: 1, weight: 100 }]);
        for (const [at, weight] of all.entries()) {
          if (live.length === KERNEL_LIMITS.live_versions) live = liveWithout(live, live[at % live.length]!.version);
          live = liveWith(live, at + 2, weight);
          assert.equal(live.find(({ version }) => version === at + 2)!.weight, weight);
          assert.equal(
            live.reduce((sum, one) => sum + one.weight, 0),
            100,
          );
          assert.ok(live.every((one) => one.weight >= 0));
        }
      }),
    );
  });

  it('are of a bounded number of versions; one that takes all leaves no other', () => {
    const live = Array.from({ length: KERNEL_LIMITS.live_versions }, (_, at) => ({
      version: at + 1,
      weight: at ? 0 : 100,
    }));
    assert.throws(
      () => liveWith(live, 9, 10),
      (error) => isError(error, Overloaded),
    );
    assert.deepEqual(liveWith(live, 9), [{ version: 9, weight: 100 }]);
  });
});
