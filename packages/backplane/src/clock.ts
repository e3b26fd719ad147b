/** The age of what is kept on disk, where somebody may set the clock. */

/**
 * A clock that goes on from now as `elapsed` does and is never ahead of that: set ahead for a moment, `clock` would make all
 * that is kept for a time too old at once. Both in milliseconds; `elapsed` is one that nobody sets.
 */
export function neverAhead(clock: () => number, elapsed: () => number): () => number {
  const ahead = clock() - elapsed();
  return () => Math.min(clock(), elapsed() + ahead);
}
