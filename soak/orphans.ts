/**
 * `npm run soak -- orphans [--kills 1000] [--scripts 4] [--life 1500] [--driver NAME]… [--seed N]`: an agent is killed with
 * -9 at random moments under a stream of clones; afterwards nothing of it and of its vaults is left. `--life` is the
 * longest time that an agent gets once it is ready, in milliseconds.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { DRIVERS, type DriverName, missing } from '../test/support/mesh.ts';
import { orphanStorm } from '../test/support/orphan-storm.ts';
import { seeded } from '../test/support/seeded.ts';
import type { Soaked } from './main.ts';

export async function run(args: string[]): Promise<Soaked> {
  const { values } = parseArgs({
    args,
    options: {
      kills: { type: 'string', default: '1000' },
      scripts: { type: 'string', default: '4' },
      life: { type: 'string', default: '1500' },
      driver: { type: 'string', multiple: true },
      seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    },
  });
  const drivers = (values.driver as DriverName[] | undefined) ?? DRIVERS.filter((driver) => !missing(driver));
  console.error(`seed ${values.seed}, drivers ${drivers.join(', ')}`);
  const report = await orphanStorm({
    kills: Number(values.kills),
    scripts: Number(values.scripts),
    life_ms: Number(values.life),
    drivers,
    random: seeded(values.seed),
    note: (text) => console.error(`  ${Math.round(performance.now() / 1000)} s: ${text}`),
  });
  return { report, shown: 'no process, container, cgroup, mount, loop device, id claim or socket is left' };
}
