/** Lasting workers: no heartbeat, started again under a new epoch, never two, until their owner deletes them. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { startNode } from '@hauki/cli';
import {
  BadInput,
  connect,
  destruct,
  Forbidden,
  isError,
  NameTaken,
  NoNodeFits,
  SourceRejected,
  type Ticket,
  TicketMisdirected,
  WorkerDied,
  WorkerUnknown,
} from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import type { CoreForNode } from '@hauki/protocol';
import { makeCallerKey, redeemTicket, remote, Session } from '@hauki/rpc';
import { dialUpgrade, streamTransport } from '@hauki/rpc/node';
import { DRIVERS, missing, restartCore, type TestMesh, traces, until, useMesh } from './support/mesh.ts';

const SOURCE = `
  let count = 0;
  export const next = () => ++count;
  export const where = () => hauki.worker;
`;
interface Counter {
  next(): number;
  where(): string;
}
const origin = { source: SOURCE };

const restartNode = async ({ local }: TestMesh, driver: string, name = 'node', at = 0) => {
  await local.nodes[at]!.kill();
  local.nodes[at] = await startNode({
    core_url: local.url,
    data_dir: join(local.data_dir, name),
    token_file: nodeTokenFile(local.data_dir),
    drivers: [driver],
  });
};

const runs = (used: TestMesh, worker: string, epoch: number) =>
  until(`${worker} runs under epoch ${epoch}`, async () => {
    const { workers } = await used.mesh.registry();
    const found = workers.filter((w) => w.worker === worker);
    return found.length === 1 && found[0]!.epoch === epoch;
  });

for (const driver of DRIVERS) {
  describe(`a lasting worker, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    it('lives without its maker, is listed, called by visitors, and gone when it is deleted', async () => {
      const maker = await connect({ core: used.local.url, token: used.local.token });
      const worker = `counter-${crypto.randomUUID().slice(0, 8)}`;
      const made = await maker.provision(origin, { name: worker, driver });
      const { node } = used.local.nodes[0]!;
      assert.deepEqual(made, { worker, node, epoch: 1, driver });
      await maker.close();
      const counter = used.mesh.visit<Counter>(worker);
      assert.deepEqual([await counter.next(), await counter.next()], [1, 2]);
      const [listed] = (await used.mesh.registry()).workers;
      assert.deepEqual([listed!.lasting, listed!.lease_until], [true, 0]);
      const { state, why, deaths, restarts } = await used.mesh.lasting.get(worker);
      assert.deepEqual([state, why, deaths, restarts], ['running', null, [], 0]);
      await used.mesh.lasting.delete(worker);
      assert.deepEqual((await used.mesh.registry()).workers, []);
      assert.deepEqual(await used.mesh.lasting.list(), []);
      assert.deepEqual(traces(worker), []);
      await assert.rejects(used.mesh.lasting.delete(worker), (e) => isError(e, WorkerUnknown));
    });

    it('is started again with its node under the next epoch, and tickets of the earlier one are void', async () => {
      await used.mesh.provision(origin, { name: 'again', driver });
      const key = await makeCallerKey();
      const answer = await fetch(new URL('/api/v2/ephemeral/again/ticket', used.local.url), {
        method: 'POST',
        headers: { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ audience: key.thumbprint }),
      });
      const { ticket } = (await answer.json()) as { ticket: Ticket };
      await restartNode(used, driver);
      await runs(used, 'again', 2);
      assert.equal(await used.mesh.visit<Counter>('again').next(), 1, 'it begins anew');
      const stream = await dialUpgrade(used.local.url, '/api/v2/ephemeral/again', used.local.token, 5_000);
      const session = new Session({ transport: streamTransport(stream) });
      await assert.rejects(redeemTicket(session, ticket, key), (e) => isError(e, TicketMisdirected));
      session.close();
      const { deaths, epoch, restarts } = await used.mesh.lasting.get('again');
      assert.deepEqual([epoch, restarts, deaths.map(({ cause }) => cause)], [2, 1, ['node_lost']]);
      await used.mesh.lasting.delete('again');
    });

    it('is started again when its vault dies, and it is known why that was', async () => {
      await used.mesh.provision(origin, { name: 'phoenix', driver });
      const { pid } = (await used.mesh.registry()).workers.find(({ worker }) => worker === 'phoenix')!;
      process.kill(pid, 'SIGKILL');
      await runs(used, 'phoenix', 2);
      // A worker is there a moment before its record says so.
      await until('its record says so', async () => (await used.mesh.lasting.get('phoenix')).state === 'running');
      const { deaths } = await used.mesh.lasting.get('phoenix');
      assert.equal(deaths.length, 1);
      assert.ok(deaths[0]!.reason.length > 0);
      assert.equal(await used.mesh.visit<Counter>('phoenix').where(), 'phoenix');
      await used.mesh.lasting.delete('phoenix');
    });
  });
}

describe('lasting workers', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });

  it('are refused where nothing offers the driver asked for, and leave their name free', async () => {
    await assert.rejects(used.mesh.provision(origin, { name: 'strong', driver: 'lxc' }), (e) => isError(e, NoNodeFits));
    const bad = { source: 'export const a = (;' };
    await assert.rejects(used.mesh.provision(bad, { name: 'strong' }), (e) => isError(e, SourceRejected));
    assert.deepEqual(await used.mesh.lasting.list(), []);
    const { worker, epoch } = await used.mesh.provision(origin, { name: 'strong' });
    assert.equal(worker, 'strong');
    assert.ok(epoch > 1, 'an epoch is never used twice');
    await used.mesh.lasting.delete('strong');
  });

  it('have names of their own', async () => {
    const { worker } = await used.mesh.provision(origin);
    assert.match(worker, /^l-[a-z0-9]+$/);
    const both = await Promise.allSettled([1, 2].map(() => used.mesh.provision(origin, { name: 'only-one' })));
    const refused = both.filter((one) => one.status === 'rejected');
    assert.equal(refused.length, 1);
    assert.ok(isError(refused[0]!.reason, NameTaken));
    for (const name of ['Upper', 'a b', '-a', '', 'x'.repeat(33)])
      await assert.rejects(used.mesh.provision(origin, { name }), (e) => isError(e, BadInput), name);
    for (const name of [worker, 'only-one']) await used.mesh.lasting.delete(name);
  });

  it('are not called as clones and jobs’ workers are, which can be told before those are made', async () => {
    const { worker } = await used.mesh.details(used.mesh.clone(origin));
    for (const name of [worker, 'w-a', 's-0abc', 's-0abc-1'])
      await assert.rejects(
        used.mesh.provision(origin, { name }),
        (e) => isError(e, BadInput) && /w- or s-/.test(e.message),
      );
    await used.mesh.destruct(worker);
  });

  it('are not ended by a destruct, which says what does', async () => {
    await used.mesh.provision(origin, { name: 'stays' });
    await assert.rejects(used.mesh.destruct('stays'), (e) => isError(e, BadInput) && /lxc_provision/.test(e.message));
    await used.mesh.lasting.delete('stays');
  });

  it('are kept by a token with the scope provision: its own, and those that it names', async () => {
    const holder = async (workers: string[]) => {
      const targets = { workers, nodes: ['nowhere-else', used.local.nodes[0]!.node] };
      const { token } = await used.mesh.tokens.create({ name: 'keeper', scopes: ['provision'], targets });
      return connect({ core: used.local.url, token });
    };
    await using one = await holder([]);
    await using two = await holder(['shared']);
    await used.mesh.provision(origin, { name: 'shared' });
    await one.provision(origin, { name: 'mine' });
    const names = async (mesh: typeof one) => (await mesh.lasting.list()).map(({ worker }) => worker);
    assert.deepEqual(await names(one), ['mine']);
    assert.deepEqual(await names(two), ['shared']);
    await assert.rejects(one.lasting.delete('shared'), (e) => isError(e, Forbidden));
    await assert.rejects(two.lasting.get('mine'), (e) => isError(e, Forbidden));
    const spying = { meshfs: { read: ['gem-pointer://wiki/'] } };
    await assert.rejects(one.provision(origin, { grants: spying }), (e) => isError(e, Forbidden));
    await assert.rejects(one.spool(origin, { method: 'next' }), (e) => isError(e, Forbidden));
    await two.lasting.delete('shared');
    await used.mesh.lasting.delete('mine');
  });

  it('live on while the core is away, and a new core knows them', async () => {
    await used.mesh.provision(origin, { name: 'steady' });
    const counter = used.mesh.visit<Counter>('steady');
    assert.equal(await counter.next(), 1);
    await used.local.core.kill();
    assert.equal(await counter.next(), 2, 'the direct route needs no core');
    await restartCore(used.local);
    await runs(used, 'steady', 1);
    assert.equal(await counter.next(), 3);
    assert.deepEqual(
      (await used.mesh.lasting.list()).map(({ worker, epoch, state }) => [worker, epoch, state]),
      [['steady', 1, 'running']],
    );
    await used.mesh.lasting.delete('steady');
    await assert.rejects(counter.next(), (e) => isError(e, WorkerDied));
  });

  it('are not taken over by a node that lies, and keep their grants, when the core is started again', async () => {
    const pointer = 'gem-pointer://wiki/lasting/bank.md';
    await used.mesh.meshfs.write(pointer, 'real');
    const source = `export const pay = async () => (await hauki.meshfs.resolve('${pointer}')).content;`;
    const grants = { meshfs: { read: [pointer] } };
    await used.mesh.provision({ source }, { name: 'bank', grants });
    const brief = await used.mesh.clone<{ pay(): string }>({ source }, { grants });
    const { workers } = await used.mesh.registry();
    const real = workers.find(({ worker }) => worker === 'bank')!;
    const name = { name: 'liar', scopes: ['node' as const], targets: { nodes: ['liar'] } };
    const { token } = await used.mesh.tokens.create(name);
    // The honest node stands still, so that the liar is there first.
    const { child } = used.local.nodes[0]!;
    child.kill('SIGSTOP');
    let link: Session;
    try {
      await restartCore(used.local);
      const stream = await dialUpgrade(used.local.url, '/api/v2/node/link', token, 5_000);
      link = new Session({ transport: streamTransport(stream) });
      const info = { node: 'liar', labels: {}, drivers: {}, memory_mib: 1, cores: 1 };
      const load = { workers: 0, memory_used_mib: 0, cpu: 0 };
      const lies = workers.map((one) => ({ ...one, epoch: one.worker === 'bank' ? 99 : 1 }));
      const fates = workers.map(({ worker, owner }) => ({
        ...{ worker, owner, cause: 'exited' as const, reason: 'a lie', at: Date.now(), lines: [], epoch: 1e9 },
      }));
      await remote<CoreForNode>(link).register(info, load, lies, fates);
    } finally {
      child.kill('SIGCONT');
    }
    await runs(used, 'bank', real.epoch);
    assert.equal(await used.mesh.visit<{ pay(): string }>('bank').pay(), 'real');
    assert.equal(await brief.pay(), 'real', 'a worker that the core has no record of has what it was granted');
    const after = (await used.mesh.registry()).workers;
    assert.deepEqual(
      after.map(({ worker, node }) => [worker, node]).sort(),
      workers.map((w) => [w.worker, real.node]).sort(),
    );
    link.close();
    await destruct(brief);
    await used.mesh.lasting.delete('bank');
  });

  it('that were acknowledged are there after a kill -9 of core and node, once each; others are gone', async () => {
    const names = Array.from({ length: 12 }, (_, i) => `storm-${i}`);
    const acknowledged = new Set<string>();
    const asked = Promise.allSettled(
      names.map(async (name, i) => {
        await new Promise((resolve) => setTimeout(resolve, i * 15));
        await used.mesh.provision(origin, { name });
        acknowledged.add(name);
      }),
    );
    await until('some are acknowledged', () => acknowledged.size >= 4);
    await Promise.all([used.local.core.kill(), used.local.nodes[0]!.kill()]);
    await asked;
    await restartCore(used.local);
    await restartNode(used, 'quickjs');
    await until('all of them run', async () => {
      const listed = await used.mesh.lasting.list();
      return listed.every(({ state }) => state === 'running');
    });
    const listed = (await used.mesh.lasting.list()).map(({ worker }) => worker);
    for (const name of acknowledged) assert.ok(listed.includes(name), name);
    await until('what nobody was told of is gone', async () => {
      const { workers } = await used.mesh.registry();
      const living = workers.map(({ worker }) => worker).sort();
      return JSON.stringify(living) === JSON.stringify([...listed].sort());
    });
    for (const name of listed) {
      assert.equal(await used.mesh.visit<Counter>(name).where(), name);
      await used.mesh.lasting.delete(name);
    }
  });

  it('that cannot start show why, and start as soon as they can', async () => {
    const pointer = 'gem-pointer://wiki/lasting/switch.md';
    await used.mesh.meshfs.write(pointer, 'on');
    const moody = `
      const { content } = await hauki.meshfs.resolve('${pointer}');
      if (content !== 'on') throw new Error('switched ' + content);
      export const mood = () => content;`;
    await used.mesh.provision({ source: moody }, { name: 'moody', grants: { meshfs: { read: [pointer] } } });
    await used.mesh.meshfs.write(pointer, 'off');
    await restartNode(used, 'quickjs');
    await until('it has failed twice', async () => (await used.mesh.lasting.get('moody')).deaths.length >= 3);
    const { state, why, next_try_at, deaths } = await used.mesh.lasting.get('moody');
    assert.ok(['restarting', 'starting'].includes(state), state);
    assert.match(why!, /switched off/);
    assert.ok(state === 'starting' || next_try_at! >= deaths.at(-1)!.at, 'it says when it is tried next');
    await assert.rejects(
      Promise.resolve(used.mesh.visit('moody')),
      (e: Error) =>
        /moody is not running just now/.test(e.message) && (e as { retryable?: boolean }).retryable === true,
    );
    await used.mesh.meshfs.write(pointer, 'on');
    await until('it runs again', async () => (await used.mesh.lasting.get('moody')).state === 'running');
    assert.equal(await used.mesh.visit<{ mood(): string }>('moody').mood(), 'on');
    await used.mesh.lasting.delete('moody');
  });
});

describe('a lasting worker whose node is away for too long', () => {
  const used = useMesh({
    nodes: [
      { name: 'one', drivers: ['quickjs'] },
      { name: 'two', drivers: ['quickjs'] },
    ],
  });

  it('is started on another, and the first one’s ends when that comes back: never two', async () => {
    const { node } = await used.mesh.provision(origin, { name: 'mover' });
    const at = used.local.nodes.findIndex((n) => n.node === node);
    const other = used.local.nodes[1 - at]!.node;
    await used.local.core.kill();
    const { child } = used.local.nodes[at]!;
    child.kill('SIGSTOP');
    try {
      await restartCore(used.local, { node_grace_ms: 1_000 });
      await until('it has moved', async () => (await used.mesh.lasting.get('mover')).node === other);
      await runs(used, 'mover', 2);
      assert.equal(await used.mesh.visit<Counter>('mover').next(), 1);
    } finally {
      child.kill('SIGCONT');
    }
    await until('the first node is back', async () => (await used.mesh.registry()).nodes.length === 2);
    await until('its worker has ended', async () => {
      const { nodes } = await used.mesh.registry();
      return nodes.find((n) => n.node === node)!.workers === 0;
    });
    await runs(used, 'mover', 2);
    assert.equal(await used.mesh.visit<Counter>('mover').next(), 2, 'the second one lives on');
    const { deaths, restarts } = await used.mesh.lasting.get('mover');
    assert.deepEqual([restarts, deaths.map(({ node: of }) => of)], [1, [node]]);
    await used.mesh.lasting.delete('mover');
  });
});
