/**
 * `npm run soak -- swaps [--swaps 10000] [--driver quickjs] [--every 10] [--slack 24]`: a kernel's modules are evolved and
 * rolled back under constant load; no request may fail, no count be lost, and memory and processes must stay flat.
 * `--every`: milliseconds between two requests to each module; `--slack`: MiB that the last tenth may take more than the
 * second.
 */
import { parseArgs } from 'node:util';
import { judge, swapStorm } from '../test/support/swap-storm.ts';

export async function run(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      swaps: { type: 'string', default: '10000' },
      driver: { type: 'string', default: 'quickjs' },
      every: { type: 'string', default: '10' },
      slack: { type: 'string', default: '24' },
    },
  });
  const report = await swapStorm({
    swaps: Number(values.swaps),
    driver: values.driver,
    every_ms: Number(values.every),
    note: (text) => console.error(`  ${Math.round(performance.now() / 1000)} s: ${text}`),
  });
  console.log(JSON.stringify(report, undefined, 2));
  judge(report, Number(values.slack));
  console.log('no request failed, no count was lost, memory and processes stayed flat');
}
