/** Puts into words how a vault ended. Pure. */
import type { VaultExit } from '../../driver.ts';
import { HAS_ABORTED, HEAP_IS_FULL, SIGNAL_NAMES } from '../lxc/exit.ts';

export interface Ending {
  /** The agent's child: bubblewrap's monitor, or Node itself where there is no bubblewrap. */
  code: number | null;
  signal: NodeJS.Signals | null;
  /** What bubblewrap says of Node: its code, or 128 and the signal's number. */
  guest_code: number | undefined;
  kill_reason: string | undefined;
  /** What the guest did that ended it, where its gate is outside. */
  misbehaved?: string | undefined;
  /** The agent itself ended it, because it had more in memory than it may. */
  overran: boolean;
  started: boolean;
  /** `memory.oom_control` or `memory.events`. */
  oom_text: string | undefined;
  memory_mib: number;
  log_tail: string;
}

export function explainExit(ending: Ending): VaultExit {
  const { code, signal, guest_code, kill_reason, misbehaved, overran, started, oom_text, memory_mib, log_tail } =
    ending;
  const tell = (cause: VaultExit['cause'], reason: string): VaultExit => ({ cause, reason, log_tail });
  if (overran) return tell('out_of_memory', `it took more than its ${memory_mib} MiB of memory`);
  if (misbehaved !== undefined) return tell('misbehaved', misbehaved);
  if (kill_reason !== undefined) return tell(started ? 'killed' : 'failed_to_start', kill_reason);
  if (Number(/^oom_kill (\d+)/m.exec(oom_text ?? '')?.[1] ?? 0) > 0)
    return tell('out_of_memory', `the kernel ended it at its limit of ${memory_mib} MiB of memory`);
  if (HEAP_IS_FULL.test(log_tail))
    return tell('out_of_memory', `its JavaScript heap was full (the vault has ${memory_mib} MiB of memory)`);
  const status = guest_code ?? code ?? 0;
  const by_signal = signal ?? (status > 128 ? (SIGNAL_NAMES.get(status - 128) ?? `signal ${status - 128}`) : undefined);
  if (by_signal === 'SIGSEGV' && HAS_ABORTED.test(log_tail)) return tell('exited', 'it aborted (SIGABRT)');
  const how = by_signal ? `was ended by ${by_signal}` : `ended with code ${status}`;
  return started ? tell('exited', `it ${how}`) : tell('failed_to_start', `it ${how} before the guest ran`);
}
