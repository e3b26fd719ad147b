/** The spool's runner and its door, over a real store and a node that only notes: how often a job begins, what ends, what waits. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, it } from 'node:test';
import {
  DeadlineExceeded,
  Forbidden,
  isError,
  JobEnded,
  LIMITS,
  NO_GRANTS,
  OutcomeUnknown,
  Overloaded,
  StorageFailed,
  type WorkerInfo,
} from '@hauki/protocol';
import type { Session } from '@hauki/rpc';
import { type RegisteredNode, Registry, type RegistryWatcher } from '../src/registry.ts';
import { ADMIN, type Principal } from '../src/rights.ts';
import type { JobRecord } from '../src/spool/record.ts';
import { Runner } from '../src/spool/runner.ts';
import { Spool, type SpoolPowers } from '../src/spool/spool.ts';
import { type Open, SpoolStore } from '../src/spool/store.ts';
import type { Swarm } from '../src/swarm.ts';
import { Texts } from '../src/texts.ts';
import { useStore } from './store.ts';

const cut = () => Promise.reject(new OutcomeUnknown({ method: 'm', why: 'its connection was cut' }));
const until = async (holds: () => boolean) => {
  for (const end = performance.now() + 20_000; !holds() && performance.now() < end; )
    await new Promise((resolve) => setImmediate(resolve));
  assert.ok(holds());
};

describe('the runner of the spool', () => {
  const disk = useStore();
  let count = 0;

  const setUp = (
    does: { call?: () => Promise<unknown>; place?: (open: Open) => Promise<unknown> } = {},
    keeps = 10,
  ) => {
    const notes: string[] = [];
    const watchers: RegistryWatcher[] = [];
    const kv = disk.kv(`runner-${++count}`);
    const store = new SpoolStore({
      ...{ kv, now: () => 1_000, kept: { jobs: keeps, ms: 1e12 } },
      ended: () => {},
      failed: (_job, error) => assert.fail(String(error)),
    });
    const destruct = async (worker: string) => notes.push(`ends ${worker}`) > 0;
    const one = { info: { node: 'one' }, rpc: { destruct } } as unknown as RegisteredNode;
    const nodes = new Map([['one', one]]);
    let open: Open;
    const runner = new Runner({
      ...{ store, node_grace_ms: 1e9, now: () => 1_000, event: (name) => void notes.push(name) },
      registry: { watch: (one: RegistryWatcher) => watchers.push(one), nodes } as unknown as Registry,
      swarm: {
        async place(_order, { name, chosen }) {
          await does.place?.(open);
          await chosen!(name(), one, 'quickjs').catch((error) => {
            notes.push(isError(error, JobEnded) ? 'refused' : String(error));
            throw error;
          });
          return {} as Awaited<ReturnType<Swarm['place']>>;
        },
      },
      connect: async (worker) => {
        const call = () => {
          notes.push(`calls ${worker}`);
          return (does.call ?? cut)();
        };
        return { call, close() {}, open: false } as unknown as Session;
      },
    });
    const run = async (more: Partial<JobRecord> = {}) => {
      open = (await store.add({
        ...{ job: 'j-a', owner: 'ada', key: null, request: '', pointer: null, source: { text: '' }, method: 'm' },
        ...{ language: 'javascript', params: { text: '[]' }, driver: null, nodes: ['*'], memory_mib: null },
        ...{ timeout_ms: 1, load_timeout_ms: 1, max_attempts: 1, retry_on_error: false, attempts: 0, worker: null },
        ...{ node: null, history: [], accepted_at: 1, ended_at: 0, result: null, error: null, state: 'accepted' },
        ...more,
      }))!;
      runner.take(open);
      return open;
    };
    const registers = (...workers: string[]) => {
      nodes.set('one', one);
      for (const { registered } of watchers)
        registered!(one, workers.map((worker) => ({ worker })) as unknown as WorkerInfo[]);
    };
    return { kv, store, notes, nodes, run, registers };
  };

  it('begins a job as often as it may, each time after the worker before has ended', async () => {
    const { notes, run } = setUp();
    const open = await run({ max_attempts: 2 });
    await until(() => notes.includes('ends s-a-2'));
    assert.deepEqual(notes, [
      ...['SPOOL_STARTED', 'calls s-a-1', 'SPOOL_INTERRUPTED', 'ends s-a-1'],
      ...['SPOOL_STARTED', 'calls s-a-2', 'ends s-a-2'],
    ]);
    assert.deepEqual([open.record.state, open.record.attempts, open.record.history.length], ['failed', 2, 1]);
    assert.match(open.record.error!.message, /each of its 2 attempts was interrupted/);
  });

  it('tells in the job’s words that its own time was over, and as it was that of something which it called', async () => {
    for (const [what, own_ms, message] of [
      ['The call', 1, /^m\(\) gave no answer within 1 ms/],
      ['meshfs_write()', 10_000, /^meshfs_write\(\) gave no answer within 10000 ms/],
    ] as const) {
      const late = new DeadlineExceeded({ what, timeout_ms: own_ms, may_have_run: true });
      const { notes, run } = setUp({ call: () => Promise.reject(late) });
      const open = await run();
      await until(() => notes.includes('ends s-a-1'));
      assert.match(open.record.error!.message, message);
    }
  });

  it('begins no job again that a restart finds in its last attempt', async () => {
    const { notes, run } = setUp();
    const open = await run({ state: 'running', attempts: 1, worker: 's-a-1', node: 'one' });
    await until(() => notes.length > 0);
    assert.deepEqual([notes, open.record.state, open.record.attempts], [['ends s-a-1'], 'failed', 1]);
  });

  it('waits for a node that is away, and ends the worker there before it goes on', async () => {
    const { notes, nodes, run, registers } = setUp({ call: async () => 1 });
    nodes.delete('one');
    const open = await run({ state: 'running', attempts: 1, max_attempts: 2, worker: 's-a-1', node: 'one' });
    await until(() => open.waiting !== undefined);
    assert.match(open.waiting!.why, /its attempt 1, one, is away/);
    assert.deepEqual(notes, []);
    registers('s-a-1', 's-gone-1', 'w-other');
    await until(() => open.record.state === 'done' && notes.length === 5);
    assert.deepEqual(notes, ['ends s-gone-1', 'ends s-a-1', 'SPOOL_STARTED', 'calls s-a-2', 'ends s-a-2']);
  });

  it('runs nothing of a job that is cancelled while a place is looked for', async () => {
    const { notes, store, run } = setUp({
      place: (open) => store.move(open, () => ({ state: 'cancelled' })),
    });
    const open = await run();
    await until(() => notes.includes('refused'));
    assert.deepEqual([notes, open.record.state], [['refused'], 'cancelled']);
  });

  it('keeps no result of a job that was cancelled meanwhile', async () => {
    let open: Open | undefined;
    const { notes, store, run } = setUp({
      call: async () => {
        await store.move(open!, () => ({ state: 'cancelled' }));
        return 'x'.repeat(200_000);
      },
    });
    open = await run();
    await until(() => notes.includes('ends s-a-1'));
    assert.deepEqual([open.record.state, store.texts.chars], ['cancelled', 0]);
  });

  it('holds a result once, however often the disk refuses it', async () => {
    const { kv, store, notes, run } = setUp({ call: async () => 'x'.repeat(200_000) }, 0);
    const put = kv.put.bind(kv);
    let refused = 0;
    kv.put = async (key, value, ...more) => {
      if (!value.includes('"state":"done"') || refused === 2) return put(key, value, ...more);
      refused++;
      throw new StorageFailed({ what: 'the disk is full' });
    };
    const open = await run();
    await until(() => notes.includes('ends s-a-1'));
    assert.deepEqual([open.record.state, refused, store.texts.chars], ['done', 2, 0], 'it is kept for nobody');
  });

  it('begins one that no node had room for as soon as another has ended', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const end = Promise.withResolvers<unknown>();
    let room = 1;
    const { notes, run } = setUp({
      call: () => end.promise,
      place: async () => {
        if (room === 0) throw new Overloaded({ what: 'vaults', limit: 1 });
        room--;
      },
    });
    await run();
    await until(() => notes.includes('calls s-a-1'));
    const second = await run({ job: 'j-b' });
    await until(() => second.waiting !== undefined);
    room = 1;
    end.resolve(1);
    await until(() => second.record.state === 'done');
    assert.ok(notes.includes('calls s-b-1'));
  });
});

describe('texts that the disk refuses', () => {
  const disk = useStore();
  const full = () => Promise.reject(new StorageFailed({ what: 'the disk is full' }));
  const long = (letter: string) => letter.repeat(10_000);

  it('are held by nobody, nor are those that were to be held with them', async () => {
    const kv = disk.kv('texts');
    const put = kv.put.bind(kv);
    kv.put = (key, value, ...more) => (value.includes('bbb') ? full() : put(key, value, ...more));
    const texts = new Texts(kv, 1e6);
    await assert.rejects(texts.keep(long('b')), StorageFailed);
    await assert.rejects(texts.keepAll([long('a'), undefined, long('b')]), StorageFailed);
    const end = performance.now() + 20_000;
    while (texts.chars > 0 && performance.now() < end) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(texts.chars, 0);
  });
});

describe('the door of the spool', () => {
  const disk = useStore();
  const never = new Promise<never>(() => {});
  const order = async () => ({ job: { source: 'x'.repeat(10_000), grants: NO_GRANTS }, labels: {}, nodes: ['*'] });
  const setUp = async (name: string, swarm: object) => {
    const kv = disk.kv(name);
    const spool = new Spool({
      ...{ kv, registry: new Registry(), event: () => {}, connect: () => assert.fail('nothing runs') },
      swarm: { order, place: () => never, ...swarm } as unknown as SpoolPowers['swarm'],
    });
    await spool.open();
    return { kv, spool };
  };
  const request = { source: '', method: 'm' };
  const overloaded = (error: unknown) => isError(error, Overloaded);

  it('shows and cancels a job to its owner and to whom it names, and to nobody else', async () => {
    const { spool } = await setUp('owners', {});
    const { job } = await spool.accept(request, ADMIN);
    const bob: Principal = { ...ADMIN, id: 'bob', name: 'bob', scopes: ['spool'] };
    const stranger = { ...bob, targets: { ...bob.targets, workers: ['j-other'] } };
    const forbidden = (error: unknown) => isError(error, Forbidden);
    await assert.rejects(spool.get(job, stranger), forbidden);
    await assert.rejects(spool.wait(job, stranger, 1, new AbortController().signal), forbidden);
    await assert.rejects(spool.cancel(job, stranger), forbidden);
    assert.deepEqual((await spool.list(stranger, {})).jobs, []);
    assert.equal((await spool.cancel(job, bob)).state, 'cancelled');
    spool.close();
  });

  it('bounds the jobs that have not ended, those that are being taken among them', async () => {
    const { spool } = await setUp('open', { order: () => never });
    for (let i = 0; i < LIMITS.spool_open; i++) void spool.accept(request, ADMIN);
    await assert.rejects(spool.accept(request, ADMIN), overloaded);
    spool.close();
  });

  it('bounds the requests that wait, and has room again when those have gone', async () => {
    const { spool } = await setUp('waiters', {});
    const { job } = await spool.accept(request, ADMIN);
    const gone = new AbortController();
    EventEmitter.setMaxListeners(0, gone.signal);
    const wait = (ms: number) => spool.wait(job, ADMIN, ms, gone.signal);
    const waiting = Array.from({ length: LIMITS.spool_waiters }, () => wait(60_000));
    await new Promise((resolve) => setImmediate(resolve));
    await assert.rejects(wait(1), overloaded);
    gone.abort();
    await Promise.all(waiting);
    await spool.wait(job, ADMIN, 1, new AbortController().signal);
    spool.close();
  });

  it('keeps no text of a request that the disk refuses', async () => {
    const { kv, spool } = await setUp('refused', {});
    const put = kv.put.bind(kv);
    kv.put = async (key, ...more) => {
      if (key.startsWith('job/')) throw new StorageFailed({ what: 'the disk is full' });
      return put(key, ...more);
    };
    await assert.rejects(spool.accept(request, ADMIN), (error) => isError(error, StorageFailed));
    const left = async () => (await kv.list('text/')).entries.length;
    for (let i = 0; i < 5_000 && (await left()) > 0; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(await left(), 0);
    spool.close();
  });
});
