/**
 * Families: which worker was cloned by which, and how much of its grant `clone` each has used.
 *
 * What always holds: whoever is made or lives on this node is a member, from before its vault is started until nothing
 * of it is left; a clone is counted by its parent and by all above it, so that no chain of clones has more than the first
 * one was granted; looking and counting happen in one step; a clone has no more than its parent,
 * from the moment it joins. A family stays on one node, where its end is certain.
 */
import {
  type CloneGrant,
  cutGrants,
  type Fate,
  GrantMissing,
  type Job,
  QuotaExceeded,
  WorkerDied,
  WorkerUnknown,
} from '@hauki/protocol';
import { keepNewest } from '@hauki/rpc';
import { type Allowance, createRates } from '@hauki/vault';

/** Ends of a worker's clones that it can still ask after. */
const ENDS = 64;

interface Member {
  /** How often it and all below it did of late what has a rate. */
  rates: Allowance['rates'];
  job: Pick<Job, 'worker' | 'grants' | 'memory_mib' | 'parent'>;
  children: Set<string>;
  /** Its living clones and theirs, ever, and the memory of the living. */
  live: number;
  total: number;
  memory_mib: number;
  ends: Map<string, Pick<Fate, 'cause' | 'reason'>>;
  /** Those that count it, its parent first: also after some of them have left before it. */
  above: readonly Member[];
}

export class Families {
  readonly #members = new Map<string, Member>();

  /** Rejects a clone whose parent is gone, or that is more than its parent, or one above it, was granted. */
  join(job: Job): void {
    const above = this.#above(job.parent);
    for (const member of above) this.#check(member, job.memory_mib);
    for (const member of above) {
      member.live++;
      member.total++;
      member.memory_mib += job.memory_mib;
    }
    if (job.parent !== undefined) this.#members.get(job.parent)!.children.add(job.worker);
    const none = { live: 0, total: 0, memory_mib: 0, rates: createRates() };
    // Its parent may have lost some since the core looked.
    const grants = above[0] ? cutGrants(above[0].job.grants, job.grants) : job.grants;
    this.#members.set(job.worker, { ...none, job: { ...job, grants }, children: new Set(), ends: new Map(), above });
  }

  /** Nothing of it is left. Gives its clones, which must end too. */
  leave(worker: string, end: Pick<Fate, 'cause' | 'reason'>): string[] {
    const member = this.#members.get(worker);
    if (!member) return [];
    this.#members.delete(worker);
    for (const one of member.above) {
      one.live--;
      one.memory_mib -= member.job.memory_mib;
    }
    const home = member.above[0];
    if (home?.children.delete(worker)) {
      home.ends.set(worker, end);
      keepNewest(home.ends, ENDS);
    }
    return [...member.children];
  }

  /** Its grants are others from now on. */
  regrant(worker: string, grants: Job['grants']): void {
    const member = this.#members.get(worker);
    if (member) member.job = { ...member.job, grants };
  }

  /** What a member has now. */
  grantsOf(worker: string): Job['grants'] {
    return this.#memberOf(worker).job.grants;
  }

  /** What all that it does counts against: what it may do itself, and all above it; its own first. */
  allowancesOf(worker: string): readonly Allowance[] {
    const member = this.#memberOf(worker);
    return [member, ...member.above].map(({ job, rates }) => ({ worker: job.worker, grants: job.grants, rates }));
  }

  /** Its clones that are not gone, now and whenever it is looked at, also when the worker itself is gone. */
  familyOf(worker: string): Iterable<string> {
    return this.#members.get(worker)?.children ?? [];
  }

  childrenOf(worker: string): string[] {
    return [...(this.#members.get(worker)?.children ?? [])];
  }

  /** Whether the parent of a worker that was cloned is still there; true where it was not cloned. */
  isWanted({ parent }: Pick<Job, 'parent'>): boolean {
    return parent === undefined || this.#members.has(parent);
  }

  /** Throws unless `child` is a clone of `parent` that lives, or is being made. */
  demandChild(parent: string, child: string): void {
    const member = this.#members.get(parent);
    if (member?.children.has(child)) return;
    const end = member?.ends.get(child);
    throw end ? new WorkerDied({ worker: child, ...end }) : new WorkerUnknown({ worker: child });
  }

  #memberOf(worker: string): Member {
    const member = this.#members.get(worker);
    if (!member) throw new WorkerUnknown({ worker });
    return member;
  }

  #above(parent: string | undefined): Member[] {
    const found: Member[] = [];
    for (let name = parent; name !== undefined; ) {
      // Nobody outlives its parent by more than a moment, in which it clones nothing.
      const member = this.#memberOf(name);
      found.push(member);
      name = member.job.parent;
    }
    return found;
  }

  #check({ job: { worker, grants }, live, total, memory_mib }: Member, more_mib: number): void {
    const { clone } = grants;
    if (!clone) throw new GrantMissing({ grant: 'clone', wanted: `a clone of ${worker}` });
    const within = (kind: keyof CloneGrant, what: string, used: number, asked: number) => {
      const limit = clone[kind];
      if (used + asked > limit)
        throw new QuotaExceeded(
          { what: `clone.${kind}`, limit, used, asked },
          `The grant clone of ${worker} does not allow this: ${what} would be ${used + asked} of ${limit}`,
        );
    };
    within('live', 'its living clones', live, 1);
    within('total', 'its clones, ended ones included,', total, 1);
    within('memory_mib', 'the memory of its living clones (MiB)', memory_mib, more_mib);
  }
}
