/** What a request for a worker may say of its size and its time: each within its bounds, or BadInput names it. */
import { BadInput, CPU_SHARE, ISOLATION_LEVELS, LEASE, LEAST_MEMORY_MIB, TURN_MS } from '@hauki/protocol';
import type { SpawnRequest } from './swarm.ts';

/** Of any driver's vaults. */
export const MEMORY_MIB = { least: Math.min(...Object.values(LEAST_MEMORY_MIB)), most: 65_536 };

type Asked = Omit<SpawnRequest, 'audience'>;

/** Throws BadInput for what is beyond its bound. */
export function checkBounds({ memory_mib, cpu, turn_ms, driver, min_isolation }: Asked): void {
  if (memory_mib !== undefined && !(memory_mib >= MEMORY_MIB.least && memory_mib <= MEMORY_MIB.most))
    throw new BadInput({ what: 'memory_mib', why: `from ${MEMORY_MIB.least} to ${MEMORY_MIB.most}` });
  if (cpu !== undefined && !(cpu >= CPU_SHARE.least && cpu <= CPU_SHARE.most))
    throw new BadInput({ what: 'cpu', why: `a share of one core, from ${CPU_SHARE.least} to ${CPU_SHARE.most}` });
  if (cpu !== undefined && driver === 'quickjs' && cpu < CPU_SHARE.least_quickjs)
    throw new BadInput({ what: 'cpu', why: `a quickjs vault has at least ${CPU_SHARE.least_quickjs} of a core` });
  if (turn_ms !== undefined && driver !== 'quickjs')
    throw new BadInput({ what: 'turn_ms', why: 'no driver but quickjs bounds a turn: name it (driver: quickjs)' });
  if (turn_ms !== undefined && !(turn_ms >= TURN_MS.least && turn_ms <= TURN_MS.most))
    throw new BadInput({ what: 'turn_ms', why: `from ${TURN_MS.least} to ${TURN_MS.most}` });
  if (min_isolation !== undefined && !ISOLATION_LEVELS.includes(min_isolation))
    throw new BadInput({ what: 'min_isolation', why: `one of ${ISOLATION_LEVELS.join(', ')}` });
}

/** The lease that was asked for. Throws BadInput, also for a life that cannot be. */
export function leaseOf(request: Asked): { heartbeat_ms: number; lease_ms: number } {
  const lease_ms = request.lease_ms ?? LEASE.lease_ms;
  const heartbeat_ms = request.heartbeat_ms ?? Math.min(LEASE.heartbeat_ms, Math.ceil(lease_ms / 6));
  const within = (what: string, value: number, least: number, most: number) => {
    if (value < least || value > most) throw new BadInput({ what, why: `from ${least} to ${most} milliseconds` });
  };
  within('lease_ms', lease_ms, LEASE.min_ms, LEASE.max_ms);
  within('heartbeat_ms', heartbeat_ms, LEASE.min_heartbeat_ms, lease_ms);
  const { ttl_ms, max_life_ms, idle_ms } = request;
  // Of a ttl_ms 0 is as much as none: the lease alone counts. As one of the two others it would let a worker live for ever.
  if (ttl_ms) within('ttl_ms', ttl_ms, LEASE.min_ms, LEASE.max_ms);
  if (max_life_ms !== undefined) within('max_life_ms', max_life_ms, LEASE.min_ms, LEASE.max_life_ms);
  if (idle_ms !== undefined) within('idle_ms', idle_ms, LEASE.min_ms, LEASE.max_ms);
  if (ttl_ms && max_life_ms !== undefined && ttl_ms > max_life_ms)
    throw new BadInput({ what: 'ttl_ms', why: `it cannot live at least ${ttl_ms} ms and at most ${max_life_ms} ms` });
  return { heartbeat_ms, lease_ms };
}
