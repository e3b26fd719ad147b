/**
 * `npm run soak -- swaps [--swaps 10000] [--driver quickjs] [--every 10] [--growth MIB]`: a kernel's modules are evolved and
 * rolled back under constant load; no request may fail, no count be lost, and memory and processes must stay flat.
 * `--every`: milliseconds between two requests to each module; `--growth`: MiB of resident memory by which the kernel, and
 * its vaults together, may grow for each 1,000 swaps of the second half; 1. In a short run, whose heaps have not reached
 * their size, the end may have 64 MiB more than the second tenth.
 */
import { parseArgs } from 'node:util';
import { judge, swapStorm } from '../test/support/swap-storm.ts';
import type { Soaked } from './main.ts';

/** Fewer swaps than this are a short run. */
const SHORT = 5_000;

export async function run(args: string[]): Promise<Soaked> {
  const { values } = parseArgs({
    args,
    options: {
      swaps: { type: 'string', default: '10000' },
      driver: { type: 'string', default: 'quickjs' },
      every: { type: 'string', default: '10' },
      growth: { type: 'string', default: '1' },
    },
  });
  const report = await swapStorm({
    swaps: Number(values.swaps),
    driver: values.driver,
    every_ms: Number(values.every),
    note: (text) => console.error(`  ${Math.round(performance.now() / 1000)} s: ${text}`),
  });
  console.error(JSON.stringify(report));
  judge(report, report.swaps < SHORT ? { slack_mib: 64 } : { growth_mib: Number(values.growth) });
  return { report, shown: 'no request failed, no count was lost, memory and processes stayed flat' };
}
