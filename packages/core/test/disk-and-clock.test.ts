/** The spool and volumes where the disk is full for a while, and where somebody sets the clock. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KeyValue } from '@hauki/backplane';
import { isError, LIMITS, NoNodeFits, StorageFailed } from '@hauki/protocol';
import { type RegisteredNode, Registry } from '../src/registry.ts';
import { ADMIN } from '../src/rights.ts';
import type { JobRecord } from '../src/spool/record.ts';
import { Spool } from '../src/spool/spool.ts';
import { VolumeHomes } from '../src/volumes.ts';
import { useStore } from './store.ts';

describe('the store of the core', () => {
  const store = useStore();

  it('keeps the results of jobs although somebody sets the clock ahead for a moment', async () => {
    const kv = store.kv('spool');
    const job = (id: string, more: Partial<JobRecord>): JobRecord => ({
      ...{ job: id, owner: 'admin', key: null, request: '', pointer: null, source: { text: '' }, method: 'm' },
      ...{ language: 'javascript', params: { text: '[]' }, driver: null, nodes: ['*'], memory_mib: null },
      ...{ timeout_ms: 1, load_timeout_ms: 1, max_attempts: 1, retry_on_error: false, attempts: 0, worker: null },
      ...{ node: null, history: [], accepted_at: 1e12, ended_at: 0, result: null, error: null, state: 'accepted' },
      ...more,
    });
    const done = job('j-1', { state: 'done', ended_at: 1e12, result: { text: '5' } });
    for (const one of [done, job('j-2', {})]) await kv.put(`job/${one.job}`, JSON.stringify(one));
    let now = 1e12;
    const spool = new Spool({
      ...{ kv, registry: new Registry(), now: () => now, elapsed: () => 0, event: () => {} },
      connect: () => assert.fail('nothing runs'),
      swarm: {
        order: () => assert.fail('nothing is accepted'),
        place: () => Promise.reject(new NoNodeFits({ wanted: {}, have: [] })),
      },
    });
    await spool.open();
    now += 2 * LIMITS.spool_kept_ms;
    await spool.cancel('j-2', ADMIN);
    // Behind what was perhaps removed.
    await kv.put('other', '');
    assert.equal((await spool.get('j-1', ADMIN)).result, '5');
    spool.close();
  });

  it('has a volume made anew whose record a full disk could not forget', async () => {
    const kv = store.kv('volumes');
    const stuck: KeyValue = Object.assign(Object.create(kv), {
      delete: () => Promise.reject(new StorageFailed({ what: 'the disk is full' })),
    });
    const registry = new Registry();
    registry.register(
      { info: { node: 'one', drivers: {} }, rpc: { remove_volume: async () => {} } } as unknown as RegisteredNode,
      [],
    );
    const volumes = new VolumeHomes({ kv: stuck, registry, event: () => {} });
    const grant = { name: 'notes', quota_mib: 1 };
    await volumes.claim('admin', grant, 'one');
    await assert.rejects(volumes.remove(ADMIN, 'notes'), (error) => isError(error, StorageFailed));
    assert.deepEqual(await volumes.claim('admin', grant, 'two'), { node: 'two', fresh: true });
    const again = new VolumeHomes({ kv, registry, event: () => {} });
    await again.open();
    assert.deepEqual(await again.claim('admin', grant, 'one'), { node: 'two', fresh: false });
  });
});
