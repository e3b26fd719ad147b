/** Placing a worker: what the node answers is about the job that it was given, and about nothing else. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  ConnectionLost,
  type Grants,
  isError,
  type Job,
  NO_GRANTS,
  Overloaded,
  type Provisioned,
  VaultFailed,
  WorkerDied,
} from '@hauki/protocol';
import { type RegisteredNode, type RegisteredWorker, Registry } from '../src/registry.ts';
import { Swarm, type SwarmPowers } from '../src/swarm.ts';
import { Vouchers } from '../src/vouchers.ts';

function swarmOver(answer: (job: Job, registry: Registry) => Partial<Provisioned>) {
  const registry = new Registry();
  const events: string[] = [];
  const ended: unknown[][] = [];
  const issued: string[] = [];
  let minting = (_worker: string) => {};
  const vouchers = new Vouchers('k');
  registry.register(
    {
      info: {
        node: 'north',
        labels: {},
        drivers: { quickjs: { available: true, isolation: '', level: 'vm' } },
        memory_mib: 1_024,
        cores: 1,
      },
      load: { workers: 0, memory_used_mib: 0, cpu: 0 },
      rpc: {
        provision: async (job: Job) => {
          assert.equal(vouchers.read(job.voucher)!.worker, job.worker);
          const { worker, driver, epoch = 1 } = job;
          return { worker, driver, epoch, isolation: 'vm', direct: {}, ticket: {}, ...answer(job, registry) };
        },
        destruct: async (...told: unknown[]) => ended.push(told) > 0,
        mint_ticket: async (worker: string) => {
          minting(worker);
          return { jti: 'ticket', role: 'visitor' };
        },
      },
    } as unknown as RegisteredNode,
    [],
  );
  const swarm = new Swarm({
    registry,
    office: { vouchers, sign: async () => ({}) },
    callers: { issued: (jti: string) => issued.push(jti) },
    quotas: { reserve: () => () => {} },
    event: (name: string) => events.push(name),
    random: () => 0,
  } as unknown as SwarmPowers);
  const job = {
    owner: 'ada',
    source: '',
    language: 'javascript' as const,
    grants: NO_GRANTS,
    lease: { heartbeat_ms: 1, lease_ms: 2 },
    ttl_ms: 0,
    load_timeout_ms: 1,
  };
  const place = (more: Partial<Job> = {}) =>
    swarm.place({ job: { ...job, ...more }, labels: {}, nodes: ['*'] }, { name: () => 'w-one' });
  const visits = (meanwhile: typeof minting = () => {}) => {
    minting = meanwhile;
    return swarm.visitorTicket('w-one', 'audience', 'bob');
  };
  return { registry, events, ended, issued, place, visits };
}

describe('a worker that is placed', () => {
  it('is the one that was asked for, whatever name and epoch its node answers with', async () => {
    const { registry, place } = swarmOver(() => ({ worker: 'bank', epoch: 99 }));
    const { entry, made } = await place();
    assert.deepEqual([entry.worker, entry.epoch, made.worker, made.epoch], ['w-one', 1, 'w-one', 1]);
    assert.deepEqual([...registry.workers.keys()], ['w-one']);
  });

  it('that ends while a ticket to it is made is noted nowhere, since nobody would forget it', async () => {
    const { registry, issued, place, visits } = swarmOver(() => ({}));
    await place();
    await visits();
    await visits((worker) =>
      registry.died({ worker, owner: 'ada', cause: 'exited', reason: '', at: 0, lines: [], epoch: 1 }),
    );
    assert.deepEqual(issued, ['ticket']);
  });

  it('is refused to its caller when news of its end came before that of its birth', async () => {
    const { registry, events, place } = swarmOver(({ worker, owner }, registry) => {
      registry.died({ worker, owner, cause: 'exited', reason: 'it fell', at: 0, lines: [], epoch: 1 });
      return {};
    });
    await assert.rejects(place(), (error) => isError(error, WorkerDied) && /it fell/.test(error.message));
    assert.equal(registry.workers.size, 0);
    assert.ok(!events.includes('WORKER_BORN'));
    assert.equal(registry.nodes.get('north')!.load.workers, 0, 'its room is given back');
  });

  it('is ended in its own start where its node failed, and not where that had no place for it', async () => {
    for (const [error, most] of [
      [new VaultFailed({ driver: 'quickjs', reason: 'r' }), [['w-one', 'its clone failed', 1]]],
      [new ConnectionLost({ why: 'w' }), [['w-one', 'its clone failed', 1]]],
      [new Overloaded({ what: 'workers named w-one on one node', limit: 1 }), []],
    ] as const) {
      const { ended, place } = swarmOver(() => {
        throw error;
      });
      await assert.rejects(place());
      assert.deepEqual(ended, most, error.name);
    }
  });

  it('has no more than its parent, also where that lost some before and while it was being made', async () => {
    const reading = (...read: string[]): Grants => ({ ...NO_GRANTS, meshfs: { read, write: [] } });
    const [one, two, three] = ['gem-pointer://a/1', 'gem-pointer://a/2', 'gem-pointer://a/3'] as const;
    let asked: string[] = [];
    const { registry, place } = swarmOver(({ grants }, registry) => {
      asked = grants.meshfs.read;
      registry.regranted('w-parent', reading(one), 'north');
      assert.deepEqual(registry.parent('w-one')!.grants.meshfs.read, [one], 'while it is being made');
      return {};
    });
    const parent = { worker: 'w-parent', owner: 'ada', node: 'north', epoch: 1, grants: reading(one, two) };
    registry.workers.set('w-parent', parent as RegisteredWorker);
    const { entry } = await place({ parent: 'w-parent', grants: reading(one, two, three) });
    assert.deepEqual(asked, [one, two]);
    assert.deepEqual(entry.grants.meshfs.read, [one]);
    registry.regranted('w-parent', NO_GRANTS, 'north');
    assert.deepEqual(registry.workers.get('w-one')!.grants.meshfs.read, [], 'and once it lives');
  });
});
