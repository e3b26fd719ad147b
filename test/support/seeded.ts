/** Chance that a seed gives again, for tests and soaks. */
import { createHash } from 'node:crypto';

/** Numbers in [0, 1). */
export function seeded(seed: string): () => number {
  let count = 0;
  return () => createHash('sha256').update(`${seed}/${count++}`).digest().readUInt32BE() / 2 ** 32;
}
