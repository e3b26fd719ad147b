/**
 * `npm run soak -- meshfs [--kills 200] [--lanes 6] [--mean 400] [--seed N]`: a core is killed with -9 at random moments
 * under writers, conditional writers, deleters and collections; nothing acknowledged may be lost, no half file stand in
 * the wiki folder, and no content be left that nothing names. `--mean` is the mean pause before a kill, in milliseconds.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { storm } from '../test/support/meshfs-storm.ts';
import { seeded } from '../test/support/seeded.ts';
import type { Soaked } from './main.ts';

export async function run(args: string[]): Promise<Soaked> {
  const { values } = parseArgs({
    args,
    options: {
      kills: { type: 'string', default: '200' },
      lanes: { type: 'string', default: '6' },
      mean: { type: 'string', default: '400' },
      seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    },
  });
  console.error(`seed ${values.seed}`);
  const report = await storm({
    kills: Number(values.kills),
    lanes: Number(values.lanes),
    mean_ms: Number(values.mean),
    random: seeded(values.seed),
    note: (text) => console.error(`  ${Math.round(performance.now() / 1000)} s: ${text}`),
  });
  return { report, shown: 'nothing acknowledged was lost, and nothing was left behind' };
}
