/**
 * `npm run soak -- chaos [--for 240] [--mean 1000] [--driver NAME]… [--seed N]`: a whole mesh under clones, lasting workers,
 * files, jobs, tokens and modules that change, while any process of it is killed, stopped or asked to end at random moments.
 * `--for` is the length of the storm in seconds, `--mean` the mean pause before a signal in milliseconds. A seed gives the same
 * schedule of signals again, not the same moments.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { chaos } from '../test/support/chaos.ts';
import { DRIVERS, type DriverName, missing } from '../test/support/mesh.ts';
import { seeded } from '../test/support/seeded.ts';
import type { Soaked } from './main.ts';

export async function run(args: string[]): Promise<Soaked> {
  const { values } = parseArgs({
    args,
    options: {
      for: { type: 'string', default: '240' },
      mean: { type: 'string', default: '1000' },
      driver: { type: 'string', multiple: true },
      seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    },
  });
  console.error(`seed ${values.seed}`);
  const report = await chaos({
    for_ms: Number(values.for) * 1_000,
    mean_ms: Number(values.mean),
    drivers: (values.driver as DriverName[] | undefined) ?? DRIVERS.filter((driver) => !missing(driver)),
    random: seeded(values.seed),
    note: (text) => console.error(`  ${new Date().toISOString().slice(11, 23)} ${text}`),
  });
  console.table(report.signals);
  for (const [load, outcomes] of Object.entries(report.outcomes).sort())
    console.error(
      `  ${load.padEnd(18)} ${Object.entries(outcomes)
        .map(([name, times]) => `${name} ${times}`)
        .join(', ')}`,
    );
  if (report.faults.length > 0)
    throw new Error(`Seed ${values.seed}: ${report.faults.length} faults:\n${report.faults.join('\n')}`);
  return {
    report: { seed: values.seed, ...report },
    shown: 'nothing acknowledged was lost, no call ran twice, nothing was left behind',
  };
}
