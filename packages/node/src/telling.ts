/** What an agent tells of its workers: how one ended, and what guests say of their callers' sessions, as far as it can be that. */
import { type Job, LIMITS, type LogLine, type SessionInfo, type ToldFate, type WorkerInfo } from '@hauki/protocol';
import type { VaultExit } from '@hauki/vault';
import type { Living } from './forge.ts';
import { lastOf } from './log-ring.ts';

/** What is told of a living worker, but for what depends on its node. */
export function infoOf(living: Living): Omit<WorkerInfo, 'isolation' | 'direct'> {
  const { job, epoch, vault, lease, lifetime, born_at } = living;
  return {
    worker: job.worker,
    owner: job.owner,
    driver: job.driver,
    epoch,
    memory_mib: job.memory_mib,
    grants: job.grants,
    lease: job.lease,
    pid: vault.pid,
    born_at,
    lease_until: lease.until,
    ...(job.lasting ? { lasting: true } : {}),
    ...(job.cpu === undefined ? {} : { cpu: job.cpu }),
    ...(job.turn_ms === undefined ? {} : { turn_ms: job.turn_ms }),
    ...(job.parent ? { parent: job.parent } : {}),
    ...(job.min_isolation ? { min_isolation: job.min_isolation } : {}),
    ...(job.idle_ms ? { idle_ms: job.idle_ms } : {}),
    ...(lifetime.paused_at === undefined ? {} : { paused_at: lifetime.paused_at }),
    ...(lifetime.ends_at === undefined ? {} : { ends_at: lifetime.ends_at }),
    ...(job.code ? { code: job.code } : {}),
    ...(job.voucher ? { voucher: job.voucher } : {}),
  };
}

/** What is told of a worker whose vault has ended. */
export function fateOf({ job, epoch, ending, log, usage, born_at }: Living, exit: VaultExit, node: string): ToldFate {
  const own = exit.cause === 'failed_to_start' ? 'vault_failed' : exit.cause;
  // One that broke its rules while its lease ran out, or in its hook, ended by that.
  const itself = ending?.cause === 'lease_expired' && (own === 'misbehaved' || own === 'out_of_memory');
  const { cause, reason } = (itself ? undefined : ending) ?? { cause: own, reason: exit.reason };
  const at = Date.now();
  const said = exit.log_tail.split('\n').filter(Boolean);
  const lines: LogLine[] = said.map((text, i) => ({ seq: log.last + 1 + i, at, level: 'vault', text }));
  return {
    ...{ worker: job.worker, owner: job.owner, cause, reason, at, epoch, node, driver: job.driver, born_at },
    lines: lastOf([...log.tail(), ...lines], LIMITS.log_tail_chars),
    usage: usage.last(exit.usage),
    ...(job.voucher ? { voucher: job.voucher } : {}),
    ...(exit.reason === reason || exit.cause === 'killed' ? {} : { exit: `${exit.cause}: ${exit.reason}` }),
  };
}

/** What is told of a worker that was ended before it was born. */
export function unbornOf(job: Job, { cause, reason }: Pick<ToldFate, 'cause' | 'reason'>, node: string): ToldFate {
  const { worker, owner, driver, epoch = 1, voucher } = job;
  const none = { at: Date.now(), lines: [] };
  return { worker, owner, cause, reason, epoch, node, driver, ...none, ...(voucher ? { voucher } : {}) };
}

/**
 * What a guest says of a session, as far as it can be one: nothing but short names and numbers. Of where its connection
 * comes from, only whether that is one that this node dialled for the relay is told, by `relayed`; whose it is never.
 */
export function cleanSession(
  info: Partial<SessionInfo> & { peer?: unknown },
  relayed: (peer: string) => boolean,
): Omit<SessionInfo, 'worker'> {
  const count = (value: unknown) => (typeof value === 'number' && value >= 0 ? value : 0);
  const stats = Object.entries(info.stats ?? {}).filter(([name]) => /^[a-z_]{1,32}$/.test(name));
  return {
    session: typeof info.session === 'string' && /^[\w-]{1,64}$/.test(info.session) ? info.session : '?',
    role: info.role === 'owner' ? 'owner' : 'visitor',
    ...(info.connected === true && typeof info.peer === 'string'
      ? { route: relayed(info.peer) ? 'relay' : 'direct' }
      : {}),
    opened_at: count(info.opened_at),
    connected: info.connected === true,
    connections: count(info.connections),
    carried_bytes: count(info.carried_bytes),
    unconfirmed_bytes: count(info.unconfirmed_bytes),
    stats: Object.fromEntries(stats.slice(0, 32).map(([name, value]) => [name, count(value)])),
  };
}
