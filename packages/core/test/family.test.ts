/** Clones of workers by workers, as the core makes them: with no more than their parent has, and held no weaker. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BadInput,
  type ErrorClass,
  Forbidden,
  GrantMissing,
  type GrantRequest,
  isError,
  normaliseGrants,
  Unauthorised,
  WorkerUnknown,
} from '@hauki/protocol';
import { createFamily } from '../src/family.ts';
import { type RegisteredNode, type RegisteredWorker, Registry } from '../src/registry.ts';
import { ADMIN, type Principal } from '../src/rights.ts';
import type { Order, PlaceOptions, Swarm } from '../src/swarm.ts';

const granted = (request: GrantRequest) => normaliseGrants({ clone: 2, ...request });
const refused = (promise: Promise<unknown>, kind: ErrorClass<any>) =>
  assert.rejects(promise, (error: Error) => isError(error, kind) || assert.fail(`${error.name}: ${error.message}`));

function setUp(parent: Partial<RegisteredWorker> = {}, owner: Principal | undefined = ADMIN) {
  const registry = new Registry();
  const ended: string[] = [];
  const rpc = { destruct: async (worker: string) => ended.push(worker) > 0 };
  const node = { info: { node: 'north', drivers: {} }, load: { workers: 0, memory_used_mib: 0, cpu: 0 }, rpc };
  registry.register(node as unknown as RegisteredNode, []);
  const has = (worker: string, more: Partial<RegisteredWorker> = {}) => {
    const all = { worker, owner: 'admin', node: 'north', epoch: 1, isolation: 'vm', grants: granted({}), ...more };
    registry.workers.set(worker, all as RegisteredWorker);
  };
  has('w-parent', parent);
  const asked: Principal[] = [];
  const placed: [Order, PlaceOptions][] = [];
  const swarm = {
    order: async ({ grants }: { grants?: GrantRequest }, principal: Principal) => {
      asked.push(principal);
      return { job: { owner: principal.name, grants: normaliseGrants(grants) } };
    },
    place: async (order: Order, options: PlaceOptions) => {
      placed.push([order, options]);
      return { entry: { worker: options.name() } };
    },
  };
  const family = createFamily({ registry, swarm: swarm as unknown as Swarm, principal: () => owner });
  const clone = (request: object = {}, of = 'north') => family.clone(of, 'w-parent', { source: 'x', ...request });
  return { registry, swarm, family, ended, asked, placed, has, clone };
}

describe('a clone of a worker', () => {
  it('is made for its own node alone, while it and its token are there, where it may clone', async () => {
    const { clone, placed } = setUp();
    const { worker } = await clone();
    assert.match(worker, /^w-/);
    assert.deepEqual([placed[0]![1].only, placed[0]![0].job.parent], ['north', 'w-parent']);
    await refused(clone({}, 'south'), WorkerUnknown);
    await refused(setUp({ grants: normaliseGrants({}) }).clone(), GrantMissing);
    const { family } = setUp();
    for (const request of [null, undefined, 'x', 5])
      await refused(family.clone('north', 'w-parent', request), BadInput);
    const gone = setUp();
    gone.registry.workers.clear();
    await refused(gone.clone(), WorkerUnknown);
    const { registry } = setUp();
    const nobody = createFamily({ registry, swarm: {} as Swarm, principal: () => undefined });
    await refused(nobody.clone('north', 'w-parent', {}), Unauthorised);
  });

  it('is asked for with what its parent was granted of its owner’s rights, and no more', async () => {
    const grants = granted({ fetch: ['a.example:443'], meshfs: { read: ['gem-pointer://wiki/a/'] } });
    const { clone, asked } = setUp({ grants, code: { pointer: 'gem-pointer://wiki/me' } as never });
    await clone();
    const [{ scopes, targets, name }] = asked as [Principal];
    assert.deepEqual([name, scopes], ['admin', ['spawn', 'spawn.pointer', 'meshfs.read']]);
    assert.deepEqual(targets, {
      workers: [],
      pointers: ['gem-pointer://wiki/me', 'gem-pointer://wiki/a/'],
      nodes: ['*'],
      fetch: ['a.example:443'],
    });
  });

  it('may write where its parent may, and is made of nothing there', async () => {
    const write = ['gem-pointer://inbox/'];
    const { clone, asked, placed } = setUp({ grants: granted({ meshfs: { write } }) });
    await clone({ grants: { meshfs: { write: ['gem-pointer://inbox/a'] }, clone: 1 } });
    assert.deepEqual(asked[0]!.targets.pointers, []);
    const { meshfs, clone: clones } = placed[0]![0].job.grants;
    assert.deepEqual([meshfs, clones?.live], [{ read: [], write: ['gem-pointer://inbox/a'] }, 1]);
    await refused(clone({ grants: { meshfs: { write: ['gem-pointer://other/'] } } }), Forbidden);
    await refused(clone({ grants: { meshfs: { read: write } } }), Forbidden);
  });

  it('is refused what its parent does not have, or has lost while it was asked for', async () => {
    const grants = granted({ connect: ['a.example:1'] });
    const { clone, asked, swarm, placed, has } = setUp({ grants });
    await refused(clone({ grants: { connect: ['b.example:1'] } }), Forbidden);
    assert.equal(asked.length, 0);
    await clone({ grants: { connect: ['a.example:1'] } });
    const { order } = swarm;
    swarm.order = async (...request) => {
      has('w-parent');
      return order(...request);
    };
    await refused(clone({ grants: { connect: ['a.example:1'] } }), Forbidden);
    assert.equal(placed.length, 1);
  });

  it('is held no weaker than its parent, unless that one’s owner had asked for less', async () => {
    for (const [parent, least] of [
      [{ isolation: 'container' }, 'container'],
      [{ isolation: 'container', min_isolation: 'vm' }, 'vm'],
      [{ isolation: undefined }, 'process'],
    ] as const) {
      const { clone, placed } = setUp(parent as Partial<RegisteredWorker>);
      await clone();
      assert.equal(placed[0]![0].job.min_isolation, least);
    }
  });

  it('has the share of a core and the turns that its parent has, and asks for none of its own', async () => {
    for (const bounds of [{ cpu: 0.2, turn_ms: 50 }, { cpu: 0.5 }, {}]) {
      const { clone, placed } = setUp(bounds);
      await clone();
      const { cpu, turn_ms } = placed[0]![0].job;
      assert.deepEqual({ cpu, turn_ms }, { cpu: undefined, turn_ms: undefined, ...bounds });
    }
    for (const more of [{ cpu: 1 }, { turn_ms: 5_000 }]) await refused(setUp().clone(more), BadInput);
  });

  it('ends with its parent, also where its node has failed to see to it', async () => {
    const { registry, has, ended } = setUp();
    has('w-child', { parent: 'w-parent' });
    has('w-other', { parent: 'w-another' });
    registry.died({ worker: 'w-parent', owner: 'admin', cause: 'exited', reason: '', at: 0, lines: [], epoch: 1 });
    assert.deepEqual(ended, ['w-child']);
  });
});
