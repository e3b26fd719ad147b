/** Asking for a worker and placing it: nobody gets more than their token has, and what a node answers is about its job alone. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BadInput,
  ConnectionLost,
  Forbidden,
  type Grants,
  isError,
  type Job,
  NO_GRANTS,
  NoNodeFits,
  OutcomeUnknown,
  Overloaded,
  type Provisioned,
  SourceRejected,
  Unauthorised,
  VaultFailed,
  WorkerDied,
} from '@hauki/protocol';
import { type RegisteredNode, type RegisteredWorker, Registry } from '../src/registry.ts';
import type { Principal, Scope } from '../src/rights.ts';
import { type PlaceOptions, Swarm, type SwarmPowers } from '../src/swarm.ts';
import { Vouchers } from '../src/vouchers.ts';

/** What a node answers to a job. */
const MADE: Provisioned = {
  worker: 'w-one',
  epoch: 1,
  driver: 'quickjs',
  isolation: 'vm',
  direct: { host: '127.0.0.1', port: 9, tls: false },
  ticket: { jti: 'ticket', role: 'owner', secret: 's' },
};

function swarmOver(answer: (job: Job, registry: Registry) => Partial<Provisioned>) {
  const registry = new Registry();
  const events: string[] = [];
  const ended: unknown[][] = [];
  const issued: string[] = [];
  const shares: unknown[] = [];
  let minting = (_worker: string) => {};
  let reserved = 0;
  let over = false;
  const vouchers = new Vouchers('k');
  registry.register(
    {
      info: {
        node: 'north',
        labels: {},
        drivers: { quickjs: { available: true, isolation: '', level: 'vm' } },
        memory_mib: 1_024,
        cores: 1,
      },
      load: { workers: 0, memory_used_mib: 0, cpu: 0 },
      rpc: {
        provision: async (job: Job) => {
          assert.equal(vouchers.read(job.voucher)!.worker, job.worker);
          const { worker, driver, epoch = 1 } = job;
          return { ...MADE, worker, driver, epoch, ...answer(job, registry) };
        },
        destruct: async (...told: unknown[]) => ended.push(told) > 0,
        mint_ticket: async (worker: string, by?: string | null) => {
          shares.push(by);
          minting(worker);
          return { jti: 'ticket', role: 'visitor', secret: 's' };
        },
      },
    } as unknown as RegisteredNode,
    [],
  );
  const swarm = new Swarm({
    registry,
    office: { vouchers, sign: async () => ({}) },
    callers: { issued: (jti: string) => issued.push(jti) },
    quotas: {
      reserve: () => {
        reserved++;
        let release = () => reserved--;
        return () => {
          release();
          release = () => 0;
        };
      },
    },
    event: (name: string) => events.push(name),
    random: () => 0,
    tokens: {
      demandLiving: () => {
        if (over) throw new Unauthorised({ why: 'its token has ended' });
      },
    },
    meshfs: { resolve: async (pointer: string) => ({ pointer, content: 'kept', language: 'javascript' }) },
  } as unknown as SwarmPowers);
  const job = {
    owner: 'ada',
    source: '',
    language: 'javascript' as const,
    grants: NO_GRANTS,
    lease: { heartbeat_ms: 1, lease_ms: 2 },
    ttl_ms: 0,
    load_timeout_ms: 1,
  };
  const place = (more: Partial<Job> = {}, nodes = ['*'], ready?: PlaceOptions['ready'], unread = false) =>
    swarm.place({ job: { ...job, ...more }, labels: {}, nodes, unread }, { name: () => 'w-one', ready });
  const endToken = () => {
    over = true;
  };
  const visits = (meanwhile: typeof minting = () => {}, by = 'bob', worker = 'w-one') => {
    minting = meanwhile;
    return swarm.visitorTicket(worker, 'audience', by);
  };
  return { swarm, registry, events, ended, issued, shares, place, visits, endToken, reserved: () => reserved };
}

describe('what a node answers that is no answer', () => {
  it('makes no ticket for a visitor, and narrows nothing: nobody knows what it did', async () => {
    const { swarm, registry, place, visits } = swarmOver(() => ({}));
    await place();
    const rpc = registry.candidates()[0]!.rpc as unknown as Record<string, unknown>;
    const unknown = (error: unknown) => isError(error, OutcomeUnknown);
    for (const ticket of [null, {}, { jti: 'a ticket', role: 'owner', secret: 's' }, { ...MADE.ticket, more: 1 }]) {
      rpc.mint_ticket = async () => ticket;
      await assert.rejects(visits(), unknown, JSON.stringify(ticket));
    }
    const { grants } = registry.find('w-one');
    for (const told of [null, {}, [5], [{ worker: 'w-one', grants: null }]]) {
      rpc.narrow = async () => told;
      await assert.rejects(swarm.narrow('w-one', NO_GRANTS), unknown, JSON.stringify(told));
    }
    assert.deepEqual(registry.find('w-one').grants, grants);
  });
});

