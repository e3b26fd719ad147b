/** A node's link: it registers first, and has no more of MeshFS than its workers were granted. */
import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { connect, createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import {
  BadInput,
  type CoreForNode,
  type ErrorClass,
  type Fate,
  Forbidden,
  GrantMissing,
  isError,
  LIMITS,
  NameTaken,
  NO_GRANTS,
  type NodeForCore,
  normaliseGrants,
  type Provisioned,
  type WorkerInfo,
} from '@hauki/protocol';
import { encode, remote, Session, serve } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { NODE_LIMITS } from '../src/limits.ts';
import { serveLink } from '../src/links.ts';
import { Registry } from '../src/registry.ts';
import { NODE, type Principal } from '../src/rights.ts';

const refuses = (promise: Promise<unknown>, kind: ErrorClass<any>) =>
  assert.rejects(promise, (error: Error) => isError(error, kind) || assert.fail(`${error.name}: ${error.message}`));

const worker = (change: Partial<WorkerInfo> = {}): WorkerInfo => ({
  worker: 'w-invented',
  owner: 'admin',
  driver: 'quickjs',
  isolation: 'vm',
  epoch: 1,
  direct: { host: '127.0.0.1', port: 1, tls: false },
  memory_mib: 32,
  grants: NO_GRANTS,
  lease: { heartbeat_ms: 5_000, lease_ms: 30_000 },
  pid: 1,
  born_at: 0,
  lease_until: 0,
  ...change,
});
const fate: Fate = { worker: 'w-a', owner: 'admin', cause: 'exited', reason: 'r', at: 0, lines: [] };

describe('a node’s link', () => {
  const registry = new Registry();
  const asked: string[] = [];
  const logged: string[] = [];
  let principal: Principal = NODE;
  const server = createServer((socket) =>
    serveLink(socket, {
      registry,
      keys: { keys: [] },
      core_id: 'c',
      principal,
      log: (line) => logged.push(line),
      family: { clone: async (_node, worker) => ({ worker: `${worker}-clone` }) },
      meshfs: {
        write: async ({ pointer }) => ({ pointer: asked.push(pointer) }),
        resolve: async (pointer) => {
          asked.push(pointer);
          return { pointer, content: 'x', media_type: 'text/plain' };
        },
      },
    }),
  );
  before(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
  after(() => server.close());

  const dial = (node: Partial<NodeForCore> | object = {}) => {
    const session = new Session({
      transport: streamTransport(connect((server.address() as AddressInfo).port, '127.0.0.1')),
      dispatch: serve(node, Object.keys(node) as never[]),
      // As a node does: within a session of other values two mentions of one object are one.
      literal: encode,
    });
    return { session, core: remote<CoreForNode>(session) };
  };
  const info = (node: string) => ({ node, labels: {}, drivers: {}, memory_mib: 1, cores: 1 });
  const load = { workers: 0, memory_used_mib: 0, cpu: 0 };

  it('does nothing before it has registered, and registers once', async () => {
    const { session, core } = dial();
    await refuses(core.meshfs_resolve('w-a', 'gem-pointer://wiki/a/b'), Forbidden);
    await refuses(
      core.worker_died({ worker: 'w-a', owner: '', cause: 'killed', reason: '', at: 0, lines: [] }),
      BadInput,
    );
    await refuses(core.register({ ...info('Bad Name') }, load, [], []), BadInput);
    await refuses(core.register({ node: 'n' } as never, load, [], []), BadInput);
    await core.register(info('north'), load, [], []);
    await refuses(core.register(info('south'), load, [], []), BadInput);
    assert.deepEqual([...registry.nodes.keys()], ['north']);
    session.close();
  });

  it('is silent from some time after its last report on until the next', async () => {
    const { session, core } = dial();
    await core.register(info('quiet'), load, [], []);
    const node = registry.nodes.get('quiet')!;
    const isSilent = () => registry.silence()(node);
    assert.equal(isSilent(), false);
    node.heard_at -= NODE_LIMITS.silent_ms + 1;
    assert.equal(isSilent(), true);
    await core.report(load);
    assert.equal(isSilent(), false);
    session.close();
  });

  it('is that of a node which its token names', async () => {
    principal = { ...NODE, targets: { ...NODE.targets, nodes: ['mine'] } };
    const { session, core } = dial();
    await refuses(core.announce('other', [], []), Forbidden);
    await refuses(core.register(info('other'), load, [], []), Forbidden);
    await core.register(info('mine-0a1b2c'), load, [], []);
    principal = NODE;
    assert.ok(!registry.nodes.has('other') && registry.nodes.has('mine-0a1b2c'));
    session.close();
  });

  it('says of its own vaults alone that they are there', async () => {
    const { session, core } = dial();
    await core.register(info('ready'), load, [], []);
    const ready: string[] = [];
    for (const [name, home] of [
      ['w-ours', 'ready'],
      ['w-theirs', 'elsewhere'],
    ] as const) {
      const note = () => void ready.push(name);
      registry.forging.set(name, { worker: name, owner: 'admin', node: home, grants: NO_GRANTS, ready: note });
      await core.vault_ready({ worker: name } as Provisioned);
    }
    assert.deepEqual(ready, ['w-ours']);
    session.close();
  });

  it('hears that the end of a worker is known when that is on disk', async (t) => {
    const { session, core } = dial();
    await core.register(info('durable'), load, [], []);
    registry.born({ ...worker({ worker: 'w-durable' }), node: 'durable' });
    const disk = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    t.mock.method(registry.fates, 'saved', () => {
      asked.resolve();
      return disk.promise;
    });
    let heard = false;
    const told = core.worker_died({ ...worker(), ...fate, worker: 'w-durable', epoch: 1 }).then(() => {
      heard = true;
    });
    await Promise.race([asked.promise, told]);
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(heard, false);
    disk.resolve();
    await told;
    session.close();
  });

  it('reaches the pointers that its own workers were granted, and no others', async () => {
    const { session, core } = dial();
    await core.register(info('east'), load, [], []);
    const grants = normaliseGrants({
      meshfs: { read: ['gem-pointer://wiki/a/'], write: ['gem-pointer://wiki/a/out'] },
    });
    registry.forging.set('w-mine', { worker: 'w-mine', owner: 'admin', node: 'east', grants });
    registry.forging.set('w-other', { worker: 'w-other', owner: 'admin', node: 'west', grants });
    await core.meshfs_resolve('w-mine', 'gem-pointer://wiki/a/b');
    await core.meshfs_write('w-mine', 'gem-pointer://wiki/a/out', 'x');
    assert.deepEqual(asked, ['gem-pointer://wiki/a/b', 'gem-pointer://wiki/a/out']);
    await refuses(core.meshfs_resolve('w-mine', 'gem-pointer://wiki/b/c'), GrantMissing);
    await refuses(core.meshfs_write('w-mine', 'gem-pointer://wiki/a/b', 'x'), GrantMissing);
    await refuses(core.meshfs_resolve('w-other', 'gem-pointer://wiki/a/b'), Forbidden);
    await refuses(core.meshfs_resolve('w-nobody', 'gem-pointer://wiki/a/b'), Forbidden);
    assert.equal(asked.length, 2);
    session.close();
  });

  it('reads nothing for a worker of the node’s own invention, which is listed nowhere', async () => {
    const { session, core } = dial();
    const grants = normaliseGrants({ meshfs: { read: ['gem-pointer://secret/'], write: ['gem-pointer://secret/'] } });
    await core.register(info('liar'), load, [worker({ grants })], []);
    await refuses(core.meshfs_resolve('w-invented', 'gem-pointer://secret/plans'), Forbidden);
    await refuses(core.meshfs_write('w-invented', 'gem-pointer://secret/plans', 'x'), Forbidden);
    assert.ok(!registry.workers.has('w-invented'));
    assert.ok(logged.some((line) => line.includes('1 workers that this core has not placed')));
    session.close();
  });

  it('tells the end of workers that were placed on it, and of no others', async () => {
    const { session, core } = dial();
    const end = (name: string, epoch: number) => ({ ...worker(), ...fate, worker: name, epoch, owner: 'bob' });
    await core.register(info('teller'), load, [], [end('counter', 1e9)]);
    await core.worker_died(end('counter', 1e9));
    assert.equal(registry.fate('counter'), undefined);
    registry.born({ ...worker({ worker: 'w-real' }), node: 'teller' });
    await core.worker_died(end('w-real', 1e9));
    assert.ok(registry.workers.has('w-real'));
    await core.worker_died(end('w-real', 1));
    assert.equal(registry.fate('w-real')!.owner, 'admin', 'whose it was the core knows itself');
    session.close();
  });

  it('registers with all that it announced before, under one name and within the bounds of one node', async () => {
    const { session, core } = dial();
    registry.born({ ...worker({ worker: 'w-ahead' }), node: 'long' });
    registry.born({ ...worker({ worker: 'w-last' }), node: 'long' });
    registry.born({ ...worker({ worker: 'w-ended' }), node: 'long' });
    await core.announce('long', [worker({ worker: 'w-ahead' })], []);
    await core.announce('long', [], [{ ...fate, worker: 'w-ended', reason: 'its own' }]);
    await refuses(core.announce('short', [], []), BadInput);
    await refuses(core.announce('Bad Name', [], []), BadInput);
    await refuses(core.register(info('short'), load, [], []), BadInput);
    const most = Array.from({ length: LIMITS.vaults_per_node }, (_, i) => worker({ worker: `w-${i}` }));
    await refuses(core.announce('long', most, []), BadInput);
    await refuses(core.register(info('long'), load, most, []), BadInput);
    await core.register(info('long'), load, [worker({ worker: 'w-last' })], []);
    assert.ok(registry.workers.has('w-ahead') && registry.workers.has('w-last'));
    assert.equal(registry.fate('w-ended')!.reason, 'its own');
    await refuses(core.announce('long', [], []), BadInput);
    session.close();
  });

  it('is the only one under its name: a second is refused while the first answers, and no worker is lost by it', async () => {
    const first = dial({ workers: () => [] });
    await first.core.register(info('twin'), load, [], []);
    registry.born({ ...worker({ worker: 'w-kept' }), node: 'twin' });
    const second = dial();
    await refuses(second.core.register(info('twin'), load, [], []), NameTaken);
    assert.ok(registry.workers.has('w-kept'));
    second.session.close();
    assert.equal(registry.nodes.get('twin')!.session.open, true);
    first.session.close();
    await registry.nodes.get('twin')?.session.closed;
    const third = dial();
    await third.core.register(info('twin'), load, [], []);
    assert.ok(registry.nodes.has('twin'));
    third.session.close();
  });

  it('gives way to another under its name when it does not answer, and is ended then', async () => {
    const silent = dial({ workers: () => new Promise<never>(() => {}) });
    await silent.core.register(info('mute'), load, [], []);
    const before = registry.nodes.get('mute');
    const next = dial();
    await next.core.register(info('mute'), load, [], []);
    assert.notEqual(registry.nodes.get('mute'), before);
    await silent.session.closed;
    assert.ok(registry.nodes.has('mute'), 'the end of the first is not taken for that of the second');
    next.session.close();
  });

  it('is refused in words when what it says of itself is not of its kind, and then nothing of it is listed', async () => {
    const quickjs = { available: true, isolation: 'a vm', level: 'vm' };
    const bad: unknown[][] = [
      [{ ...info('bad'), drivers: { quickjs: { ...quickjs, runtimes: {} } } }, load, [], []],
      [{ ...info('bad'), memory_mib: null }, load, [], []],
      [{ ...info('bad'), labels: { a: { b: 1 } } }, load, [], []],
      [{ ...info('bad'), labels: { a: 'x'.repeat(10_000) } }, load, [], []],
      [{ ...info('bad'), labels: { ['x'.repeat(10_000)]: 'a' } }, load, [], []],
      [info('bad'), { ...load, cpu: 'x' }, [], []],
      [info('bad'), {}, [], []],
      [info('bad'), load, [null], []],
      [info('bad'), load, 7, []],
      [info('bad'), load, [worker({ grants: null as never })], []],
      [info('bad'), load, [worker({ epoch: 'x' as never })], []],
      [info('bad'), load, Array.from({ length: LIMITS.vaults_per_node + 1 }, () => worker()), []],
      [info('bad'), load, [], [null]],
      [info('bad'), load, [], 7],
      [info('bad'), load, [], [{ ...fate, worker: 'x'.repeat(5_000) }]],
    ];
    for (const told of bad) {
      const { session, core } = dial();
      await refuses(core.register(...(told as Parameters<CoreForNode['register']>)), BadInput);
      session.close();
    }
    assert.ok(!registry.nodes.has('bad'));
    const { session, core } = dial();
    await core.register(info('good'), load, [], []);
    await refuses(core.report({ ...load, cpu: 'x' } as never), BadInput);
    await refuses(core.report(load, { lxc: 'yes' } as never), BadInput);
    await refuses(core.worker_died(null as never), BadInput);
    for (const worker of [null, 5, ['w-a'], 'x'.repeat(5_000)])
      await refuses(core.clone(worker as never, {} as never), BadInput);
    assert.deepEqual(registry.nodes.get('good')!.load, load);
    const before = registry.nodes.get('good')!.info;
    const drivers = { lxc: { available: true, isolation: 'a container', level: 'container' as const } };
    await core.report(load, drivers);
    assert.deepEqual(registry.nodes.get('good')!.info, { ...before, drivers });
    session.close();
  });
});
