/** The age of what is kept on disk, where somebody may set the clock. */
import { BACKPLANE_LIMITS } from './limits.ts';

/**
 * A clock that goes on from now as `elapsed` does and is not ahead of that: set ahead for a moment, `clock` would make all
 * that is kept for a time too old at once. One that stays ahead is believed after a while: the machine has slept, or its
 * clock was behind when this began. Both in milliseconds; `elapsed` is one that nobody sets.
 */
export function neverAhead(clock: () => number, elapsed: () => number): () => number {
  let ahead = clock() - elapsed();
  let doubted: { ahead: number; since: number } | undefined;
  return () => {
    const now = elapsed();
    const told = clock() - now;
    if (told <= ahead) doubted = undefined;
    else {
      doubted = { ahead: Math.min(told, doubted?.ahead ?? told), since: doubted?.since ?? now };
      if (now - doubted.since >= BACKPLANE_LIMITS.clock_doubted_ms) {
        ahead = doubted.ahead;
        doubted = undefined;
      }
    }
    return now + Math.min(told, ahead);
  };
}
