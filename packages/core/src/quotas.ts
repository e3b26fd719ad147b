/**
 * Quotas of tokens: how many vaults at once, how much memory together, how many clones in a minute. Each counts for the
 * token and for everything below it.
 *
 * What always holds: looking and taking happen in one step, so that no burst passes; what was taken is counted, in turn
 * as reservation and as living worker, until the worker's end. Living workers are counted in the registry's picture: of a
 * node that is away they count until they are taken for dead.
 */
import { BadInput, Forbidden, LIMITS, QuotaExceeded, type QuotaUse, type TokenQuota } from '@hauki/protocol';

export interface QuotaPowers {
  /** The quota of a token by its id; undefined for one without, and for the two of the core's start. */
  quota(token: string): Readonly<TokenQuota> | undefined;
  /** Living workers. */
  workers(): Iterable<{ owner: string; memory_mib: number }>;
  /** Milliseconds, steady. */
  now?: () => number;
}

/** No bounds but those of the nodes. */
export const NO_QUOTA: TokenQuota = { vaults: null, memory_mib: null, clones_per_minute: null };
const MOST: Record<keyof TokenQuota, number> = {
  vaults: LIMITS.quota,
  memory_mib: LIMITS.quota,
  clones_per_minute: LIMITS.quota_clones,
};
const KINDS = Object.keys(MOST) as (keyof TokenQuota)[];

/** The least of several quotas, kind by kind: what holds below all of them. */
export function leastOf(quotas: readonly TokenQuota[]): TokenQuota {
  const least = { ...NO_QUOTA };
  for (const kind of KINDS)
    for (const { [kind]: limit } of quotas) if (limit !== null) least[kind] = Math.min(limit, least[kind] ?? limit);
  return least;
}

/** The quota of a narrower token. Throws BadInput for what is none, Forbidden for more than its maker may have. */
export function narrowQuota(maker: TokenQuota, asked: Partial<TokenQuota> = {}): TokenQuota {
  const made = { ...NO_QUOTA };
  for (const kind of KINDS) {
    const limit = asked[kind] ?? null;
    if (limit === null) continue;
    if (!Number.isSafeInteger(limit) || limit < 1 || limit > MOST[kind])
      throw new BadInput({ what: `quota.${kind}`, why: `a whole number from 1 to ${MOST[kind]}` });
    const most = maker[kind];
    if (most !== null && limit > most)
      throw new Forbidden({
        why: `A token cannot give a quota of ${limit} ${kind}: it may have ${most} itself`,
        target: `quota.${kind}`,
      });
    made[kind] = limit;
  }
  return made;
}

const MINUTE_MS = 60_000;
const NOTHING = { vaults: 0, memory_mib: 0 };

export class Quotas {
  readonly #powers: QuotaPowers;
  readonly #now: () => number;
  readonly #reserved = new Set<{ owner: string; memory_mib: number }>();
  /** When clones began, of tokens that have a rate; no more than the rate. */
  readonly #clones = new Map<string, number[]>();

  constructor(powers: QuotaPowers) {
    this.#powers = powers;
    this.#now = powers.now ?? (() => performance.now());
  }

  /**
   * Takes room for one vault of an owner, or throws QuotaExceeded. `counts`: whether it counts as a clone of this minute;
   * starting a worker again does not. The result gives the room back, once the worker lives or is not to be.
   */
  reserve(owner: string, memory_mib: number, counts: boolean): () => void {
    const limited = owner
      .split('/')
      .map((token) => ({ token, quota: this.#powers.quota(token) }))
      .filter((one) => one.quota !== undefined);
    for (const { token, quota } of limited) {
      const used = this.used(token);
      const check = (what: string, limit: number | null, used: number, asked: number, wait?: () => number) => {
        if (limit === null || used + asked <= limit) return;
        const fields = { what: `${what} of the token ${token}`, limit, used, asked };
        throw new QuotaExceeded(wait ? { ...fields, wait_ms: wait() } : fields);
      };
      check('vaults at once', quota!.vaults, used.vaults, 1);
      check('MiB of memory together', quota!.memory_mib, used.memory_mib, memory_mib);
      const { clones_per_minute } = quota!;
      if (counts && clones_per_minute !== null)
        check('clones in a minute', clones_per_minute, used.clones_last_minute, 1, () =>
          this.#wait(token, clones_per_minute),
        );
    }
    if (counts)
      for (const { token, quota } of limited)
        if (quota!.clones_per_minute !== null) this.#recent(token).push(this.#now());
    const taken = { owner, memory_mib };
    this.#reserved.add(taken);
    return () => void this.#reserved.delete(taken);
  }

  /** What a token and all below it have taken. */
  used(token: string): QuotaUse {
    let vaults = 0;
    let memory_mib = 0;
    for (const all of [this.#powers.workers(), this.#reserved])
      for (const one of all)
        if (one.owner.split('/').includes(token)) {
          vaults += 1;
          memory_mib += one.memory_mib;
        }
    return { vaults, memory_mib, clones_last_minute: this.#lastMinute(token) };
  }

  /** The same for whichever tokens are asked for, of one look at all workers: a list of tokens may be long. */
  usedNow(): (token: string) => QuotaUse {
    const taken = new Map<string, { vaults: number; memory_mib: number }>();
    for (const all of [this.#powers.workers(), this.#reserved])
      for (const one of all)
        for (const token of one.owner.split('/')) {
          const { vaults, memory_mib } = taken.get(token) ?? NOTHING;
          taken.set(token, { vaults: vaults + 1, memory_mib: memory_mib + one.memory_mib });
        }
    return (token) => ({ ...(taken.get(token) ?? NOTHING), clones_last_minute: this.#lastMinute(token) });
  }

  /** A token has ended. */
  forget(token: string): void {
    this.#clones.delete(token);
  }

  #lastMinute = (token: string): number => (this.#clones.has(token) ? this.#recent(token).length : 0);

  /** How long until one more clone of the token is allowed. */
  #wait(token: string, limit: number): number {
    const first = this.#recent(token).at(-limit);
    return first === undefined ? 0 : Math.max(0, first + MINUTE_MS - this.#now());
  }

  #recent(token: string): number[] {
    const since = this.#now() - MINUTE_MS;
    const recent = (this.#clones.get(token) ?? []).filter((at) => at > since).slice(-LIMITS.quota);
    this.#clones.set(token, recent);
    return recent;
  }
}
