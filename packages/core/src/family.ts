/**
 * Clones of workers by workers: what the core does when an agent asks for one in the name of a worker of its own.
 *
 * What always holds: a clone is its parent's owner's, made with that owner's token while that lasts, and with no right
 * that the parent itself was not granted; it stays on its parent's node, where it ends with it; its isolation is no
 * weaker than its parent's, unless that owner had asked for less; it has the share of a core and the turns that were asked
 * for its parent. How many there may be is counted by the agent.
 */
import {
  BadInput,
  Forbidden,
  GrantMissing,
  type GrantRequest,
  type Grants,
  grantsWithin,
  type IsolationLevel,
  type Job,
  type Language,
  normaliseGrants,
  Unauthorised,
  WORKER_LANGUAGES,
  WorkerUnknown,
} from '@hauki/protocol';
import { isLanguage } from './modules.ts';
import { randomName } from './names.ts';
import type { Registry } from './registry.ts';
import { covers, type Principal, type Scope } from './rights.ts';
import type { SpawnRequest, Swarm } from './swarm.ts';

/** A worker that clones, living or being made. */
export type Parent = Pick<
  Job,
  'worker' | 'owner' | 'grants' | 'code' | 'min_isolation' | 'cpu' | 'turn_ms' | 'parent' | 'lasting'
> & {
  node: string;
  /** Of its own vault. */
  isolation?: IsolationLevel | undefined;
};

export interface FamilyPowers {
  registry: Registry;
  swarm: Pick<Swarm, 'order' | 'place'>;
  /** The token behind an owner's name; undefined where it has ended. */
  principal(owner: string): Principal | undefined;
}

type CloneRequest = Omit<SpawnRequest, 'audience'>;

const MEMBERS: Record<string, 'string' | 'number' | 'object'> = {
  pointer: 'string',
  source: 'string',
  language: 'string',
  driver: 'string',
  memory_mib: 'number',
  load_timeout_ms: 'number',
  grants: 'object',
};

/** A guest's request, as far as it is one. Throws BadInput. */
function requestOf(given: unknown): CloneRequest {
  if (typeof given !== 'object' || given === null)
    throw new BadInput({ what: 'clone', why: 'what is asked for must be an object' });
  const request: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    const type = Object.hasOwn(MEMBERS, name) ? MEMBERS[name] : undefined;
    if (type === undefined)
      throw new BadInput({ what: 'clone', why: `a clone has no ${JSON.stringify(name.slice(0, 64))}` });
    if (value === undefined || value === null) continue;
    if (typeof value !== type || Array.isArray(value))
      throw new BadInput({ what: `clone: ${name}`, why: `must be a ${type}` });
    if (type === 'number' && !(Number.isInteger(value) && (value as number) >= 0))
      throw new BadInput({ what: `clone: ${name}`, why: 'must be a whole number' });
    request[name] = value;
  }
  const { language } = request;
  if (language !== undefined && !isLanguage(language))
    throw new BadInput({ what: 'clone: language', why: `is one of ${WORKER_LANGUAGES.join(', ')}` });
  return request as CloneRequest & { language?: Language; grants?: GrantRequest };
}

/** Throws Forbidden unless the grants are within the parent's. */
function demandWithin({ worker, grants }: Parent, asked: Grants): void {
  const beyond = grantsWithin(grants, asked);
  if (beyond === undefined) return;
  const why = `A clone gets no more than its parent has: ${beyond.wanted} is beyond the grants of ${worker}, which has ${beyond.has}`;
  throw new Forbidden({ why, target: beyond.wanted });
}

/**
 * The owner's rights, as far as the parent was given them: what a clone of it is made with. Of pointers those that it may
 * read: what is under the others is nothing to it, though it may write there.
 */
export function parentRights(
  principal: Principal,
  { worker, grants, code }: Pick<Parent, 'worker' | 'grants' | 'code'>,
): Principal {
  const held: Scope[] = ['spawn', 'spawn.pointer', 'meshfs.read'];
  // What it is made of itself it may clone too.
  const own = [code?.pointer ?? [], (code?.modules ?? []).map(({ pointer }) => pointer)].flat();
  const { workers: _none, ...targets } = principal.targets;
  return {
    ...principal,
    called: `the worker ${worker}, which has what it was granted and no more,`,
    scopes: held.filter((scope) => covers(principal.scopes, scope)),
    targets: {
      ...targets,
      workers: [],
      pointers: [...new Set([...own, ...grants.meshfs.read])],
      fetch: [...grants.fetch.map(({ to }) => to), ...grants.connect],
    },
  };
}

export function createFamily({ registry, swarm, principal }: FamilyPowers) {
  // The agent ends a family itself; this is for one that has failed to.
  registry.watch({
    died({ worker }) {
      for (const child of registry.workers.values())
        if (child.parent === worker)
          void registry.nodes
            .get(child.node)
            ?.rpc.destruct(child.worker, `${worker}, which had cloned it, ended`)
            .catch(() => {});
    },
  });
  return {
    /** Makes a clone of `node`'s worker. Rejects as a clone does, with Forbidden where it would have more than its parent. */
    async clone(node: string, worker: string, given: unknown): Promise<{ worker: string }> {
      const present = (): Parent => {
        const parent = registry.parent(worker);
        if (parent?.node !== node) throw new WorkerUnknown({ worker });
        return parent;
      };
      const parent = present();
      if (parent.grants.clone === null) throw new GrantMissing({ grant: 'clone', wanted: 'a clone' });
      const owner = principal(parent.owner);
      if (!owner) throw new Unauthorised({ why: `The token that ${worker} was made with has ended` });
      const request = requestOf(given);
      const asked = normaliseGrants(request.grants);
      demandWithin(parent, asked);
      // Where it may write is settled with that: pointers that it is made of are only those that may be read.
      const readable = { ...request.grants, meshfs: { read: asked.meshfs.read } };
      const order = await swarm.order({ ...request, grants: readable }, parentRights(owner, parent), {
        source: 'spawn',
        pointer: 'spawn.pointer',
      });
      const grants = { ...order.job.grants, meshfs: asked.meshfs };
      // What is written in Python has more than was asked for; and the parent may have lost some meanwhile.
      demandWithin(present(), grants);
      // What its owner asked for, else what it has itself: code is not let out of its vault into a weaker one.
      const { min_isolation = parent.isolation ?? 'process', cpu, turn_ms } = parent;
      const bounds = { ...(cpu === undefined ? {} : { cpu }), ...(turn_ms === undefined ? {} : { turn_ms }) };
      const job = { ...order.job, ...bounds, grants, parent: worker, min_isolation };
      const { entry } = await swarm.place({ ...order, job }, { name: () => `w-${randomName(9)}`, only: node });
      return { worker: entry.worker };
    },
  };
}
