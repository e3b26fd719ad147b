/** The spool: an accepted job ends with exactly one recorded result, whatever is killed; and nothing of it is left. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { startNode } from '@hauki/cli';
import {
  BadInput,
  connect,
  DeadlineExceeded,
  Forbidden,
  isError,
  JobCancelled,
  JobEnded,
  JobUnknown,
  KeyReused,
  OutcomeUnknown,
  RemoteError,
  SourceRejected,
  type SpooledJob,
} from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { DRIVERS, missing, restartCore, type TestMesh, traces, until, useMesh } from './support/mesh.ts';
import { storm } from './support/spool-storm.ts';

const SOURCE = `
  export const add = (a, b) => a + b;
  export const named = ({ a, b }) => a - b;
  export const nothing = () => {};
  export const long = (size) => 'ä'.repeat(size);
  export const fail = () => { throw new RangeError('not like this'); };
  export const rest = async (ms) => { await new Promise((resolve) => setTimeout(resolve, ms)); return ms; };
  export const spin = () => { for (;;) {} };
  export const where = () => hauki.worker;
`;
const origin = { source: SOURCE };

const gone = (used: TestMesh, job: SpooledJob) =>
  until(`nothing of ${job.job} is left`, async () => {
    const { workers } = await used.mesh.registry();
    return !workers.some(({ worker }) => worker.includes(job.job.slice(2))) && traces(job.job.slice(2)).length === 0;
  });

const ended = (job: SpooledJob<any>) => job.result({ timeout_ms: 30_000 });

async function restartNode(used: TestMesh, driver: string): Promise<void> {
  await used.local.nodes[0]!.kill();
  used.local.nodes[0] = await addNode(used, driver);
}

const addNode = ({ local }: TestMesh, driver: string) =>
  startNode({
    core_url: local.url,
    data_dir: join(local.data_dir, 'node'),
    token_file: nodeTokenFile(local.data_dir),
    drivers: [driver],
  });

for (const driver of DRIVERS) {
  describe(`a spooled job, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    it('runs once, and its result is kept when nothing of its worker is left', async () => {
      const job = await used.mesh.spool<number>(origin, { method: 'add', params: [20, 22] });
      assert.equal(await ended(job), 42);
      const { state, attempts, history, ended_at } = await job.state();
      assert.deepEqual([state, attempts, history], ['done', 1, []]);
      assert.ok(ended_at! > 0);
      await gone(used, job);
      assert.equal(await used.mesh.jobs.get<number>(job.job).result(), 42, 'also to who asks later');
    });

    it('is tried again when its node is killed with -9, and says how often', async () => {
      const job = await used.mesh.spool<number>(origin, { method: 'rest', params: [1_500] });
      await until('it runs', async () => (await used.mesh.registry()).workers.length > 0);
      await restartNode(used, driver);
      assert.equal(await ended(job), 1_500);
      const { attempts, history } = await job.state();
      assert.equal(attempts, 2);
      assert.equal(history.length, 1);
      assert.equal(history[0]!.attempt, 1);
      await gone(used, job);
    });
  });
}

describe('the spool', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });

  it('takes parameters by name, and gives nothing as null', async () => {
    const ask = (body: object) =>
      fetch(new URL('/api/v2/omega_spool', used.local.url), {
        method: 'POST',
        headers: { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ source: SOURCE, ...body }),
      });
    const accepted = await ask({ method: 'named', params: { a: 5, b: 3 } });
    assert.equal(accepted.status, 202);
    const { status, job, state } = (await accepted.json()) as any;
    assert.deepEqual([status, state], ['success', 'accepted']);
    assert.equal(await ended(used.mesh.jobs.get(job)), 2);
    assert.equal(await ended(await used.mesh.spool(origin, { method: 'nothing' })), null);
    for (const body of [{}, { method: 'add', params: 7 }, { method: 'add', attempts: 0 }, { method: 'add', more: 1 }])
      assert.equal((await ask(body)).status, 400, JSON.stringify(body));
    assert.equal((await ask({ method: 'add', key: 'with space' })).status, 400);
  });

  it('keeps large parameters and results whole', async () => {
    const size = 300_000;
    const result = await ended(await used.mesh.spool<string>(origin, { method: 'long', params: [size] }));
    assert.equal(result, 'ä'.repeat(size));
    const echo = { source: 'export const echo = (x) => x;' };
    assert.equal(await ended(await used.mesh.spool<string>(echo, { method: 'echo', params: [result] })), result);
  });

  it('records what its code threw, and does not try that again unless told', async () => {
    const job = await used.mesh.spool(origin, { method: 'fail' });
    await assert.rejects(ended(job), (e) => isError(e, RemoteError) && /RangeError: not like this/.test(e.message));
    assert.equal((await job.state()).attempts, 1);
    const stubborn = await used.mesh.spool(origin, { method: 'fail', retry_on_error: true, attempts: 3 });
    await assert.rejects(ended(stubborn), (e) => isError(e, RemoteError));
    const { attempts, history } = await stubborn.state();
    assert.equal(attempts, 3);
    assert.deepEqual(
      history.map(({ attempt }) => attempt),
      [1, 2],
    );
    await gone(used, stubborn);
  });

  it('fails a job whose source cannot be, or that takes too long, and ends its worker', async () => {
    const bad = await used.mesh.spool({ source: 'export const a = (;' }, { method: 'a' });
    await assert.rejects(ended(bad), (e) => isError(e, SourceRejected));
    const spinning = await used.mesh.spool(origin, { method: 'spin', timeout_ms: 500 });
    await assert.rejects(ended(spinning), (e) => isError(e, DeadlineExceeded) && e.fields.timeout_ms === 500);
    await gone(used, spinning);
  });

  it('takes the same key for the same job, and refuses it for another', async () => {
    const wanted = { method: 'where', key: 'order-77' };
    const jobs = await Promise.all(Array.from({ length: 8 }, () => used.mesh.spool(origin, wanted)));
    assert.equal(new Set(jobs.map(({ job }) => job)).size, 1);
    const result = await ended(jobs[0]!);
    const again = await used.mesh.spool(origin, wanted);
    assert.equal(again.job, jobs[0]!.job);
    assert.equal(await ended(again), result);
    await assert.rejects(
      used.mesh.spool(origin, { ...wanted, params: [1] }),
      (e) => isError(e, KeyReused) && e.fields.job === again.job,
    );
  });

  it('cancels what runs, and nothing that has ended', async () => {
    const job = await used.mesh.spool(origin, { method: 'rest', params: [60_000] });
    await until('it runs', async () => (await job.state()).state === 'running');
    const waiting = assert.rejects(ended(job), (e) => isError(e, JobCancelled));
    await job.cancel();
    assert.equal((await job.state()).state, 'cancelled');
    await waiting;
    await gone(used, job);
    await job.cancel();
    const done = await used.mesh.spool(origin, { method: 'add', params: [1, 1] });
    await ended(done);
    await assert.rejects(done.cancel(), (e) => isError(e, JobEnded) && e.fields.state === 'done');
    assert.equal(await ended(done), 2);
  });

  it('knows no job that it never took', async () => {
    const nobody = used.mesh.jobs.get('j-nobody');
    for (const ask of [nobody.result(), nobody.cancel(), nobody.state()])
      await assert.rejects(ask, (e) => isError(e, JobUnknown));
    await assert.rejects(used.mesh.jobs.get('../x').state(), (e) => isError(e, BadInput));
  });

  it('lists jobs a page at a time, newest first, and by state', async () => {
    const jobs: string[] = [];
    for (let i = 0; i < 5; i++) jobs.push((await used.mesh.spool(origin, { method: 'add', params: [i, i] })).job);
    await Promise.all(jobs.map((job) => ended(used.mesh.jobs.get(job))));
    const listed: string[] = [];
    for (let after: string | undefined; listed.length < 5; ) {
      const page = await used.mesh.jobs.list({ limit: 2, ...(after ? { after } : {}) });
      assert.ok(page.jobs.length <= 2);
      listed.push(...page.jobs.map(({ job }) => job));
      after = page.next;
    }
    assert.deepEqual(new Set(listed.slice(0, 5)), new Set(jobs));
    assert.deepEqual((await used.mesh.jobs.list({ state: 'accepted' })).jobs, []);
    assert.ok((await used.mesh.jobs.list({ state: 'done' })).jobs.every(({ state }) => state === 'done'));
  });

  it('shows and cancels a token’s own jobs to it, runs them on its nodes only, and takes a key from each owner', async () => {
    const holder = async (nodes: string[]) => {
      const { token } = await used.mesh.tokens.create({ name: 'clerk', scopes: ['spool'], targets: { nodes } });
      return connect({ core: used.local.url, token });
    };
    await using here = await holder([used.local.nodes[0]!.node]);
    await using nowhere = await holder(['another']);
    const options = { method: 'add', params: [1, 2], key: 'same' };
    const mine = await here.spool<number>(origin, options);
    const theirs = await used.mesh.spool<number>(origin, options);
    assert.notEqual(mine.job, theirs.job);
    assert.deepEqual([await ended(mine), await ended(theirs)], [3, 3]);
    assert.deepEqual(
      (await here.jobs.list()).jobs.map(({ job }) => job),
      [mine.job],
    );
    for (const ask of [here.jobs.get(theirs.job).result(), here.jobs.get(theirs.job).cancel()])
      await assert.rejects(ask, (e) => isError(e, Forbidden));
    assert.equal(await used.mesh.jobs.get(mine.job).result(), 3, 'an admin may');
    const stuck = await nowhere.spool(origin, options);
    await until('it waits for its node', async () => /No node fits/.test((await stuck.state()).why ?? ''));
    await stuck.cancel();
    await assert.rejects(here.provision(origin), (e) => isError(e, Forbidden));
  });

  it('says that the outcome is unknown when the only attempt is cut off by the end of the core', async () => {
    const once = await used.mesh.spool(origin, { method: 'rest', params: [2_000], attempts: 1 });
    const twice = await used.mesh.spool(origin, { method: 'rest', params: [2_000], attempts: 2 });
    await until('both run', async () => {
      const states = await Promise.all([once.state(), twice.state()]);
      return states.every(({ state }) => state === 'running') && (await used.mesh.registry()).workers.length === 2;
    });
    await restartCore(used.local);
    await assert.rejects(ended(once), (e) => isError(e, OutcomeUnknown));
    assert.equal(await ended(twice), 2_000);
    assert.equal((await twice.state()).attempts, 2);
    for (const job of [once, twice]) await gone(used, job);
  });
});

describe('a spool without a node', () => {
  const used = useMesh({ nodes: [] });

  it('keeps jobs over kills of the core, runs them as they were accepted when a node comes, and no cancelled ones', async () => {
    const pointer = 'gem-pointer://wiki/jobs/adder.js';
    const write = (content: string) => used.mesh.meshfs.write(pointer, content, { language: 'javascript' });
    await write('export const add = (a, b) => a + b;');
    const jobs: SpooledJob[] = [];
    for (let i = 0; i < 5; i++) jobs.push(await used.mesh.spool(pointer, { method: 'add', params: [i, 100] }));
    await write('export const add = () => "too new";');
    await jobs[0]!.cancel();
    await until('it says why it waits', async () => /No node fits/.test((await jobs[1]!.state()).why ?? ''));
    await restartCore(used.local);
    await jobs[1]!.cancel();
    await restartCore(used.local);
    used.local.nodes.push(await addNode(used, 'quickjs'));
    assert.deepEqual(await Promise.all(jobs.slice(2).map(ended)), [102, 103, 104]);
    for (const job of jobs.slice(0, 2)) {
      const { state, attempts } = await job.state();
      assert.deepEqual([state, attempts], ['cancelled', 0]);
      await assert.rejects(ended(job), (e) => isError(e, JobCancelled));
    }
  });
});

describe('under kill -9 of core and agents', () => {
  it('every accepted job ends with exactly one recorded result', async () => {
    const report = await storm({
      kills: 10,
      agents: 2,
      scripts: 4,
      core_ms: 600,
      agent_ms: 300,
      random: Math.random,
    });
    assert.ok(report.kills.core > 0 && report.kills.agent > 0 && report.jobs > 0, JSON.stringify(report));
  });
});
