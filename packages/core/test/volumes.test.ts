/** Volumes by their names: one node each, their owners' alone, and nothing claimed that is not on disk. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type ErrorClass,
  Forbidden,
  isError,
  NoNodeFits,
  StorageFailed,
  type VolumeInfo,
  VolumeUnknown,
} from '@hauki/protocol';
import { type RegisteredNode, Registry } from '../src/registry.ts';
import { ADMIN, type Principal } from '../src/rights.ts';
import { VolumeHomes } from '../src/volumes.ts';
import { useStore } from './store.ts';

const notes = { name: 'notes', quota_mib: 1 };
const token = (name: string): Principal => ({ ...ADMIN, id: name, name, scopes: ['spawn'] });
const refused = (promise: Promise<unknown>, kind: ErrorClass<any>) =>
  assert.rejects(promise, (error: Error) => isError(error, kind) || assert.fail(`${error.name}: ${error.message}`));

const HELD = { name: 'notes', quota_mib: 1, used_bytes: 0, worker: null, created_at: 0 };

describe('a volume', () => {
  const store = useStore();
  const setUp = (name: string) => {
    const registry = new Registry();
    const removed: string[] = [];
    const has = (node: string, ...volumes: string[]) => {
      const rpc = {
        remove_volume: async (owner: string, volume: string) => void removed.push(`${owner} ${volume} on ${node}`),
        volumes: async () => volumes.map((owner): VolumeInfo => ({ ...HELD, owner })),
      };
      const one = { info: { node, drivers: {} }, rpc } as unknown as RegisteredNode;
      registry.register(one, []);
      return one;
    };
    const kv = store.kv(name);
    return { kv, registry, removed, has, homes: new VolumeHomes({ kv, registry, event: () => {} }) };
  };

  it('stays on its node, which is waited for, and is another’s under the same name', async () => {
    const { registry, has, homes } = setUp('home');
    const one = has('one');
    assert.equal(homes.home('ada', notes), undefined);
    await homes.claim('ada', notes, 'one');
    assert.deepEqual(await homes.claim('ada', notes, 'two'), { node: 'one', fresh: false });
    assert.deepEqual(await homes.claim('eve', notes, 'two'), { node: 'two', fresh: true });
    assert.equal(homes.home('ada', notes), 'one');
    registry.away(one);
    assert.throws(
      () => homes.home('ada', notes),
      (error) => isError(error, NoNodeFits),
    );
  });

  it('is nobody’s where the disk did not take its claim', async () => {
    const { kv, homes } = setUp('refused');
    const put = kv.put.bind(kv);
    kv.put = () => Promise.reject(new StorageFailed({ what: 'the disk is full' }));
    await refused(homes.claim('ada', notes, 'one'), StorageFailed);
    kv.put = put;
    assert.deepEqual(await homes.claim('ada', notes, 'two'), { node: 'two', fresh: true });
  });

  it('is deleted by its owner, whoever stands above, and an admin; where its node is away its name alone', async () => {
    const { registry, removed, has, homes } = setUp('removed');
    const one = has('one');
    for (const owner of ['ada', 'ada/bob', 'eve']) await homes.claim(owner, notes, 'one');
    await refused(homes.remove(token('bob'), 'notes', 'ada'), Forbidden);
    await refused(homes.remove(token('ada/bob'), 'notes', 'ada'), Forbidden);
    await refused(homes.remove(token('ada'), 'other'), VolumeUnknown);
    await homes.remove(token('ada'), 'notes', 'ada/bob');
    await homes.remove(ADMIN, 'notes', 'eve', true);
    assert.deepEqual(removed, ['ada/bob notes on one', 'eve notes on one'], 'to forget is no way around its node');
    registry.away(one);
    await refused(homes.remove(token('ada'), 'notes'), NoNodeFits);
    await homes.remove(token('ada'), 'notes', 'ada', true);
    assert.deepEqual(await homes.list(ADMIN), []);
  });

  it('is listed for whoever may handle it, as its own node tells of it', async () => {
    const { has, homes } = setUp('list');
    const one = has('one', 'ada', 'eve');
    has('two', 'ada');
    await homes.claim('ada', notes, 'one');
    await homes.claim('eve', notes, 'two');
    await homes.claim('bob', notes, 'away');
    const seen = async (who: Principal) =>
      (await homes.list(who)).map(({ owner, node, node_away }) => `${owner} ${node} ${node_away}`);
    assert.deepEqual(await seen(token('ada')), ['ada one false']);
    assert.deepEqual(await seen(token('eve')), [], 'its own node knows none');
    assert.deepEqual(await seen(token('bob')), ['bob away true']);
    assert.deepEqual(await seen(ADMIN), ['ada one false', 'bob away true'], 'what another node says counts nothing');
    // One that says what cannot be says nothing.
    for (const strange of [{ used_bytes: 'much' }, { worker: {} }, { name: 'x'.repeat(5_000) }]) {
      one.rpc.volumes = async () => [{ ...HELD, owner: 'ada' }, { ...HELD, owner: 'ada', ...strange } as VolumeInfo];
      assert.deepEqual(await seen(token('ada')), [], JSON.stringify(strange).slice(0, 50));
    }
  });
});
