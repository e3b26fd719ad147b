/** The clock by which what is kept grows old: nobody's slip makes all of it too old at once, and no sleep keeps it young. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { neverAhead } from '@hauki/backplane';
import { BACKPLANE_LIMITS } from '../src/limits.ts';

const HOUR = 3_600_000;
const { clock_doubted_ms } = BACKPLANE_LIMITS;

function setUp() {
  const at = { wall: 1_000 * HOUR, elapsed: 5 };
  const steady = neverAhead(
    () => at.wall,
    () => at.elapsed,
  );
  const pass = (ms: number) => {
    at.wall += ms;
    at.elapsed += ms;
    return steady();
  };
  return { at, pass };
}

it('a clock that is set ahead for a moment ages nothing, however often', () => {
  const { at, pass } = setUp();
  for (let times = 0; times < 5; times++) {
    const right = at.wall;
    at.wall += 9 * HOUR;
    assert.equal(pass(clock_doubted_ms - 1), right + clock_doubted_ms - 1);
    at.wall -= 9 * HOUR;
    assert.equal(pass(0), at.wall);
  }
});

it('a clock that stays ahead is believed after a while: the machine has slept', () => {
  const { at, pass } = setUp();
  at.wall += 9 * HOUR;
  pass(0);
  assert.equal(pass(clock_doubted_ms), at.wall);
  // So is one that somebody sets back, and at once.
  at.wall -= 5 * HOUR;
  assert.equal(pass(0), at.wall);
});

it('of a clock that is ahead by more and more, what it was ahead by all the while is believed', () => {
  const { at, pass } = setUp();
  at.wall += HOUR;
  pass(0);
  at.wall += 50 * HOUR;
  assert.equal(pass(clock_doubted_ms), at.wall - 50 * HOUR);
  pass(0);
  assert.equal(pass(clock_doubted_ms), at.wall, 'and the rest when that has lasted as long');
});
