/**
 * `npm run soak -- spool [--kills 200] [--agents 3] [--scripts 16] [--core 1000] [--agent 800] [--seed N]`: the core and its
 * agents are killed with -9 under load; every accepted job must end with exactly one recorded result. `--core` and
 * `--agent` are mean pauses before the next kill, in milliseconds.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { seeded } from '../test/support/seeded.ts';
import { storm } from '../test/support/spool-storm.ts';
import type { Soaked } from './main.ts';

export async function run(args: string[]): Promise<Soaked> {
  const { values } = parseArgs({
    args,
    options: {
      kills: { type: 'string', default: '200' },
      agents: { type: 'string', default: '3' },
      scripts: { type: 'string', default: '16' },
      core: { type: 'string', default: '1000' },
      agent: { type: 'string', default: '800' },
      seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    },
  });
  console.error(`seed ${values.seed}`);
  const report = await storm({
    kills: Number(values.kills),
    agents: Number(values.agents),
    scripts: Number(values.scripts),
    core_ms: Number(values.core),
    agent_ms: Number(values.agent),
    random: seeded(values.seed),
    note: (text) => console.error(`  ${Math.round(performance.now() / 1000)} s: ${text}`),
  });
  return { report, shown: 'every accepted job ended with exactly one recorded result' };
}
