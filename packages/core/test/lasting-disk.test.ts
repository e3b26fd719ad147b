/** Lasting workers where the disk refuses, and where somebody sets the clock. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KeyValue } from '@hauki/backplane';
import { isError, LIMITS, NO_GRANTS, StorageFailed } from '@hauki/protocol';
import { Lasting, type LastingPowers } from '../src/lasting/lasting.ts';
import { type RegisteredNode, type RegisteredWorker, Registry } from '../src/registry.ts';
import { ADMIN } from '../src/rights.ts';
import { useStore } from './store.ts';

const refuses = () => Promise.reject(new StorageFailed({ what: 'the disk is full' }));
const RESTART = { first_ms: 1, most_ms: 5, stable_ms: 1_000 };

describe('a lasting worker', () => {
  const store = useStore();

  /** One node, which has what is placed there until it is told to end it. */
  const setUp = (kv: KeyValue, powers: Partial<LastingPowers> = {}) => {
    const registry = new Registry();
    const alive = new Set<string>();
    const node = {
      ...{ info: { node: 'one', labels: {}, drivers: {}, memory_mib: 64, cores: 1 }, since: 0 },
      load: { workers: 0, memory_used_mib: 0, cpu: 0 },
      rpc: {
        async destruct(worker: string, reason: string, epoch: number) {
          registry.died({ worker, owner: 'admin', cause: 'destructed', reason, at: 0, lines: [], epoch });
          return alive.delete(worker);
        },
      },
    } as unknown as RegisteredNode;
    registry.register(node, []);
    let placed = () => {};
    const swarm = {
      order: async () => ({
        ...{ job: { source: '', language: 'javascript', grants: NO_GRANTS, load_timeout_ms: 1 } },
        ...{ labels: {}, nodes: ['*'] },
      }),
      place: async (_order: unknown, { name, chosen }: any) => {
        const { epoch } = await chosen(name(), node, 'quickjs');
        alive.add(name());
        const born = { worker: name(), owner: 'admin', epoch, node: 'one', lasting: true, grants: NO_GRANTS };
        registry.born(born as unknown as RegisteredWorker);
        placed();
      },
    } as unknown as LastingPowers['swarm'];
    const lasting = new Lasting({
      ...{ kv, registry, swarm, event: () => {}, node_grace_ms: 5, restart: RESTART },
      ...powers,
    });
    const onPlaced = (call: () => void) => {
      placed = call;
    };
    return { lasting, registry, alive, node, onPlaced };
  };

  it('that the disk does not take after it has started is ended, its name is free, and the disk is told later', async () => {
    const kv = store.kv('filling');
    let full = false;
    const filling: KeyValue = Object.assign(Object.create(kv), {
      put: (...args: Parameters<KeyValue['put']>) => (full ? refuses() : kv.put(...args)),
    });
    const { lasting, alive, onPlaced } = setUp(filling);
    await lasting.open();
    onPlaced(() => {
      full = true;
    });
    await assert.rejects(lasting.provision({ name: 'keeper', source: '' }, ADMIN), (e) => isError(e, StorageFailed));
    assert.deepEqual([[...alive], lasting.list(ADMIN)], [[], []]);
    full = false;
    onPlaced(() => {});
    while (!(await kv.get('worker/keeper'))?.value.includes('"state":"deleted"'))
      await new Promise((resolve) => setTimeout(resolve, 1));
    const again = await lasting.provision({ name: 'keeper', source: '' }, ADMIN);
    assert.deepEqual([again.state, again.epoch, [...alive]], ['running', 2, ['keeper']]);
    await lasting.close();
  });

  it('that was half made keeps no core from starting, and is nobody’s, where the disk is full', async () => {
    const kv = store.kv('half');
    const first = setUp(kv);
    await first.lasting.open();
    await first.lasting.provision({ name: 'keeper', source: '' }, ADMIN);
    await first.lasting.close();
    const { value } = (await kv.get('worker/keeper'))!;
    await kv.put('worker/keeper', value.replace('"confirmed":true', '"confirmed":false'));
    let full = true;
    const filling: KeyValue = Object.assign(Object.create(kv), {
      put: (...args: Parameters<KeyValue['put']>) => (full ? refuses() : kv.put(...args)),
    });
    const { lasting } = setUp(filling);
    await lasting.open();
    assert.deepEqual(lasting.list(ADMIN), []);
    full = false;
    assert.equal((await lasting.provision({ name: 'keeper', source: '' }, ADMIN)).epoch, 2);
    await lasting.close();
  });

  it('may be called as one was whose epoch the disk could not forget', async () => {
    const kv = store.kv('forgetting');
    let now = 1e12;
    const stuck: KeyValue = Object.assign(Object.create(kv), { delete: refuses });
    const { lasting } = setUp(stuck, { now: () => now, elapsed: () => now });
    await lasting.open();
    for (const name of ['old', 'other']) await lasting.provision({ name, source: '' }, ADMIN);
    await lasting.remove('old', ADMIN);
    now += LIMITS.lasting_epoch_kept_ms + 1;
    await lasting.remove('other', ADMIN);
    assert.equal((await lasting.provision({ name: 'old', source: '' }, ADMIN)).epoch, 2);
    await lasting.close();
  });

  it('is not given an epoch twice although somebody sets the clock ahead for a moment', async () => {
    let now = 1e12;
    const { lasting } = setUp(store.kv('ahead'), { now: () => now, elapsed: () => 0 });
    await lasting.open();
    for (const name of ['old', 'other']) await lasting.provision({ name, source: '' }, ADMIN);
    await lasting.remove('old', ADMIN);
    now += 2 * LIMITS.lasting_epoch_kept_ms;
    await lasting.remove('other', ADMIN);
    assert.equal((await lasting.provision({ name: 'old', source: '' }, ADMIN)).epoch, 2);
    await lasting.close();
  });

  it('is started again in time although somebody has set the clock back meanwhile', async () => {
    let ahead = 1e12;
    const now = () => performance.now() + ahead;
    const { lasting, registry, alive, node, onPlaced } = setUp(store.kv('clock'), { now });
    await lasting.open();
    for (const end of ['died', 'away']) {
      const worker = `keeper-${end}`;
      await lasting.provision({ name: worker, source: '' }, ADMIN);
      const placed = new Promise<void>((resolve) => onPlaced(resolve));
      alive.delete(worker);
      if (end === 'away') registry.away(node);
      else registry.died({ worker, owner: 'admin', cause: 'exited', reason: '', at: now(), lines: [], epoch: 1 });
      await new Promise((resolve) => setImmediate(resolve));
      ahead -= 3_600_000;
      await placed;
      assert.equal(alive.has(worker), true, end);
    }
    await lasting.close();
  });
});
