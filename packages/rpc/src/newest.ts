/** What is remembered in bounded number: the oldest is forgotten first. */

/** Forgets the oldest of more than `most` entries, in the order in which they were set. */
export function keepNewest(some: Map<unknown, unknown> | Set<unknown>, most: number): void {
  for (const oldest of some.keys()) {
    if (some.size <= most) return;
    some.delete(oldest);
  }
}
