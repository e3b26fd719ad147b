/** Agents are killed with -9 again and again under a stream of clones: nothing is left. `npm run soak -- orphans` does more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DRIVERS, missing } from './support/mesh.ts';
import { orphanStorm } from './support/orphan-storm.ts';

test('kills of agents at random moments leave nothing behind, with every driver', {
  timeout: 240_000,
}, async () => {
  const drivers = DRIVERS.filter((driver) => !missing(driver));
  // On a busy machine a start takes many seconds: then there are fewer.
  const size = { kills: 25, for_ms: 60_000, agents: 2, scripts: 3, life_ms: 1_500 };
  const report = await orphanStorm({ ...size, drivers, random: Math.random });
  assert.ok(report.kills > 0);
  assert.ok(report.processes > 0, 'no agent had a process below it: nothing was shown');
});
