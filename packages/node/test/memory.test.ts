/** What a node promises when nobody said. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { defaultMemoryMib } from '../src/memory.ts';

it('a node in a container promises three quarters of the container’s memory, and nothing that is the machine’s alone', () => {
  const GIB = 2 ** 30;
  assert.equal(defaultMemoryMib(24 * GIB, GIB), 768);
  // Without a limit: as systems without cgroups tell it, and as those with them do.
  for (const limit of [0, 2 ** 64, 24 * GIB]) assert.equal(defaultMemoryMib(24 * GIB, limit), 18_432);
  assert.ok(defaultMemoryMib() > 0);
});
