/** Vouchers: a core takes of a worker what it said itself when it placed it, and nothing from its node's word alone. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Job, NO_GRANTS, normaliseGrants, type WorkerInfo } from '@hauki/protocol';
import { type RegisteredNode, Registry, type RegistryWitness } from '../src/registry.ts';
import { Vouchers } from '../src/vouchers.ts';

const grants = normaliseGrants({ meshfs: { read: ['gem-pointer://wiki/a/', 'gem-pointer://wiki/b/'] } });
const job = (change: Partial<Job> = {}): Job => ({
  worker: 'w-one',
  owner: 'ada',
  driver: 'quickjs',
  source: 'export const secret = 1;',
  language: 'javascript',
  memory_mib: 32,
  grants,
  secrets: { KEY: 'the value' },
  lease: { heartbeat_ms: 5_000, lease_ms: 30_000 },
  ttl_ms: 0,
  load_timeout_ms: 1_000,
  ...change,
});
const told = (change: Partial<WorkerInfo> = {}): WorkerInfo => ({
  worker: 'w-one',
  owner: 'ada',
  driver: 'quickjs',
  isolation: 'vm',
  epoch: 1,
  direct: { host: '127.0.0.1', port: 1, tls: false },
  memory_mib: 32,
  grants,
  lease: { heartbeat_ms: 5_000, lease_ms: 30_000 },
  pid: 1,
  born_at: 0,
  lease_until: 0,
  ...change,
});
const node = (name: string) =>
  ({ info: { node: name, drivers: {} }, load: { workers: 0, memory_used_mib: 0, cpu: 0 } }) as RegisteredNode;

const vouchers = new Vouchers('the core’s key');
/** A registry of a core that has just been started. */
const registryOf = (witness: RegistryWitness = {}): Registry => {
  const registry = new Registry();
  registry.trust({ vouched: (voucher) => vouchers.read(voucher), ...witness });
  return registry;
};

describe('a voucher', () => {
  it('says after a restart of the core what was placed where, and neither source nor secrets', () => {
    const voucher = vouchers.sign(job(), 'north');
    const { worker, node: at, epoch, owner, grants: has } = new Vouchers('the core’s key').read(voucher)!;
    assert.deepEqual([worker, at, epoch, owner, has], ['w-one', 'north', 1, 'ada', grants]);
    assert.doesNotMatch(voucher, /secret = 1|the value/);
    const clone = vouchers.read(vouchers.sign(job({ parent: 'w-two', min_isolation: 'container' }), 'north'))!;
    assert.deepEqual([clone.parent, clone.min_isolation], ['w-two', 'container']);
  });

  it('is none when a character of it is another, or another core made it, or it is no text', () => {
    const voucher = vouchers.sign(job(), 'north');
    assert.equal(vouchers.read(voucher.replace('"ada"', '"bob"')), undefined);
    assert.equal(vouchers.read(`x${voucher.slice(1)}`), undefined);
    assert.equal(new Vouchers('another key').read(voucher), undefined);
    for (const none of [undefined, null, 5, {}, '', 'x'.repeat(43), `${'ü'.repeat(43)}{}`])
      assert.equal(vouchers.read(none), undefined);
  });
});

