/** The spool's rules and its store: what a failure means, names, texts held for as long as somebody needs them, ends. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Backplane, openEmbedded } from '@hauki/backplane';
import {
  ConnectionLost,
  DeadlineExceeded,
  type JobState,
  KeyReused,
  NO_GRANTS,
  NoNodeFits,
  OutcomeUnknown,
  Overloaded,
  QuotaExceeded,
  RemoteError,
  SourceRejected,
  StorageFailed,
  VaultFailed,
  WorkerDied,
} from '@hauki/protocol';
import type { Session } from '@hauki/rpc';
import fc from 'fast-check';
import type { RegisteredNode, Registry } from '../src/registry.ts';
import { ENDED, exhausted, type JobRecord, jobOf, judge, newJobId, workerOf } from '../src/spool/record.ts';
import { Runner } from '../src/spool/runner.ts';
import { keyName, type Open, SpoolStore } from '../src/spool/store.ts';
import type { Swarm } from '../src/swarm.ts';
import { Texts } from '../src/texts.ts';

const died = (cause: string) => new WorkerDied({ worker: 's-a-1', cause, reason: 'r' });
const unknown = new OutcomeUnknown({ method: 'm', why: 'w' });
const lost = new ConnectionLost({ why: 'w' });

describe('what a failed attempt means', () => {
  it('before a node has taken it: nothing, unless its source is wrong', () => {
    for (const error of [new NoNodeFits({ wanted: {}, have: [] }), new Overloaded({ what: 'vaults', limit: 1 }), lost])
      assert.equal(judge(error, 'place', false), 'crowded', error.name);
    assert.equal(judge(new SourceRejected({ stage: 'load', reason: 'r' }), 'place', false), 'own');
    for (const error of [unknown, new VaultFailed({ driver: 'lxc', reason: 'r' })])
      assert.equal(judge(error, 'place', false), 'interrupted', error.name);
  });

  it('in its call: interrupted where the connection is over, its own where it answered', () => {
    for (const error of [unknown, lost, died('node_lost'), died('exited')]) {
      assert.equal(judge(error, 'call', true), 'interrupted', error.name);
      assert.equal(judge(error, 'call', false), 'own', 'a worker can throw anything');
    }
    for (const error of [
      new RemoteError({ error_name: 'Error' }),
      new DeadlineExceeded({ what: 'm', timeout_ms: 1, may_have_run: true }),
      new RangeError('ours'),
    ])
      assert.equal(judge(error, 'call', true), 'own', error.name);
    assert.equal(judge(lost, 'connect', true), 'interrupted');
  });

  it('by a quota is none: the job waits for room', () => {
    const full = new QuotaExceeded({ what: 'vaults', limit: 1, used: 1, asked: 1 });
    assert.equal(judge(full, 'place', false), 'crowded');
  });

  it('that would only come again is its own: out of memory, misbehaved', () => {
    for (const step of ['connect', 'call'] as const)
      for (const cause of ['out_of_memory', 'misbehaved']) assert.equal(judge(died(cause), step, true), 'own');
  });

  it('ends a job as unknown after the last attempt, or as what is known better', () => {
    assert.equal(exhausted('m', unknown, 1).data!.name, 'OutcomeUnknown');
    assert.match(exhausted('m', unknown, 3).message, /each of its 3 attempts was interrupted/);
    assert.equal(exhausted('m', new VaultFailed({ driver: 'lxc', reason: 'r' }), 3).data!.name, 'VaultFailed');
  });
});

describe('names in the spool', () => {
  it('lead from a job to its workers and back, and claim nobody else’s', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4e12 }), fc.integer({ min: 1, max: 100 }), (now, attempt) => {
        const job = newJobId(now, 'a1b2c3d4');
        const worker = workerOf(job, attempt);
        assert.match(worker, /^[a-z0-9-]{1,40}$/, 'it fits a vault’s id');
        assert.equal(jobOf(worker), job);
      }),
    );
    for (const worker of ['w-abc', 'l-abc', 'counter', 's-abc', 's-a-b', 'xs-abc-1'])
      assert.equal(jobOf(worker), undefined);
  });

  it('sort the newer job first', () => {
    assert.ok(newJobId(2_000_000_000_000, 'zzzz') < newJobId(1_999_999_999_999, 'aaaa'));
  });
});

describe('over a real store', () => {
  let folder: string;
  let backplane: Backplane;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-spool-'));
    backplane = await openEmbedded(folder);
  });
  after(async () => {
    await backplane.close();
    rmSync(folder, { recursive: true, force: true });
  });
  let count = 0;
  const fresh = () => backplane.kv(`spool-${count++}`);
  const long = (letter: string) => letter.repeat(200_000);
  const pieces = async (kv: ReturnType<typeof fresh>) => (await kv.list('text/')).entries.length;

  it('texts come back as they were, whatever they are', async () => {
    const texts = new Texts(fresh(), 1e9);
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 40 }), fc.nat(9_000), async (unit, times) => {
        const text = `${unit.repeat(times).slice(0, 300_000)}\ud800`;
        assert.equal(await texts.read(await texts.keep(text)), text);
      }),
      { numRuns: 25 },
    );
  });

  it('texts are kept once, go with their last holder, and are bounded', async () => {
    const kv = fresh();
    const texts = new Texts(kv, 500_000);
    const [one, same] = await Promise.all([texts.keep(long('a')), texts.keep(long('a'))]);
    assert.deepEqual(one, same);
    const many = await pieces(kv);
    assert.equal(texts.chars, 200_000);
    await texts.keep(long('b'));
    await assert.rejects(texts.keep(long('c')), Overloaded);
    const always = await texts.keep(long('c'), true);
    texts.release(always);
    texts.release(one);
    assert.equal(await texts.read(same), long('a'), 'it has a holder still');
    texts.release(same);
    const again = await texts.keep(long('a'));
    assert.equal(await texts.read(again), long('a'), 'kept anew while it was going');
    texts.release(again);
    for (let i = 0; i < 1500 && (await pieces(kv)) > many; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(await pieces(kv), many, 'only the other one is left');
  });

  it('texts that a crash left without a holder go at the next start', async () => {
    const kv = fresh();
    const before_crash = new Texts(kv, 1e9);
    const held = await before_crash.keep(long('x'));
    await before_crash.keep(long('y'));
    const texts = new Texts(kv, 1e9);
    await texts.open([held]);
    assert.equal(texts.chars, 200_000);
    assert.equal(await texts.read(held), long('x'));
  });

  const record = (job: string, change: Partial<JobRecord> = {}): JobRecord => ({
    job,
    owner: 'ada',
    key: null,
    request: 'r',
    state: 'accepted',
    pointer: null,
    source: { text: '' },
    language: 'javascript',
    method: 'm',
    params: { text: '[]' },
    driver: null,
    labels: {},
    nodes: ['*'],
    memory_mib: null,
    grants: NO_GRANTS,
    timeout_ms: 1,
    load_timeout_ms: 1,
    max_attempts: 3,
    retry_on_error: false,
    attempts: 0,
    worker: null,
    node: null,
    history: [],
    accepted_at: 0,
    ended_at: 0,
    result: null,
    error: null,
    ...change,
  });
  const storeOver = (kv: ReturnType<typeof fresh>, kept = { jobs: 1_000, ms: 1e12 }, ended: string[] = []) =>
    new SpoolStore({
      kv,
      now: () => 1_000,
      kept,
      ended: ({ record: { job } }) => ended.push(job),
      failed: (_job, error) => assert.fail(String(error)),
    });

  it('a job has one end, whoever comes first, and it is the one on disk', async () => {
    const state = fc.constantFrom<JobState>('running', 'accepted', 'done', 'failed', 'cancelled');
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(state, { minLength: 1, maxLength: 4 }), { maxLength: 8 }), async (rounds) => {
        const kv = fresh();
        const ended: string[] = [];
        const store = storeOver(kv, undefined, ended);
        const open = (await store.add(record('j-1')))!;
        let end: JobState | undefined;
        for (const wanted of rounds) {
          const moved = await Promise.all(wanted.map((to) => store.move(open, () => ({ state: to }))));
          for (const [at, did] of moved.entries()) {
            assert.equal(did, end === undefined, 'after an end nothing moves it');
            if (did && ENDED.has(wanted[at]!)) end = wanted[at];
          }
        }
        assert.deepEqual(ended, end === undefined ? [] : ['j-1'], 'one end is told');
        const again = storeOver(kv);
        const left = await again.load();
        assert.deepEqual(
          left.map(({ record: r }) => r.job),
          end === undefined ? ['j-1'] : [],
        );
        if (end !== undefined) assert.equal((await again.read('j-1'))!.state, end);
      }),
      { numRuns: 40 },
    );
  });

  it('what a job may do is held outside its record until it ends, also over a restart, and is gone then', async () => {
    const kv = fresh();
    const store = storeOver(kv);
    const rights = { labels: { a: 'b' }, grants: NO_GRANTS, secrets: { KEY: long('s') } };
    const kept = await store.texts.keep(JSON.stringify(rights));
    assert.ok(store.texts.chars > 200_000, 'it counts');
    await store.add(record('j-1', { rights: kept }));
    const again = storeOver(kv);
    const [open] = await again.load();
    assert.deepEqual(await again.rightsOf(open!.record), rights);
    assert.ok(JSON.stringify(open!.record).length < 2_000, 'little of it stands in memory');
    await again.move(open!, () => ({ state: 'done' }));
    assert.equal(open!.record.rights, undefined);
    while (again.texts.chars > 0) await new Promise((resolve) => setImmediate(resolve));
    const { rights: _, ...old } = record('j-2', { ...rights, secrets: { KEY: 'value' } });
    assert.deepEqual(await again.rightsOf(old), { ...rights, secrets: { KEY: 'value' } }, 'as older cores kept it');
    await again.move((await again.add(old))!, () => ({ state: 'done' }));
    assert.equal((await again.read('j-2'))!.secrets, undefined);
  });

  it('a store that was changed behind its back is believed', async () => {
    const kv = fresh();
    const ended: string[] = [];
    const store = storeOver(kv, undefined, ended);
    const open = (await store.add(record('j-1'))) as Open;
    await kv.put('job/j-1', JSON.stringify(record('j-1', { state: 'done', result: { text: '1' } })));
    assert.equal(await store.move(open, () => ({ state: 'failed' })), false);
    assert.deepEqual([open.record.state, ended], ['done', ['j-1']]);
  });

  it('the oldest that have ended are forgotten, with results and keys; open ones never', async () => {
    const kv = fresh();
    const store = storeOver(kv, { jobs: 2, ms: 1e12 });
    await store.add(record('j-open'));
    for (let i = 0; i < 4; i++) {
      const name = keyName('ada', `k${i}`);
      assert.equal(await store.bind(name, `j-${i}`), `j-${i}`);
      assert.equal(await store.bind(name, 'j-other'), `j-${i}`, 'a key is bound once');
      const open = (await store.add(record(`j-${i}`, { key: `k${i}` })))!;
      const result = await store.texts.keep(long(String(i)));
      await store.move(open, () => ({ state: 'done', result }));
    }
    for (let i = 0; i < 1500 && (await kv.list('key/')).entries.length > 2; i++)
      await new Promise((resolve) => setTimeout(resolve, 10));
    const known = await Promise.all(['j-open', 'j-0', 'j-1', 'j-2', 'j-3'].map((job) => store.read(job)));
    assert.deepEqual(
      known.map((found) => found !== undefined),
      [true, false, false, true, true],
    );
    assert.equal((await kv.list('key/')).entries.length, 2);
    assert.equal(store.texts.chars, 400_000);
    assert.equal(await store.keyed(keyName('ada', 'k0')), undefined);
    await assert.rejects(store.same('j-3', 'another request', 'k3'), KeyReused);
  });

  it('a key that was bound, and came to no job before a crash, is free again', async () => {
    const kv = fresh();
    const name = keyName('ada', 'k');
    await storeOver(kv).bind(name, 'j-never');
    const store = storeOver(kv);
    await store.load();
    assert.equal(await store.keyed(name), undefined);
  });

  /** A runner whose one node takes every job; `call` is the job's own code. */
  const running = (store: SpoolStore, call: () => Promise<unknown>, events: string[]) =>
    new Runner({
      store,
      registry: { watch: () => {}, nodes: new Map() } as unknown as Registry,
      swarm: {
        async place(_order, { name, chosen }) {
          await chosen!(name(), { info: { node: 'one' } } as RegisteredNode, 'quickjs');
          return {} as Awaited<ReturnType<Swarm['place']>>;
        },
      },
      connect: async () => ({ call, close() {}, open: true }) as unknown as Session,
      event: (event) => void events.push(event),
      node_grace_ms: 1,
      now: () => 1_000,
    });
  const full = () => new StorageFailed({ what: 'the disk is full' });

  it('a job that throws what a full disk throws has failed by its own error, begun once', async () => {
    const store = storeOver(fresh());
    const events: string[] = [];
    const open = (await store.add(record('j-1', { max_attempts: 1 })))!;
    const ended = new Promise<void>((resolve) => open.waiters.add(resolve));
    let runs = 0;
    const runner = running(
      store,
      async () => {
        runs++;
        throw full();
      },
      events,
    );
    runner.take(open);
    await ended;
    runner.close();
    assert.deepEqual([open.record.state, open.record.error?.data?.name, runs], ['failed', 'StorageFailed', 1]);
    assert.deepEqual(events, ['SPOOL_STARTED']);
  });

  it('a job whose kept text is damaged has failed, and is not tried again', async () => {
    const kv = fresh();
    const store = storeOver(kv);
    const source = await store.texts.keep(long('x'));
    for (const { key } of (await kv.list('text/')).entries) await kv.put(key, 'z');
    const open = (await store.add(record('j-1', { source, retry_on_error: true, max_attempts: 3 })))!;
    const ended = new Promise<void>((resolve) => open.waiters.add(resolve));
    const events: string[] = [];
    const runner = running(store, async () => assert.fail('none of it may run'), events);
    runner.take(open);
    await ended;
    runner.close();
    assert.deepEqual([open.record.state, open.record.error?.data?.name, events], ['failed', 'StorageFailed', []]);
    assert.match(open.record.error!.message, /damaged/);
  });

  it('a job whose attempt the core cannot record waits for room on the disk, and that is no attempt', async () => {
    const kv = fresh();
    let refused = 0;
    const refusing: typeof kv = Object.assign(Object.create(kv), {
      put: async (...args: Parameters<typeof kv.put>) => {
        if (refused === 2 || !args[1].includes('"state":"running"')) return kv.put(...args);
        refused++;
        throw full();
      },
    });
    const store = storeOver(refusing);
    const open = (await store.add(record('j-1', { max_attempts: 1 })))!;
    const ended = new Promise<void>((resolve) => open.waiters.add(resolve));
    let runs = 0;
    const runner = running(store, async () => ++runs, []);
    runner.take(open);
    await ended;
    runner.close();
    assert.deepEqual([open.record.state, open.record.attempts, refused, runs], ['done', 1, 2, 1]);
  });

  it('what a crash left is tried to be removed, and kept where the disk is full', async () => {
    const kv = fresh();
    const before = storeOver(kv);
    await before.bind(keyName('ada', 'k'), 'j-never');
    await before.texts.keep(long('x'));
    await before.add(record('j-1'));
    const refused: string[] = [];
    const stuck: typeof kv = Object.assign(Object.create(kv), { delete: () => Promise.reject(full()) });
    const store = new SpoolStore({
      kv: stuck,
      now: () => 1_000,
      kept: { jobs: 1_000, ms: 1e12 },
      ended: () => {},
      failed: (what) => refused.push(what),
    });
    assert.deepEqual(
      (await store.load()).map((open) => open.record.job),
      ['j-1'],
    );
    assert.deepEqual(refused, [keyName('ada', 'k')]);
    await storeOver(kv).load();
    assert.deepEqual([await pieces(kv), (await kv.list('key/')).entries.length], [0, 0]);
  });

  it('lists page by page what passes, newest first', async () => {
    const store = storeOver(fresh());
    const ids = Array.from({ length: 7 }, (_, i) => newJobId(1_000 + i, 'a'));
    for (const [i, job] of ids.entries()) await store.add(record(job, { owner: i % 2 ? 'eve' : 'ada' }));
    const seen: string[] = [];
    for (let after: string | undefined; ; ) {
      const page = await store.list(({ owner }) => owner === 'ada', { after, limit: 2 });
      seen.push(...page.records.map(({ job }) => job));
      after = page.next;
      if (after === undefined) break;
    }
    assert.deepEqual(seen, [ids[6], ids[4], ids[2], ids[0]]);
  });
});
