/**
 * How a worker's end is told. The gentle end: its hook, bounded in time, and whether it still answers at all. One whose code never
 * returns passes no heartbeats on: its lease runs out although its owner has renewed it all the while, and its fate must
 * not tell that nobody did.
 */
import {
  type Cause,
  ConnectionLost,
  describe,
  isError,
  LIMITS,
  type MeshError,
  OutcomeUnknown,
  WorkerDied,
} from '@hauki/protocol';
import type { Living } from './forge.ts';
import { fateOf } from './telling.ts';

/** More than a guest that stands still uses; less than one that computes gets on the busiest machine. */
const BUSY_MS = 20;
/** How long its use is waited for: who holds it may be as busy as itself. */
const USE_MS = 200;

/** How long a vault whose channel was cut is waited for: it ends a moment later, or is ended for that (`forge.ts`). */
const CUT_MS = 2_000;

/** Whether the vault ended before it answered: that is what its fate tells of, and nothing that the worker said. */
const isCut = (error: unknown) =>
  (isError(error, OutcomeUnknown) || isError(error, ConnectionLost)) &&
  (error as MeshError<{ remote_stack?: string }>).fields.remote_stack === undefined;

/** What befell somebody who asked the vault something: where it ended of that, its death. */
export async function deathOr(error: unknown, living: Living, node: string): Promise<unknown> {
  if (!isError(error, OutcomeUnknown)) return error;
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(resolve, CUT_MS, undefined);
  const exit = await Promise.race([living.vault.exited, late]);
  clearTimeout(timer);
  if (!exit) return error;
  const { worker, cause, reason } = fateOf(living, exit, node);
  return new WorkerDied({ worker, cause, reason });
}

/** Runs the hook of one that is about to be killed, for at most `LIMITS.end_hook_ms`, and gives what to say of its end. */
export async function endGently(
  living: Living,
  cause: Cause,
  reason: string,
): Promise<{ cause: Cause; reason: string }> {
  const { shell, log } = living;
  const began = performance.now();
  const before = cause === 'lease_expired' ? cpuOf(living) : undefined;
  let answered = cause !== 'lease_expired';
  // Asked first: a hook may take its time, or never return.
  const asked = answered ? undefined : shell.activity().then(() => (answered = true));
  let late = false;
  const hook = Promise.resolve(shell.end(reason)).catch((error) => {
    if (!late && !isCut(error)) log.add('error', `onEnd: ${describe(error)}`);
  });
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, LIMITS.end_hook_ms);
  await Promise.race([Promise.all([asked?.catch(() => {}), hook]), over.promise]);
  clearTimeout(timer);
  late = true;
  if (answered) return { cause, reason };
  const passed_ms = Math.round(performance.now() - began);
  const [from, to] = await Promise.all([before, cpuOf(living)]);
  const used_ms = from === undefined || to === undefined ? undefined : Math.round(to - from);
  let why = 'It may compute without end or wait without an await';
  if (used_ms !== undefined && used_ms > BUSY_MS) why = `It computed for ${used_ms} ms of that time`;
  else if (used_ms !== undefined) why = 'It did not compute either: its code waits in one place';
  const lease = `${living.job.lease.lease_ms} ms`;
  return {
    cause: 'unresponsive',
    reason: `it did not answer within ${passed_ms} ms when its lease of ${lease} ran out, so no heartbeat could pass it. ${why}`,
  };
}

/** Its CPU time; undefined where that is not told at once. */
async function cpuOf({ vault }: Living): Promise<number | undefined> {
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(resolve, USE_MS, undefined);
  const used = vault.usage?.().then(
    ({ cpu_ms }) => cpu_ms,
    () => undefined,
  );
  return Promise.race([used, late]).finally(() => clearTimeout(timer));
}
