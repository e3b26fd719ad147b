/**
 * Vouchers: what the core says of a worker when it places it, for the node to keep with the worker and to give back
 * whenever it tells of it. So a core that was killed knows again whose a worker is and what it may, without a record of
 * each, and without a node's word for it.
 *
 * What always holds: what gives rights, or is counted against somebody, is taken from a voucher, never from what a node
 * says beside it; a voucher holds for one worker, one start of it, and one node. It is a MAC (HMAC-SHA256) by a key that
 * is derived from the core's own and leaves it nowhere; nobody but the core has to read one.
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { cutGrants, type Job, type WorkerInfo } from '@hauki/protocol';

/** What the core itself knows of a worker, for it has settled it. */
export type Vouched = Pick<
  WorkerInfo,
  | 'worker'
  | 'epoch'
  | 'owner'
  | 'driver'
  | 'memory_mib'
  | 'grants'
  | 'lease'
  | 'lasting'
  | 'code'
  | 'parent'
  | 'min_isolation'
  | 'cpu'
  | 'turn_ms'
> & { node: string };

const MAC_CHARS = 43;

/** What is vouched for, of a job or of a worker, and nothing else of it. */
export function vouchedOf(job: Omit<Vouched, 'epoch' | 'node'> & { epoch?: number }, node: string): Vouched {
  const { worker, epoch = 1, owner, driver, memory_mib, grants, lease, lasting, code, parent, min_isolation } = job;
  const { cpu, turn_ms } = job;
  return {
    ...{ worker, node, epoch, owner, driver, memory_mib, grants, lease },
    ...(lasting ? { lasting } : {}),
    ...(code ? { code } : {}),
    ...(parent ? { parent } : {}),
    ...(min_isolation ? { min_isolation } : {}),
    ...(cpu === undefined ? {} : { cpu }),
    ...(turn_ms === undefined ? {} : { turn_ms }),
  };
}

/** A worker as the core takes it from a node's word: with the rights that are vouched for, and no more than it says. */
export function believed(told: WorkerInfo, sure: Vouched): WorkerInfo & { node: string } {
  const { isolation, direct, pid, born_at, lease_until, cpu, turn_ms, paused_at, ends_at, idle_ms, usage } = told;
  const optional = { paused_at, ends_at, idle_ms, usage };
  return {
    // The vouchers of an earlier core do not say these two.
    ...vouchedOf({ cpu, turn_ms, ...sure }, sure.node),
    // Some may have been taken from it since it was placed.
    grants: cutGrants(told.grants, sure.grants),
    ...{ isolation, direct, pid, born_at, lease_until },
    ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)),
  };
}

export class Vouchers {
  readonly #key: Uint8Array;

  /** `secret`: the core's own key, which outlives its process. */
  constructor(secret: string) {
    this.#key = new Uint8Array(hkdfSync('sha256', secret, '', 'hauki worker voucher', 32));
  }

  /** What a node gets along with a job. */
  sign(job: Job, node: string): string {
    const text = JSON.stringify(vouchedOf(job, node));
    return this.#mac(text) + text;
  }

  /** What is vouched for; undefined for what this core has not signed. */
  read(voucher: unknown): Vouched | undefined {
    if (typeof voucher !== 'string' || voucher.length <= MAC_CHARS) return undefined;
    const text = voucher.slice(MAC_CHARS);
    const told = Buffer.from(voucher.slice(0, MAC_CHARS));
    const right = Buffer.from(this.#mac(text));
    if (told.length !== right.length || !timingSafeEqual(told, right)) return undefined;
    return JSON.parse(text) as Vouched;
  }

  #mac(text: string): string {
    return createHmac('sha256', this.#key).update(text).digest('base64url');
  }
}
