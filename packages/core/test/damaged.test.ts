/** One damaged record costs that one alone: it is told, it stays on disk, and the others are as before. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openEmbedded } from '@hauki/backplane';
import type { MeshFs } from '@hauki/meshfs';
import { type Fate, isError, NO_GRANTS, StorageFailed, type WorkerInfo } from '@hauki/protocol';
import type { FastifyBaseLogger } from 'fastify';
import { openDataFolder } from '../src/data-folder.ts';
import { Fates } from '../src/fates.ts';
import { Lasting } from '../src/lasting/lasting.ts';
import { type RegisteredNode, Registry } from '../src/registry.ts';
import { ADMIN } from '../src/rights.ts';
import { keyName, SpoolStore } from '../src/spool/store.ts';
import { TextDamaged, Texts } from '../src/texts.ts';
import { TokenStore } from '../src/tokens.ts';
import { VolumeHomes } from '../src/volumes.ts';
import { useStore } from './store.ts';

const is_told = (thrown: Error) => isError(thrown, StorageFailed) && /damaged/.test(thrown.message);

describe('a damaged record', () => {
  const store = useStore();
  let count = 0;

  const setUp = () => {
    const kv = store.kv(`damaged-${++count}`);
    const told: string[] = [];
    const harm = async (key: string) => {
      const { value } = (await kv.get(key))!;
      await kv.put(key, `z${value.slice(1)}`);
    };
    return { kv, told, harm, damaged: (key: string) => void told.push(key) };
  };

  it('of a token leaves out that one and those below it, for as long as it is damaged', async () => {
    const { kv, told, harm, damaged } = setUp();
    const open = () => TokenStore.open({ kv, emit: () => {}, damaged });
    const first = await open();
    const parent = await first.create(ADMIN, { name: 'parent', scopes: ['tokens', 'spawn'] });
    const child = await first.create(first.find(parent.token)!, { name: 'child', scopes: ['spawn'] });
    const other = await first.create(ADMIN, { name: 'other', scopes: ['spawn'] });
    first.close();
    const { value } = (await kv.get(parent.id))!;
    await harm(parent.id);
    const second = await open();
    assert.deepEqual(told, [parent.id, child.id]);
    assert.deepEqual([second.find(parent.token), second.find(child.token)], [undefined, undefined]);
    assert.equal(second.find(other.token)?.id, other.id);
    second.close();
    await kv.put(parent.id, value);
    const third = await open();
    assert.ok(third.find(parent.token) && third.find(child.token));
    third.close();
  });

  it('of a fate leaves out that one', async () => {
    const { kv, told, harm, damaged } = setUp();
    const fate = (worker: string): Fate => ({ worker, owner: 'ada', cause: 'exited', reason: '', at: 1, lines: [] });
    const first = new Fates(kv);
    for (const worker of ['w-1', 'w-2', 'w-3']) first.set(fate(worker));
    await first.close();
    await harm('fate/w-1');
    await kv.put('fate/w-3', JSON.stringify({ ...fate('w-3'), lines: undefined }));
    const again = new Fates(kv);
    await again.open(damaged);
    assert.deepEqual(told, ['fate/w-1', 'fate/w-3']);
    assert.deepEqual([again.get('w-1'), again.get('w-2')?.worker], [undefined, 'w-2']);
    assert.ok(await kv.get('fate/w-1'));
  });

  it('of a volume refuses that volume, so that nobody finds an empty one in its place', async () => {
    const { kv, told, harm, damaged } = setUp();
    const open = async () => {
      const homes = new VolumeHomes({ kv, registry: new Registry(), event: () => {}, damaged });
      await homes.open();
      return homes;
    };
    await (await open()).claim('ada', { name: 'kept', quota_mib: 1 }, 'one');
    await harm((await kv.list('home/')).entries[0]!.key);
    const again = await open();
    assert.equal(told.length, 1);
    assert.throws(() => again.home('ada', { name: 'kept', quota_mib: 1 }), is_told);
    assert.equal(again.home('ada', { name: 'new', quota_mib: 1 }), undefined);
  });

  it('of a job leaves out that one, and keeps its texts and its key', async () => {
    const { kv, told, harm, damaged } = setUp();
    const open = () =>
      new SpoolStore({
        kv,
        now: () => 1_000,
        ended: () => {},
        failed: (_job, error) => assert.fail(String(error)),
        damaged,
        kept: { jobs: 10, ms: 1e12 },
      });
    const first = open();
    const source = await first.texts.keep('x'.repeat(10_000));
    for (const job of ['j-1', 'j-2'])
      await first.add({
        ...{ job, owner: 'ada', key: job, request: '', state: 'accepted', pointer: null, source },
        ...{ language: 'javascript', method: 'm', params: { text: '[]' }, driver: null, labels: {}, nodes: ['*'] },
        ...{ memory_mib: null, grants: NO_GRANTS, timeout_ms: 1, load_timeout_ms: 1, max_attempts: 1 },
        ...{ retry_on_error: false, attempts: 0, worker: null, node: null, history: [], accepted_at: 0, ended_at: 0 },
        ...{ result: null, error: null },
      });
    for (const job of ['j-1', 'j-2']) await first.bind(keyName('ada', job), job);
    await harm('job/j-1');
    await harm('job/j-2');
    const again = open();
    assert.deepEqual(await again.load(), []);
    assert.deepEqual(told, ['job/j-1', 'job/j-2']);
    assert.equal(await again.texts.read(source), 'x'.repeat(10_000));
    assert.equal(await again.keyed(keyName('ada', 'j-1')), 'j-1');
    await assert.rejects(again.read('j-1'), is_told);
    assert.deepEqual((await again.list(() => true, { limit: 10 })).records, []);
  });

  it('of a lasting worker leaves out that one: its name is taken, and what runs of it is not ended', async () => {
    const { kv, told, damaged } = setUp();
    await kv.put('worker/keeper', 'z"worker":"keeper"}');
    const registry = new Registry();
    const lasting = new Lasting({
      ...{ kv, damaged, registry, event: () => {}, node_grace_ms: 1_000 },
      swarm: {} as ConstructorParameters<typeof Lasting>[0]['swarm'],
    });
    await lasting.open();
    assert.deepEqual([told, lasting.list(ADMIN)], [['worker/keeper'], []]);
    await assert.rejects(lasting.provision({ name: 'keeper', source: '' }, ADMIN), is_told);
    const ended: string[] = [];
    const rpc = { destruct: async (worker: string) => ended.push(worker) > 0 };
    const has = [{ worker: 'keeper', lasting: true, epoch: 1 }] as WorkerInfo[];
    registry.register({ info: { node: 'one', drivers: {} }, rpc } as unknown as RegisteredNode, has);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(ended, []);
    await lasting.close();
  });

  it('of a text is told as such, be it in its words or in what holds them', async () => {
    const { kv, harm } = setUp();
    const texts = new Texts(kv, 1e6);
    for (const [letter, change] of [
      ['x', harm],
      ['y', async (key: string) => kv.put(key, JSON.stringify('another'))],
    ] as const) {
      const kept = await texts.keep(letter.repeat(10_000));
      for (const { key } of (await kv.list('text/')).entries) await change(key);
      await assert.rejects(texts.read(kept), (thrown) => thrown instanceof TextDamaged && is_told(thrown));
    }
  });
});

describe('the data folder', () => {
  const logger = { error() {}, info() {}, warn() {} } as unknown as FastifyBaseLogger;
  const inFolder = async (use: (folder: string) => Promise<void>) => {
    const folder = mkdtempSync(join(tmpdir(), 'hauki-folder-'));
    try {
      await use(folder);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  };

  it('has a signing key made by whoever has its store, and by nobody else', () =>
    inFolder(async (folder) => {
      const other = await openEmbedded(join(folder, 'store'));
      await assert.rejects(openDataFolder(folder, logger), StorageFailed);
      assert.equal(existsSync(join(folder, 'signing-key.json')), false);
      await other.close();
      const { backplane, office } = await openDataFolder(folder, logger);
      assert.equal(office.keys.keys.length, 1);
      await backplane.close();
    }));

  it('is collected at the start, unless its store has lost something', () =>
    inFolder(async (folder) => {
      const { backplane, collect } = await openDataFolder(folder, logger);
      let asked = 0;
      const meshfs = { collect: async () => ({ kept: 0, removed: 0, removed_bytes: ++asked }) } as unknown as MeshFs;
      collect(meshfs);
      Object.assign(backplane, { lost: 'the log' });
      collect(meshfs);
      assert.equal(asked, 1);
      await backplane.close();
    }));
});
