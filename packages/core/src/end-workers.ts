/**
 * With a token, on demand, ends what was made with it or below it: workers, lasting ones too, and jobs; also what was
 * still being made. It looks again as long as it finds something: a request may have been on its way when it looked.
 */
import { isError, JobEnded, LIMITS, WorkerUnknown } from '@hauki/protocol';
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
  lasting: Pick<Lasting, 'owned' | 'remove'>;
  spool: Pick<Spool, 'owned' | 'cancel'>;
}

/** With tokens that have ended nothing begins any more, so that a second look finds little, and a third nothing. */
const LOOKS = 5;

/** `tokens`: the ids that have ended. Jobs first, so that none begins another worker; then what lasts, then the rest. */
export async function endWorkers({ registry, lasting, spool }: EndPowers, tokens: readonly string[]): Promise<Ended> {
  const family = new Set(tokens);
  const theirs = (owner: string) => owner.split('/').some((id) => family.has(id));
  const ended: Ended = { workers: [], jobs: [], left: [] };
  const tried = new Set<string>();
  const end = (names: string[], to: string[], act: (name: string) => Promise<unknown>) => {
    const fresh = names.filter((name) => !tried.has(name));
    for (const name of fresh) tried.add(name);
    return inBatches(fresh, async (name) => {
      try {
        await act(name);
        to.push(name);
      } catch (error) {
        // It has ended by itself, or was never born.
        if (!isError(error, WorkerUnknown) && !isError(error, JobEnded)) ended.left.push(name);
      }
    });
  };
  for (let looks = 0, before = -1; looks < LOOKS && tried.size > before; looks++) {
    before = tried.size;
    await end(spool.owned(theirs), ended.jobs, (job) => spool.cancel(job, ADMIN));
    await end(lasting.owned(theirs), ended.workers, (worker) => lasting.remove(worker, ADMIN));
    const rest = [...registry.workers.values(), ...registry.forging.values()].filter(
      ({ owner, lasting: lasts }) => !lasts && theirs(owner),
    );
    // Of one that is being made the node answers when it has ended it.
    await end([...new Set(rest.map(({ worker }) => worker))], ended.workers, async (worker) => {
      const node = registry.forging.get(worker)?.node;
      const home = node === undefined ? registry.home(worker) : registry.nodes.get(node);
      if (!home) throw new WorkerUnknown({ worker });
      await home.rpc.destruct(worker, 'its token was revoked', undefined, 'token_revoked');
    });
  }
  return ended;
}

async function inBatches<T>(all: readonly T[], act: (one: T) => Promise<void>): Promise<void> {
  for (let at = 0; at < all.length; at += LIMITS.spool_running)
    await Promise.all(all.slice(at, at + LIMITS.spool_running).map(act));
}
