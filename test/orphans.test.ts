/** Agents are killed with -9 again and again under a stream of clones: nothing is left. `npm run soak -- orphans` does more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DRIVERS, missing } from './support/mesh.ts';
import { orphanStorm } from './support/orphan-storm.ts';

test('twenty-five kills of agents at random moments leave nothing behind, with every driver', {
  timeout: 240_000,
}, async () => {
  const drivers = DRIVERS.filter((driver) => !missing(driver));
  const report = await orphanStorm({ kills: 25, agents: 2, scripts: 3, life_ms: 1_500, drivers, random: Math.random });
  assert.ok(report.kills >= 25);
  assert.ok(report.processes > 0, 'no agent had a process below it: nothing was shown');
});
