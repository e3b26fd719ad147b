/** Whether a version's answers keep the bounds that were posted with it. */
import type { Bounds } from '@hauki/protocol';
import { KERNEL_LIMITS } from './limits.ts';
import type { VersionStats } from './stats.ts';

/** Whether so many requests have come since the last time that it is to be judged again; the next call counts from here. */
export function isDue(stats: VersionStats): boolean {
  if (stats.requests - stats.judged_at < KERNEL_LIMITS.judged_after) return false;
  stats.judged_at = stats.requests;
  return true;
}

/** Why it left its bounds; undefined where it keeps them, or has answered too little to say. */
export function whyOut({ max_error_rate, max_p99_ms }: Bounds, stats: VersionStats): string | undefined {
  const { answered, failed, timed, slow } = stats.tally(max_p99_ms);
  const { judged_after, slow_answers } = KERNEL_LIMITS;
  if (max_error_rate !== undefined && answered >= judged_after && failed / answered > max_error_rate)
    return `its error rate is ${Math.round((failed / answered) * 1000) / 10} %, above ${max_error_rate * 100} %`;
  if (max_p99_ms !== undefined && timed >= judged_after && slow >= slow_answers && slow > timed / 100)
    return `its p99 is above ${max_p99_ms} ms: ${slow} of its last ${timed} requests took longer`;
  return undefined;
}

/** Whether it has answered enough to say that it keeps them. */
export const keeps = (bounds: Bounds, stats: VersionStats): boolean =>
  stats.requests >= KERNEL_LIMITS.judged_after && whyOut(bounds, stats) === undefined;
