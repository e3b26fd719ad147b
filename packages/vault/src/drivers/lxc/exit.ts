/**
 * Puts into words how a vault ended. Pure. Honest where the kernel's answer is not unique.
 */
import { constants } from 'node:os';
import type { VaultExit } from '../../driver.ts';

export interface Ending {
  /** lxc-start's own exit, which does not tell the guest's. */
  code: number | null;
  signal: NodeJS.Signals | null;
  kill_reason: string | undefined;
  /** What the guest did that ended it, where its gate is outside. */
  misbehaved?: string | undefined;
  started: boolean;
  /** `memory.oom_control` or `memory.events`, as they were before the cgroup went. */
  oom_text: string | undefined;
  /** LXC's log at level INFO; it tells how the guest ended. */
  lxc_log: string;
  memory_mib: number;
  log_tail: string;
}

/** V8's words when its heap limit, which follows from the vault's memory, is reached. */
export const HEAP_IS_FULL = /JavaScript heap out of memory|Allocation failed - JavaScript/;
/**
 * What Node writes as it aborts. The kernel keeps SIGABRT from the first process of a container or a sandbox: what aborts
 * then runs into what no process may do, and that is SIGSEGV.
 */
export const HAS_ABORTED = /^----- Native stack trace -----$/m;
/** Of several names the first: SIGABRT, not SIGIOT. */
export const SIGNAL_NAMES = new Map(
  Object.entries(constants.signals)
    .toReversed()
    .map(([name, number]) => [number, name]),
);

export function explainExit(ending: Ending): VaultExit {
  const { code, signal, kill_reason, misbehaved, started, oom_text, lxc_log, memory_mib, log_tail } = ending;
  const with_log = (cause: VaultExit['cause'], reason: string): VaultExit => ({ cause, reason, log_tail });
  if (misbehaved !== undefined) return with_log('misbehaved', misbehaved);
  if (kill_reason !== undefined) return with_log(started ? 'killed' : 'failed_to_start', kill_reason);
  const oom_kills = Number(/^oom_kill (\d+)/m.exec(oom_text ?? '')?.[1] ?? 0);
  if (oom_kills > 0) return with_log('out_of_memory', `the kernel ended it at its memory limit of ${memory_mib} MiB`);
  if (HEAP_IS_FULL.test(log_tail)) {
    return with_log('out_of_memory', `its JavaScript heap was full (the vault has ${memory_mib} MiB)`);
  }
  if (!started)
    return with_log('failed_to_start', `lxc-start ended with ${signal ?? `code ${code}`} before the guest ran`);
  if (signal) {
    return with_log('exited', `its monitor was ended by ${signal} from outside, and the vault with it`);
  }
  const by_signal = /ended on signal [^(\n]*\((\d+)\)/.exec(lxc_log)?.[1];
  if (by_signal !== undefined) {
    if (by_signal === '11' && HAS_ABORTED.test(log_tail)) return with_log('exited', 'it aborted (SIGABRT)');
    const name = SIGNAL_NAMES.get(Number(by_signal)) ?? `signal ${by_signal}`;
    // The counter is read before LXC removes the cgroup; where that failed, memory stays possible.
    const unknown = by_signal === '9' && oom_text === undefined ? '; whether memory ran out is not known' : '';
    return with_log('exited', `it was ended by ${name}${unknown}`);
  }
  return with_log('exited', `it ended with code ${/ended on error \((\d+)\)/.exec(lxc_log)?.[1] ?? 0}`);
}
