/** The effects of the grant `clone`: making workers, calling them and ending them. The agent and the core do it. */
import { BadInput, GrantMissing, LIMITS } from '@hauki/protocol';
import type { EffectMaker } from './effect.ts';

/** What the agent does for a worker that clones others. */
export interface FamilyPowers {
  /** `request` is a stranger's. Rejects as a clone does, and with QuotaExceeded. */
  clone(request: object): Promise<{ worker: string }>;
  /** Rejects with WorkerDied or WorkerUnknown for what is no living clone of the worker's own. */
  call(
    child: string,
    method: string,
    args: unknown[],
    options: { timeout_ms: number; signal: AbortSignal },
  ): Promise<unknown>;
  /** Resolves when nothing of it is left. */
  destruct(child: string): Promise<void>;
}

export const cloneEffects: EffectMaker = (vault) => {
  const named = (what: string, name: unknown): string => {
    if (typeof name === 'string' && name.length <= 256) return name;
    throw new BadInput({ what, why: 'that is not a name' });
  };
  const family = (): FamilyPowers => {
    if (vault.family) return vault.family;
    throw new GrantMissing({ grant: 'clone', wanted: 'a clone' });
  };
  return {
    clone([request]) {
      if (vault.grants.clone === null) throw new GrantMissing({ grant: 'clone', wanted: 'a clone' });
      if (typeof request !== 'object' || request === null)
        throw new BadInput({ what: 'clone', why: 'it does not say what to clone' });
      return family().clone(request);
    },
    'clone.call'([child, method, args, timeout_ms], signal) {
      if (!Array.isArray(args)) throw new BadInput({ what: 'clone', why: 'arguments come as a list' });
      const least = Math.min(
        typeof timeout_ms === 'number' && timeout_ms > 0 ? timeout_ms : LIMITS.call_ms,
        LIMITS.call_ms,
      );
      return family().call(named('clone', child), named('method', method), args, { timeout_ms: least, signal });
    },
    'clone.destruct': ([child]) => family().destruct(named('clone', child)),
  };
};
