/** With a token, on demand, ends what was made with it or below it: workers, lasting ones too, and jobs. */
import { LIMITS } from '@hauki/protocol';
import type { Lasting } from './lasting/lasting.ts';
import type { Registry } from './registry.ts';
import { ADMIN } from './rights.ts';
import type { Spool } from './spool/spool.ts';

export interface Ended {
  workers: string[];
  jobs: string[];
  /** What could not be ended now: its node is away. It ends with its lease, or when somebody ends it. */
  left: string[];
}

export interface EndPowers {
  registry: Registry;
  lasting: Pick<Lasting, 'list' | 'remove'>;
  spool: Pick<Spool, 'owned' | 'cancel'>;
}

/** `tokens`: the ids that have ended. Jobs first, so that none begins another worker; then what lasts, then the rest. */
export async function endWorkers({ registry, lasting, spool }: EndPowers, tokens: readonly string[]): Promise<Ended> {
  const family = new Set(tokens);
  const theirs = (owner: string) => owner.split('/').some((id) => family.has(id));
  const ended: Ended = { workers: [], jobs: [], left: [] };
  const end = async (name: string, to: string[], act: () => Promise<unknown>) => {
    try {
      await act();
      to.push(name);
    } catch {
      ended.left.push(name);
    }
  };
  await inBatches(spool.owned(theirs), (job) => end(job, ended.jobs, () => spool.cancel(job, ADMIN)));
  const lasts = lasting.list(ADMIN).filter(({ owner }) => theirs(owner));
  await inBatches(lasts, ({ worker }) => end(worker, ended.workers, () => lasting.remove(worker, ADMIN)));
  const living = [...registry.workers.values()].filter(({ owner, lasting: lasts }) => !lasts && theirs(owner));
  await inBatches(living, ({ worker }) =>
    end(worker, ended.workers, async () =>
      registry.home(worker).rpc.destruct(worker, 'its token was revoked', undefined, 'token_revoked'),
    ),
  );
  return ended;
}

async function inBatches<T>(all: readonly T[], act: (one: T) => Promise<void>): Promise<void> {
  for (let at = 0; at < all.length; at += LIMITS.spool_running)
    await Promise.all(all.slice(at, at + LIMITS.spool_running).map(act));
}
