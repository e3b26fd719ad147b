/** Numbers in [0, 1) that a seed gives again. */
import { createHash } from 'node:crypto';

export function seeded(seed: string): () => number {
  let count = 0;
  return () => createHash('sha256').update(`${seed}/${count++}`).digest().readUInt32BE() / 2 ** 32;
}
