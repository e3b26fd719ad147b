/** The registry: a picture of nodes, workers and fates that corrects itself whenever an agent tells again. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  ConnectionLost,
  type Fate,
  isError,
  LIMITS,
  NO_GRANTS,
  type NodeForCore,
  WorkerDied,
  type WorkerInfo,
  WorkerPaused,
  WorkerRestarting,
  WorkerUnknown,
} from '@hauki/protocol';
import { type RegisteredNode, Registry } from '../src/registry.ts';

/** A registry that takes everybody's word, for what is not about that. */
const trusting = (): Registry => {
  const registry = new Registry();
  registry.trust({ vouched: (voucher) => JSON.parse(String(voucher)) });
  return registry;
};
/** Workers with their vouchers, as far as `trusting` reads them. */
const placed = (node: string, ...workers: WorkerInfo[]): WorkerInfo[] =>
  workers.map((one) => ({ ...one, voucher: JSON.stringify({ ...one, node }) }));

const node = (name: string): RegisteredNode => ({
  info: { node: name, labels: {}, drivers: {}, memory_mib: 1024, cores: 1 },
  load: { workers: 0, memory_used_mib: 0, cpu: 0 },
  rpc: {} as NodeForCore,
  session: {} as RegisteredNode['session'],
  since: 0,
  heard_at: 0,
});

const worker = (name: string): WorkerInfo => ({
  worker: name,
  owner: 'admin',
  driver: 'lxc',
  isolation: 'container',
  epoch: 1,
  direct: { host: '127.0.0.1', port: 1, tls: false },
  memory_mib: 64,
  grants: NO_GRANTS,
  lease: { heartbeat_ms: 1, lease_ms: 2 },
  pid: 1,
  born_at: 0,
  lease_until: 0,
});

const fate = (name: string): Fate => ({
  worker: name,
  owner: 'admin',
  cause: 'out_of_memory',
  reason: 'r',
  at: 0,
  lines: [],
});