describe('a clone for which there is no node', () => {
  const ada = { id: 'ada', name: 'ada', scopes: ['spawn'], targets: { nodes: ['*'] } } as unknown as Principal;
  const setUp = () => {
    const { swarm, registry, endToken } = swarmOver(() => ({}));
    const [node] = registry.candidates();
    const spawn = () => swarm.spawn({ source: '', audience: '' }, ada);
    return { registry, endToken, spawn, leave: () => registry.away(node!), come: () => registry.register(node!, []) };
  };

  it('goes to the one that comes back a moment after it went away', async () => {
    const { registry, spawn, leave, come } = setUp();
    leave();
    const spawned = spawn();
    setTimeout(come, 20);
    assert.match((await spawned).worker, /^w-/);
    assert.equal(registry.workers.size, 1);
  });

  it('is refused at once where none has gone, and after a moment where none comes back', async () => {
    const { registry, spawn, leave } = setUp();
    registry.nodes.clear();
    await assert.rejects(spawn(), (error) => isError(error, NoNodeFits));
    const { spawn: waits, leave: goes } = setUp();
    goes();
    await assert.rejects(waits(), (error) => isError(error, NoNodeFits));
    leave();
  });

  it('goes to one that comes back a moment later where the one that is there is overloaded', async () => {
    let tries = 0;
    const { swarm, registry } = swarmOver(() => {
      if (++tries === 1) throw new Overloaded({ what: 'vaults', limit: 1 });
      return {};
    });
    const [node] = registry.candidates();
    registry.away(node!);
    registry.register(node!, []);
    const spawned = swarm.spawn({ source: '', audience: '' }, ada);
    await new Promise((resolve) => setImmediate(resolve));
    registry.register(node!, []);
    assert.match((await spawned).worker, /^w-/);
    assert.equal(tries, 2);
  });

  it('is not made again when its caller has been told of a vault', async () => {
    let tries = 0;
    const { swarm, registry } = swarmOver(({ worker }) => {
      tries++;
      registry.forging.get(worker)!.ready!({ ...MADE, worker });
      throw new NoNodeFits({ wanted: {}, have: [] });
    });
    const [node] = registry.candidates();
    // Now others may come.
    registry.away(node!);
    registry.register(node!, []);
    const refused = assert.rejects(
      swarm.spawn({ source: '', audience: '' }, ada, () => {}),
      (error) => isError(error, NoNodeFits),
    );
    await new Promise((resolve) => setImmediate(resolve));
    registry.register(node!, []);
    await refused;
    assert.equal(tries, 1);
  });

  it('is not made any more when its token has ended meanwhile', async () => {
    const { registry, spawn, endToken, leave, come } = setUp();
    leave();
    const refused = assert.rejects(spawn(), (error) => isError(error, Unauthorised));
    setTimeout(() => {
      endToken();
      come();
    }, 20);
    await refused;
    assert.equal(registry.workers.size, 0);
  });
});

