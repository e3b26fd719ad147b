/**
 * `npm run soak -- rpc [schedules] [first seed]`: 10,000 seeded schedules of faults between a caller and a worker (see
 * packages/rpc/test/faults-schedule.ts), a share of them over real TCP. Ends at the first fault with its seed and story.
 */
import { tally } from '../packages/rpc/test/fault-proxy.ts';
import { type Outcome, openBench, runSchedule } from '../packages/rpc/test/faults-schedule.ts';
import type { Soaked } from './main.ts';

const SCHEDULES = 10_000;
/** Between two lines of progress. */
const LINE_EVERY = 500;
/** One batch over TCP for so many in memory, and how many it has. */
const TCP_EVERY = 500;
const TCP_BATCH = 20;

export async function run(args: string[]): Promise<Soaked> {
  const count = Number(args[0] ?? SCHEDULES);
  const first = Number(args[1] ?? 1);
  if (!Number.isSafeInteger(count) || count < 1 || !Number.isSafeInteger(first))
    throw new RangeError('Usage: npm run soak -- rpc [schedules] [first seed], both whole numbers');
  const bench = await openBench();
  const counted = tally();
  const began = performance.now();
  const sum = { schedules: 0, over_tcp: 0, calls: 0, executions: 0, connections: 0, resolved: 0 };
  const rejected: Record<string, number> = {};
  let lost: unknown;
  const unhandled = (reason: unknown) => {
    lost ??= reason;
  };
  process.on('unhandledRejection', unhandled);
  /** Takes an outcome into the sums. False when something was wrong. */
  const fine = (outcome: Outcome, where: string): boolean => {
    sum.schedules++;
    for (const name of ['calls', 'executions', 'connections', 'resolved'] as const) sum[name] += outcome[name];
    for (const [name, times] of Object.entries(outcome.rejected)) rejected[name] = (rejected[name] ?? 0) + times;
    if (lost !== undefined) outcome.faults.push(`a rejection that nobody handled: ${lost}`);
    if (outcome.faults.length === 0) return true;
    console.error(`Seed ${outcome.seed}, ${where}:\n  ${outcome.faults.join('\n  ')}\nIts story:`);
    console.error(`  ${outcome.story.join('\n  ')}`);
    console.error(
      `Once more: FAULT_SEED=${outcome.seed} npm test -- rpc/test/faults${where === 'over TCP' ? '-tcp' : '.test'}`,
    );
    return false;
  };
  let well = true;
  for (let seed = first; well && seed < first + count; seed++) {
    well = fine(await runSchedule({ seed, bench, tally: counted }), 'in memory');
    const done = seed - first + 1;
    if (well && done % TCP_EVERY === 0) {
      const over_tcp = Array.from({ length: TCP_BATCH }, (_, i) =>
        runSchedule({ seed: seed - i, bench, tally: counted, tcp: true }),
      );
      for (const outcome of await Promise.all(over_tcp)) well = fine(outcome, 'over TCP') && well;
      sum.over_tcp += TCP_BATCH;
    }
    if (done % LINE_EVERY === 0)
      console.error(
        `  ${done} of ${count} schedules, ${sum.calls} calls, ${Math.round((performance.now() - began) / 1000)} s`,
      );
  }
  process.off('unhandledRejection', unhandled);
  await bench.office.close();
  if (!well) throw new Error('A schedule of faults was not survived: its story is above');
  const shown = 'no call ran twice, order was kept, no call outlived its deadline, every caller was told the truth';
  return { report: { ...sum, rejected, network: counted }, shown };
}