describe('the registry', () => {
  it('knows a node and its workers while it is there, and its workers while it is away', () => {
    const registry = trusting();
    const one = node('one');
    registry.register(one, placed('one', worker('a'), worker('b')));
    assert.deepEqual(registry.candidates(), [one]);
    assert.equal(registry.workers.get('a')!.node, 'one');
    registry.away(one);
    assert.deepEqual(registry.candidates(), []);
    assert.equal(registry.workers.size, 2);
  });

  it('asks a node for a worker, and tells why there is none where that ended before the node could answer', async () => {
    const registry = trusting();
    registry.register(node('one'), placed('one', worker('a'), worker('b')));
    assert.equal(await registry.ask('a', async ({ info }) => info.node), 'one');
    const gone = async (name: string, told?: Fate) => {
      if (told) registry.died(told);
      throw new WorkerUnknown({ worker: name });
    };
    await assert.rejects(
      registry.ask('a', () => gone('a', fate('a'))),
      (error) => isError(error, WorkerDied) && error.fields.cause === 'out_of_memory',
    );
    await assert.rejects(
      registry.ask('b', () => gone('b')),
      (error) => isError(error, WorkerUnknown),
    );
  });

  it('counts as lost what a node that comes back no longer has, and nothing of other nodes', () => {
    const registry = trusting();
    registry.register(node('one'), placed('one', worker('a'), worker('b')));
    registry.register(node('two'), placed('two', worker('c')));
    registry.register(node('one'), placed('one', worker('b'), worker('d')));
    assert.deepEqual([...registry.workers.keys()].sort(), ['b', 'c', 'd']);
    assert.equal(registry.fate('a')!.cause, 'node_lost');
    assert.equal(registry.fate('c'), undefined);
  });

  it('does not take the end of an old link for the end of the new one', () => {
    const registry = trusting();
    const before = node('one');
    const now = node('one');
    registry.register(before, []);
    registry.register(now, []);
    registry.away(before);
    assert.deepEqual(registry.candidates(), [now]);
  });

  it('counts workers of a node dead that stays away, and none of one that comes back in time', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const registry = trusting();
    for (const name of ['one', 'two']) {
      const home = node(name);
      registry.register(home, placed(name, worker(name)));
      registry.away(home);
    }
    registry.register(node('one'), placed('one', worker('one')));
    t.mock.timers.tick(LIMITS.node_grace_ms);
    assert.deepEqual([...registry.workers.keys()], ['one']);
    assert.equal(registry.fate('two')!.cause, 'node_lost');
  });

  it('gives each absence of a node its whole time, however often it was away before, and counts nobody dead once closed', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const registry = trusting();
    let home = node('one');
    for (let times = 0; times < 3; times++) {
      registry.register(home, placed('one', worker('w')));
      registry.away(home);
      t.mock.timers.tick(LIMITS.node_grace_ms - 1);
      assert.ok(registry.workers.has('w'), `absence ${times}`);
      home = node('one');
    }
    registry.close();
    t.mock.timers.tick(LIMITS.node_grace_ms);
    assert.equal(registry.fate('w'), undefined);
  });

  it('lets who has a call for a silent node wait until it is heard, or counted away', async () => {
    const registry = trusting();
    const quiet = node('a');
    registry.register(quiet, placed('a', worker('one')));
    quiet.heard_at = performance.now();
    await registry.demandHeard('one');
    quiet.heard_at -= 60_000;
    let over = false;
    const heard = registry.demandHeard('one').then(() => (over = true));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(over, false);
    quiet.heard_at = performance.now();
    await heard;
    quiet.heard_at -= 60_000;
    const waiting = registry.demandHeard('one');
    registry.away(quiet);
    await assert.rejects(waiting, (error) => isError(error, ConnectionLost) && /is away/.test(error.message));
  });

  it('calls nobody dead whose node is only away: that may be tried again, and of a lasting one it is known to come back', () => {
    const registry = trusting();
    const home = node('one');
    registry.register(home, []);
    for (const info of [worker('short'), { ...worker('keeper'), lasting: true as const }])
      registry.born({ ...info, node: 'one' });
    registry.away(home);
    assert.throws(
      () => registry.home('short'),
      (error) =>
        isError(error, ConnectionLost) && error.retryable && /one is away, where short may live/.test(error.message),
    );
    assert.throws(
      () => registry.home('keeper'),
      (error) => isError(error, WorkerRestarting) && error.retryable && error.fields.why === 'its node one is away',
    );
  });

  it('counts a placement at once, and takes it back exactly', () => {
    const registry = trusting();
    const one = node('one');
    const first = registry.reserve(one, 64);
    const second = registry.reserve(one, 32);
    assert.deepEqual(one.load, { workers: 2, memory_used_mib: 96, cpu: 0 });
    first();
    second();
    assert.deepEqual(one.load, { workers: 0, memory_used_mib: 0, cpu: 0 });
  });

  it('remembers a bounded number of fates, the latest', () => {
    const registry = trusting();
    registry.register(node('one'), placed('one', worker('w-0')));
    for (let i = 0; i < LIMITS.fates + 10; i++) registry.died(fate(`w-${i}`));
    assert.equal(registry.workers.size, 0);
    assert.equal(registry.fate('w-9'), undefined);
    assert.equal(registry.fate('w-10')!.cause, 'out_of_memory');
    assert.equal(registry.fate(`w-${LIMITS.fates + 9}`)!.cause, 'out_of_memory');
  });

  it('takes a worker for paused only while its node says so', async () => {
    const registry = trusting();
    const home = node('north');
    const since = new Date(0).toISOString();
    let paused = true;
    home.rpc = {
      mint_ticket: async (name: string) => {
        if (paused) throw new WorkerPaused({ worker: name, since });
        return { jti: 'j', role: 'visitor', secret: 's' };
      },
    } as unknown as NodeForCore;
    registry.register(home, placed('north', { ...worker('a'), paused_at: 1 }));
    await assert.rejects(registry.demandRunning('a'), (error) => isError(error, WorkerPaused));
    paused = false;
    await registry.demandRunning('a');
    assert.equal(registry.find('a').paused_at, undefined);
  });
});
