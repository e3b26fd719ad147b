/** Lasting workers over a node that only notes what it is told: where the disk refuses, where somebody sets the clock, what strays, what is left. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KeyValue } from '@hauki/backplane';
import {
  BadInput,
  type Fate,
  Forbidden,
  type Grants,
  isError,
  type Job,
  LIMITS,
  NO_GRANTS,
  StorageFailed,
  type WorkerInfo,
} from '@hauki/protocol';
import { Lasting, type LastingPowers } from '../src/lasting/lasting.ts';
import { type RegisteredNode, type RegisteredWorker, Registry } from '../src/registry.ts';
import { ADMIN, type Principal } from '../src/rights.ts';
import { useStore } from './store.ts';

const refuses = () => Promise.reject(new StorageFailed({ what: 'the disk is full' }));
const RESTART = { first_ms: 1, most_ms: 5, stable_ms: 1_000 };

describe('a lasting worker', () => {
  const store = useStore();

  /** One node, which has what is placed there until it is told to end it. */
  const setUp = (kv: KeyValue, powers: Partial<LastingPowers> = {}, asked: Partial<Job> = {}) => {
    const registry = new Registry();
    const alive = new Set<string>();
    const narrowed: Grants[] = [];
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
        ...{ job: { source: '', language: 'javascript', grants: NO_GRANTS, load_timeout_ms: 1, ...asked } },
        ...{ labels: {}, nodes: ['*'], driver: asked.driver },
      }),
      narrow: async (_worker: string, most: Grants) => {
        narrowed.push(most);
        return most;
      },
      place: async (_order: unknown, { name, chosen }: any) => {
        const { epoch } = await chosen(name(), node, 'quickjs');
        alive.add(name());
        const born = { worker: name(), owner: 'admin', epoch, node: 'one', lasting: true, grants: NO_GRANTS, ...asked };
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
    return { lasting, registry, alive, node, narrowed, onPlaced };
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
    const { lasting, registry } = setUp(stuck, { now: () => now, elapsed: () => now });
    await lasting.open();
    for (const name of ['old', 'other']) await lasting.provision({ name, source: '' }, ADMIN);
    await lasting.remove('old', ADMIN);
    assert.equal(registry.fate('old')?.epoch, 1);
    now += LIMITS.lasting_epoch_kept_ms + 1;
    await lasting.remove('other', ADMIN);
    assert.equal(registry.fate('old'), undefined, 'nor is its end told of the next one');
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

  const recordOf = async (kv: KeyValue, worker: string) => JSON.parse((await kv.get(`worker/${worker}`))!.value);
  const lastingOn = (worker: string, epoch: number) => [{ worker, epoch, lasting: true }] as WorkerInfo[];
  const turns = async () => {
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  };

  it('is on disk with its epoch before a node hears of it', async () => {
    const kv = store.kv('first');
    const { lasting, onPlaced } = setUp(kv);
    await lasting.open();
    let seen: Promise<any> | undefined;
    onPlaced(() => {
      seen = recordOf(kv, 'keeper');
    });
    await lasting.provision({ name: 'keeper', source: '' }, ADMIN);
    const { epoch, state, node, min_isolation } = await seen;
    assert.deepEqual([epoch, state, node], [1, 'starting', 'one']);
    assert.equal(min_isolation, 'process', 'it is never started again where nothing holds it in');
    await lasting.close();
    const named = setUp(kv, {}, { driver: 'process' });
    await named.lasting.open();
    await named.lasting.provision({ name: 'named', source: '' }, ADMIN);
    assert.equal((await recordOf(kv, 'named')).min_isolation, undefined);
    await named.lasting.close();
  });

  it('is ended where it is not to be: on another node, of another epoch, or of a name that nobody gave', async () => {
    const { lasting, registry, node } = setUp(store.kv('strays'));
    await lasting.open();
    await lasting.provision({ name: 'keeper', source: '' }, ADMIN);
    const ended: unknown[] = [];
    const rpc = { destruct: async (...told: unknown[]) => ended.push(told) > 0 } as unknown as RegisteredNode['rpc'];
    const other = { ...node, info: { ...node.info, node: 'two' }, rpc };
    registry.register(other, [...lastingOn('keeper', 1), ...lastingOn('stranger', 3)]);
    await turns();
    const why = 'another epoch has taken its place';
    assert.deepEqual(ended.splice(0).sort(), [
      ['keeper', why, 1],
      ['stranger', why, 3],
    ]);
    assert.equal(lasting.get('keeper', ADMIN).node, 'one');
    await lasting.close();
  });

  it('that has ended once is started again once, however often that is told', async () => {
    const { lasting, registry, onPlaced } = setUp(store.kv('twice'));
    await lasting.open();
    await lasting.provision({ name: 'keeper', source: '' }, ADMIN);
    const placed = new Promise<void>((resolve) => onPlaced(resolve));
    const fate: Fate = { worker: 'keeper', owner: 'admin', cause: 'exited', reason: '', at: 0, lines: [], epoch: 1 };
    for (let i = 0; i < 3; i++) registry.died(fate);
    await placed;
    await turns();
    assert.deepEqual([lasting.get('keeper', ADMIN).epoch, lasting.get('keeper', ADMIN).deaths.length], [2, 1]);
    await lasting.close();
  });

  it('takes secrets that were revoked, or all with its end, from the disk', async () => {
    const kv = store.kv('secrets');
    const entry = (name: string) => ({ name, to: ['x.example:443'] });
    const grants = { ...NO_GRANTS, secrets: [entry('ONE'), entry('TWO')] };
    const { lasting, registry, node, narrowed } = setUp(
      kv,
      { node_grace_ms: 60_000 },
      { grants, secrets: { ONE: '1', TWO: '2' } },
    );
    await lasting.open();
    await lasting.provision({ name: 'keeper', source: '' }, ADMIN);
    const left = { ...NO_GRANTS, secrets: [entry('TWO')] };
    assert.deepEqual(await lasting.revoke('keeper', { secrets: ['ONE'] }), left);
    assert.deepEqual(narrowed.splice(0), [left]);
    assert.deepEqual((await recordOf(kv, 'keeper')).secrets, { TWO: '2' });
    registry.away(node);
    await lasting.revoke('keeper', { secrets: true });
    assert.deepEqual(narrowed.splice(0), [], 'its node is away');
    assert.equal((await recordOf(kv, 'keeper')).secrets, undefined);
    registry.register(
      { ...node },
      lastingOn('keeper', 1).map((one) => ({ ...one, grants })),
    );
    await turns();
    assert.deepEqual(narrowed, [NO_GRANTS], 'it has less when that is back');
    await lasting.provision({ name: 'other', source: '' }, ADMIN);
    await lasting.remove('other', ADMIN);
    assert.deepEqual((await recordOf(kv, 'other')).secrets, undefined);
    await lasting.close();
  });

  it('is its owner’s alone, and so are the last words of one of its name', async () => {
    const { lasting, registry } = setUp(store.kv('owners'));
    await lasting.open();
    const fate: Fate = { worker: 'keeper', owner: 'bob', cause: 'exited', reason: '', at: 0, lines: [], epoch: 0 };
    registry.died(fate);
    await lasting.provision({ name: 'keeper', source: '' }, ADMIN);
    assert.equal(registry.fate('keeper'), undefined);
    const bob: Principal = { ...ADMIN, id: 'bob', name: 'bob', scopes: ['provision'] };
    const stranger = { ...bob, targets: { ...bob.targets, workers: [] } };
    assert.throws(
      () => lasting.get('keeper', stranger),
      (error) => isError(error, Forbidden),
    );
    await assert.rejects(lasting.remove('keeper', stranger), (error) => isError(error, Forbidden));
    assert.deepEqual(lasting.list(stranger), []);
    assert.equal(lasting.get('keeper', bob).worker, 'keeper');
    for (const name of ['w-mine', 's-mine', 'No', ''])
      await assert.rejects(lasting.provision({ name, source: '' }, ADMIN), (error) => isError(error, BadInput));
    await lasting.close();
  });
});
