/** Placing a worker: what the node answers is about the job that it was given, and about nothing else. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, type Job, NO_GRANTS, type Provisioned, WorkerDied } from '@hauki/protocol';
import { type RegisteredNode, Registry } from '../src/registry.ts';
import { Swarm, type SwarmPowers } from '../src/swarm.ts';
import { Vouchers } from '../src/vouchers.ts';

function swarmOver(answer: (job: Job, registry: Registry) => Partial<Provisioned>) {
  const registry = new Registry();
  const events: string[] = [];
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
        destruct: async () => true,
      },
    } as unknown as RegisteredNode,
    [],
  );
  const swarm = new Swarm({
    registry,
    office: { vouchers },
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
  const place = () => swarm.place({ job, labels: {}, nodes: ['*'] }, { name: () => 'w-one' });
  return { registry, events, place };
}

describe('a worker that is placed', () => {
  it('is the one that was asked for, whatever name and epoch its node answers with', async () => {
    const { registry, place } = swarmOver(() => ({ worker: 'bank', epoch: 99 }));
    const { entry, made } = await place();
    assert.deepEqual([entry.worker, entry.epoch, made.worker, made.epoch], ['w-one', 1, 'w-one', 1]);
    assert.deepEqual([...registry.workers.keys()], ['w-one']);
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
});
