/** The schedules of `faults.test.ts` over real TCP and in real time, through the real gate. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { tally } from './fault-proxy.ts';
import { openBench, runSchedule } from './faults-schedule.ts';

const OVER_TCP = 50;
/** Together, because they mostly wait. */
const AT_ONCE = 10;

it(`faults on real sockets do no harm: ${OVER_TCP} schedules over TCP`, async () => {
  const bench = await openBench();
  const only = process.env.FAULT_SEED;
  const counted = tally();
  for (let first = 1; first <= OVER_TCP; first += AT_ONCE) {
    const seeds = only ? [Number(only)] : Array.from({ length: AT_ONCE }, (_, i) => first + i);
    const outcomes = await Promise.all(seeds.map((seed) => runSchedule({ seed, bench, tally: counted, tcp: true })));
    for (const { seed, faults, story } of outcomes)
      assert.deepEqual(
        faults,
        [],
        `Once more: FAULT_SEED=${seed} npm test -- rpc/test/faults-tcp\n${story.join('\n')}`,
      );
    if (only) break;
  }
  // Whether one falls into the middle of a frame is chance in real time; in memory some do.
  assert.ok(only || counted.cuts > 20, JSON.stringify(counted));
  await bench.office.close();
});