describe('a worker that is placed', () => {
  it('is the one that was asked for, whatever name and epoch its node answers with', async () => {
    const { registry, place } = swarmOver(() => ({ worker: 'bank', epoch: 99 }));
    const { entry, made } = await place();
    assert.deepEqual([entry.worker, entry.epoch, made.worker, made.epoch], ['w-one', 1, 'w-one', 1]);
    assert.deepEqual([...registry.workers.keys()], ['w-one']);
  });

  it('that ends while a ticket to it is made is noted nowhere, since nobody would forget it', async () => {
    const { registry, issued, place, visits } = swarmOver(() => ({}));
    await place();
    await visits();
    await visits((worker) =>
      registry.died({ worker, owner: 'ada', cause: 'exited', reason: '', at: 0, lines: [], epoch: 1 }),
    );
    assert.deepEqual(issued, ['ticket']);
  });

  it('is refused to its caller when news of its end came before that of its birth', async () => {
    const { registry, events, place } = swarmOver(({ worker, owner }, registry) => {
      registry.died({ worker, owner, cause: 'exited', reason: 'it fell', at: 0, lines: [], epoch: 1 });
      return {};
    });
    await assert.rejects(place(), (error) => isError(error, WorkerDied) && /it fell/.test(error.message));
    assert.equal(registry.workers.size, 0);
    assert.ok(!events.includes('WORKER_BORN'));
    assert.equal(registry.nodes.get('north')!.load.workers, 0, 'its room is given back');
  });

  it('is ended in its own start where its node failed, and not where that had no place for it', async () => {
    for (const [error, most] of [
      [new VaultFailed({ driver: 'quickjs', reason: 'r' }), [['w-one', 'its clone failed', 1]]],
      [new ConnectionLost({ why: 'w' }), [['w-one', 'its clone failed', 1]]],
      [new Overloaded({ what: 'workers named w-one on one node', limit: 1 }), []],
    ] as const) {
      const { ended, place } = swarmOver(() => {
        throw error;
      });
      await assert.rejects(place());
      assert.deepEqual(ended, most, error.name);
    }
  });

  it('is refused with what the nodes said that could not take it, and as overloaded where all of them are', async () => {
    const full = new Overloaded({ what: 'MiB on disk for this node’s volumes', limit: 5 });
    const none = swarmOver(() => {
      throw full;
    });
    await assert.rejects(none.place(), (error) => isError(error, Overloaded) && /MiB on disk/.test(error.message));
    const lost = swarmOver(() => {
      throw new ConnectionLost({ why: 'the cable was pulled' });
    });
    await assert.rejects(
      lost.place(),
      (error) => isError(error, NoNodeFits) && /north \(tried: .*the cable was pulled/.test(error.message),
    );
  });

  it('has no more than its parent, also where that lost some before and while it was being made', async () => {
    const reading = (...read: string[]): Grants => ({ ...NO_GRANTS, meshfs: { read, write: [] } });
    const [one, two, three] = ['gem-pointer://a/1', 'gem-pointer://a/2', 'gem-pointer://a/3'] as const;
    let asked: string[] = [];
    const { registry, place } = swarmOver(({ grants }, registry) => {
      asked = grants.meshfs.read;
      registry.regranted('w-parent', reading(one), 'north');
      assert.deepEqual(registry.parent('w-one')!.grants.meshfs.read, [one], 'while it is being made');
      return {};
    });
    const parent = { worker: 'w-parent', owner: 'ada', node: 'north', epoch: 1, grants: reading(one, two) };
    registry.workers.set('w-parent', parent as RegisteredWorker);
    const { entry } = await place({ parent: 'w-parent', grants: reading(one, two, three) });
    assert.deepEqual(asked, [one, two]);
    assert.deepEqual(entry.grants.meshfs.read, [one]);
    registry.regranted('w-parent', NO_GRANTS, 'north');
    assert.deepEqual(registry.workers.get('w-one')!.grants.meshfs.read, [], 'and once it lives');
  });
});

describe('a visitor’s ticket', () => {
  it('tells the worker which others share its places, and not whose it is', async () => {
    const { registry, place, visits, shares } = swarmOver(() => ({}));
    const { entry } = await place();
    registry.workers.set('w-two', { ...entry, worker: 'w-two' });
    for (const by of ['bob', 'bob/below', 'bob/below/deeper', 'eve', 'admin', 'core']) await visits(() => {}, by);
    await visits(() => {}, 'bob', 'w-two');
    const [bob, below, deeper, eve, admin, core, elsewhere] = shares;
    assert.deepEqual([below, deeper, admin, core], [bob, bob, null, null]);
    assert.equal(new Set([bob, eve, elsewhere]).size, 3);
    assert.doesNotMatch(String(bob), /bob/);
  });
});

describe('a placement', () => {
  it('takes room of its token’s quota while it goes on, and gives it back however it ends', async () => {
    for (const error of [undefined, new VaultFailed({ driver: 'quickjs', reason: 'r' })]) {
      const { place, reserved } = swarmOver(() => {
        assert.equal(reserved(), 1);
        if (error) throw error;
        return {};
      });
      await place().catch((thrown) => assert.equal(thrown, error));
      assert.equal(reserved(), 0);
    }
  });

  it('whose node answers what is no answer leaves no worker behind, and is ended there', async () => {
    const wrong = [{ ticket: {} }, { ticket: null }, { direct: [] }, { isolation: 'none at all' }];
    for (const answer of [...wrong, { ticket: { ...MADE.ticket, role: 'visitor' } }]) {
      const { place, reserved, registry, ended } = swarmOver(() => answer as Partial<Provisioned>);
      await assert.rejects(place(), (error) => isError(error, OutcomeUnknown), JSON.stringify(answer));
      assert.deepEqual([reserved(), registry.workers.size, registry.forging.size], [0, 0, 0]);
      assert.deepEqual(ended, [['w-one', 'its clone failed', 1]]);
    }
  });

  it('is tried nowhere else once its caller was told of a vault', async () => {
    const lost = new ConnectionLost({ why: 'its node fell' });
    const told: string[] = [];
    const { place } = swarmOver(({ worker }, registry) => {
      registry.forging.get(worker)!.ready!({ ...MADE, worker } as Provisioned);
      throw lost;
    });
    await assert.rejects(
      place({}, ['*'], (node, made) => told.push(`${made.worker} on ${node}`)),
      lost,
    );
    assert.deepEqual(told, ['w-one on north']);
    const again = swarmOver(() => {
      throw lost;
    });
    await assert.rejects(again.place(), (error) => isError(error, NoNodeFits));
  });

  it('tells nothing of source that its sender may not read', async () => {
    const { place } = swarmOver(() => {
      throw new SourceRejected({ stage: 'parse', reason: 'hunter2 is not defined' });
    });
    await assert.rejects(place(), /hunter2/);
    await assert.rejects(place({}, ['*'], undefined, true), (error: Error) => !error.message.includes('hunter2'));
  });
});

describe('a request for a worker', () => {
  const maker = (...scopes: Scope[]): Principal => ({
    ...{ id: 't-1', name: 't-1', scopes },
    targets: { workers: [], pointers: ['gem-pointer://wiki/a/'], nodes: ['south'], fetch: ['x.example:443'] },
  });
  const SCOPES = { source: 'spawn', pointer: 'spawn.pointer' } as const;
  const { swarm } = swarmOver(() => ({}));
  const refused = (request: Parameters<Swarm['order']>[0], ...scopes: Scope[]) =>
    assert.rejects(swarm.order(request, maker(...scopes), SCOPES), (error) => isError(error, Forbidden));

  it('brings source of its own only where its token may spawn such', async () => {
    await refused({ source: 'x' }, 'spawn.pointer', 'provision', 'spool');
    assert.equal((await swarm.order({ source: 'x' }, maker('spawn'), SCOPES)).job.source, 'x');
  });

  it('names only pointers that its token reaches', async () => {
    await refused({ pointer: 'gem-pointer://wiki/b/x' }, 'spawn.pointer', 'meshfs.read');
    await refused({ pointer: 'gem-pointer://wiki/a/x' }, 'meshfs.read');
    const order = await swarm.order({ pointer: 'gem-pointer://wiki/a/x' }, maker('spawn.pointer'), SCOPES);
    assert.deepEqual([order.job.source, order.nodes], ['kept', ['south']]);
  });

  it('gives only grants that its token could use', async () => {
    await refused({ source: 'x', grants: { fetch: ['y.example:443'] } }, 'spawn');
    await refused({ source: 'x', secrets: { KEY: { value: 'hush hush', to: ['y.example:443'] } } }, 'spawn');
    await swarm.order({ source: 'x', grants: { fetch: ['x.example:443'] } }, maker('spawn'), SCOPES);
  });

  it('has times that can be', async () => {
    const asks = (times: object) => swarm.order({ source: 'x', ...times }, maker('spawn'), SCOPES);
    const cannot = [{ ttl_ms: 60_000, max_life_ms: 30_000 }, { idle_ms: 0 }, { max_life_ms: 0 }, { lease_ms: 0 }];
    for (const times of [...cannot, { ttl_ms: 1 }, { lease_ms: 5_000, heartbeat_ms: 5_001 }])
      await assert.rejects(asks(times), (error) => isError(error, BadInput), JSON.stringify(times));
    await asks({ ttl_ms: 30_000, max_life_ms: 30_000, idle_ms: 30_000 });
    await asks({ ttl_ms: 0 });
  });

  it('is placed on the nodes of its token, and on no others', async () => {
    const { place, events } = swarmOver(() => ({}));
    await assert.rejects(place({}, ['south', 'north-2']), (error) => isError(error, NoNodeFits));
    assert.deepEqual(events, []);
    await place({}, ['north']);
  });
});
