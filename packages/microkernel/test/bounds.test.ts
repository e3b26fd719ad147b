/** When a version is judged, by what, and what of its requests counts. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDue, whyOut } from '../src/bounds.ts';
import { KERNEL_LIMITS } from '../src/limits.ts';
import { type Outcome, VersionStats } from '../src/stats.ts';

const stats = (...groups: [count: number, ms: number, outcome: Outcome][]) => {
  const made = new VersionStats();
  for (const [count, ms, outcome] of groups) for (let i = 0; i < count; i++) made.note(ms, outcome);
  return made;
};

describe('the bounds of a version', () => {
  it('are looked at after each twenty requests or more, however many come together', () => {
    for (const group of [1, 3, 7, 20, 32]) {
      const made = new VersionStats();
      let waited = 0;
      for (let i = 0; i < 60; i++) {
        for (let j = 0; j < group; j++) made.note(1, 'failed');
        waited += group;
        if (!isDue(made)) continue;
        assert.ok(waited >= 20 && waited < 20 + group, `${waited} requests in groups of ${group}`);
        waited = 0;
      }
    }
  });

  it('are left by answers that fail or are slow, and kept where there are too few to say', () => {
    assert.match(whyOut({ max_error_rate: 0.1 }, stats([17, 1, 'answered'], [3, 1, 'failed']))!, /15 %, above 10 %/);
    assert.equal(whyOut({ max_error_rate: 0.15 }, stats([17, 1, 'answered'], [3, 1, 'failed'])), undefined);
    assert.equal(whyOut({ max_error_rate: 0.1 }, stats([19, 1, 'failed'])), undefined);
    assert.equal(whyOut({ max_p99_ms: 10 }, stats([19, 99, 'answered'])), undefined);
  });

  it('are kept where one answer was slow, of however few', () => {
    const bounds = { max_p99_ms: 200 };
    assert.equal(whyOut(bounds, stats([1, 300, 'answered'], [19, 1, 'answered'])), undefined);
    assert.match(whyOut(bounds, stats([2, 300, 'answered'], [18, 1, 'answered']))!, /2 of its last 20 requests/);
    assert.equal(whyOut(bounds, stats([2, 300, 'answered'], [198, 1, 'answered'])), undefined);
    assert.match(whyOut(bounds, stats([3, 300, 'answered'], [197, 1, 'answered']))!, /above 200 ms/);
  });

  it('are left by requests that were given up after more than their time, and by no others', () => {
    const bounds = { max_p99_ms: 100, max_error_rate: 0.1 };
    assert.match(whyOut(bounds, stats([20, 300, 'given_up']))!, /20 of its last 20/);
    assert.equal(whyOut(bounds, stats([200, 50, 'given_up'])), undefined);
    // How long they would have taken is not known: they are not among the fast ones.
    assert.match(
      whyOut(bounds, stats([300, 50, 'given_up'], [17, 1, 'answered'], [3, 300, 'answered']))!,
      /3 of its last 20/,
    );
    // Nor do those stand beside the ones that failed as if they were well answered.
    const failing = stats([200, 50, 'given_up'], [17, 1, 'answered'], [3, 1, 'failed']);
    assert.match(whyOut(bounds, failing)!, /error rate is 15 %/);
    assert.equal(failing.view().error_rate, 0.15);
  });

  it('see an answer that broke off as a failed one, once', () => {
    const made = stats([20, 1, 'answered'], [1, 1, 'failed']);
    for (const number of [0, 0, 20]) made.broke(number);
    assert.deepEqual([made.errors, made.tally().failed], [2, 2]);
    for (let i = 0; i < KERNEL_LIMITS.times_kept; i++) made.note(1, 'answered');
    made.broke(5);
    assert.deepEqual([made.errors, made.tally().failed], [2, 0]);
  });
});