describe('a node that tells the core of a worker', () => {
  it('is not believed without a voucher, or with that of another worker, node or start', () => {
    const others = [
      undefined,
      vouchers.sign(job({ worker: 'w-two' }), 'north'),
      vouchers.sign(job(), 'south'),
      vouchers.sign(job({ epoch: 2 }), 'north'),
    ];
    for (const voucher of others) {
      const registry = registryOf();
      const info = told(voucher === undefined ? {} : { voucher });
      assert.deepEqual(registry.register(node('north'), [info]), ['w-one']);
      assert.equal(registry.workers.size, 0);
    }
  });

  it('gets for it what the core itself had said, whatever it tells beside that', () => {
    const registry = registryOf();
    const everything = normaliseGrants({ meshfs: { read: ['gem-pointer://wiki/'] }, fetch: ['a:1'], clone: 9 });
    const lie = {
      owner: 'bob',
      memory_mib: 1,
      grants: everything,
      lasting: true,
      parent: 'w-x',
      code: { digest: '', modules: [] },
    };
    const voucher = vouchers.sign(job({ cpu: 0.2, turn_ms: 50 }), 'north');
    assert.deepEqual(registry.register(node('north'), [told({ ...lie, cpu: 1, turn_ms: 9_000, voucher })]), []);
    const { owner, memory_mib, grants: has, cpu, turn_ms, ...rest } = registry.find('w-one');
    assert.deepEqual([owner, memory_mib, has, cpu, turn_ms], ['ada', 32, grants, 0.2, 50]);
    for (const member of ['lasting', 'parent', 'code', 'voucher']) assert.ok(!(member in rest), member);
    registry.learn(told({ grants: everything }), 'north');
    assert.deepEqual(
      registry.find('w-one').grants,
      grants,
      'of a worker that is known it needs no voucher, and gets no more',
    );
  });

  it('may say that grants have been taken from it since', () => {
    const registry = registryOf();
    const less = normaliseGrants({ meshfs: { read: ['gem-pointer://wiki/b/'] } });
    registry.register(node('north'), [told({ grants: less, voucher: vouchers.sign(job(), 'north') })]);
    assert.deepEqual(registry.find('w-one').grants.meshfs.read, ['gem-pointer://wiki/b/']);
    registry.regranted('w-one', grants, 'north');
    assert.deepEqual(registry.find('w-one').grants.meshfs.read, ['gem-pointer://wiki/b/'], 'nothing comes back');
    registry.regranted('w-one', NO_GRANTS, 'south');
    assert.deepEqual(registry.find('w-one').grants.meshfs.read, ['gem-pointer://wiki/b/'], 'another node has no say');
  });

  it('takes no worker from another node, nor from a later start, by a voucher of its own', () => {
    const registry = registryOf();
    registry.born({ ...told({ epoch: 2 }), node: 'south' });
    for (const epoch of [1, 2]) {
      const voucher = vouchers.sign(job({ epoch }), 'north');
      assert.deepEqual(registry.register(node('north'), [told({ epoch, voucher })]), ['w-one']);
    }
    assert.deepEqual([registry.find('w-one').node, registry.find('w-one').epoch], ['south', 2]);
  });

  it('cannot bring back one that has died, but for one that was only lost with its node', () => {
    const info = told({ voucher: vouchers.sign(job(), 'north') });
    for (const cause of ['destructed', 'node_lost'] as const) {
      const registry = registryOf();
      registry.died({ worker: 'w-one', owner: 'ada', cause, reason: '', at: 0, lines: [], epoch: 1 });
      assert.deepEqual(registry.register(node('north'), [info]), cause === 'node_lost' ? [] : ['w-one']);
    }
  });

  it('takes no name of a lasting worker that is elsewhere, in another start, deleted, or that nobody remembers', () => {
    const lasting = job({ worker: 'bank', epoch: 3, lasting: true });
    const info = told({ worker: 'bank', epoch: 3, lasting: true, voucher: vouchers.sign(lasting, 'north') });
    const at = (home: string, epoch: number, wanted = true) => ({ placed: () => ({ node: home, epoch, wanted }) });
    for (const witness of [at('south', 3), at('north', 4), at('north', 3, false), { placed: () => undefined }])
      assert.deepEqual(registryOf(witness).register(node('north'), [info]), ['bank']);
    const registry = registryOf(at('north', 3));
    assert.deepEqual(registry.register(node('north'), [info]), []);
    assert.deepEqual(registry.register(node('south'), [{ ...info, epoch: 99 }]), ['bank']);
    assert.equal(registry.find('bank').node, 'north');
  });

  it('is heard on the end of its own workers alone, and on no later start of theirs', () => {
    const voucher = vouchers.sign(job(), 'north');
    const registry = registryOf({
      placed: (worker) => (worker === 'bank' ? { node: 'south', epoch: 2, wanted: true } : undefined),
    });
    const owner = (worker: string, epoch: number, at: string, by?: string) =>
      registry.ownerOf({ worker, epoch, ...(by ? { voucher: by } : {}) }, at);
    assert.equal(owner('counter', 1e9, 'north'), undefined, 'nobody has made it yet');
    assert.equal(owner('w-one', 1, 'north', voucher), 'ada');
    assert.equal(owner('w-one', 2, 'north', voucher), undefined);
    assert.equal(owner('w-one', 1, 'south', voucher), undefined);
    const bank = (at: string, epoch: number) => vouchers.sign(job({ worker: 'bank', epoch, lasting: true }), at);
    assert.equal(owner('bank', 1, 'north', bank('north', 1)), undefined, 'it has moved since');
    assert.equal(owner('bank', 2, 'south', bank('south', 2)), 'ada');
    registry.born({ ...told(), node: 'north' });
    assert.equal(owner('w-one', 1, 'north'), 'ada', 'this core has made it');
    assert.equal(owner('w-one', 1e9, 'north'), undefined);
  });
});
