/** A worker from its caller's side, over a worker that the test plays: heartbeats, and how it is ended. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BadInput,
  ConnectionLost,
  Forbidden,
  isError,
  type TicketBody,
  WorkerDied,
  WorkerUnknown,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { Channel, destructText, heartbeatText, leaseKey, mac, memoryPair, randomText, Session } from '@hauki/rpc';
import type { CoreClient } from '../src/http.ts';
import type { WorkerRoute } from '../src/route.ts';
import { RemoteWorker } from '../src/worker.ts';
import { RemoteWorker as NodeWorker } from '../src/worker-node.ts';

const secret = randomText(32);
const key = await leaseKey(secret, 'jti');

/** An open worker; `serves` answers its caller's calls, `core` its requests. */
async function setUp(serves: (method: string, params: any) => unknown, core: () => unknown = () => ({})) {
  const request = async () => core();
  const worker = new RemoteWorker('relay_only', { core: { request } as unknown as CoreClient } as never);
  const body = {
    jti: 'jti',
    worker: 'w-a',
    epoch: 3,
    role: 'owner',
    lease: { heartbeat_ms: 60_000, lease_ms: 90_000 },
  };
  const [near, far] = memoryPair();
  const peer = new Channel();
  peer.attach(far);
  const other = new Session({ transport: peer, dispatch: (method, params) => serves(method, params) });
  const open = async () => {
    Object.assign(worker.way, { body, ticket: { secret, signed: '' } });
    worker.way.channel.attach(near);
    return [];
  };
  Object.assign(worker.way, { open } satisfies Partial<WorkerRoute>);
  await worker.open(async () => ({ ticket: { secret, signed: '' } }));
  return { worker, other };
}

describe('an owner’s heartbeat', () => {
  it('is sent once more over what the worker says to beat over, where the answer before was lost', async () => {
    const beats: string[] = [];
    const twice = Promise.withResolvers<void>();
    const { worker } = await setUp(async (method, [challenge, proof]) => {
      assert.equal(method, 'rpc.heartbeat');
      assert.equal(proof, await mac(key, heartbeatText('w-a', 3, challenge)));
      if (beats.push(challenge) === 2) twice.resolve();
      return { renewed: challenge === 'second', next: challenge === 'second' ? 'third' : 'second', lease_until: 0 };
    });
    await twice.promise;
    worker.leave();
    assert.deepEqual(beats, ['jti', 'second']);
  });
});

describe('a caller that ends its worker', () => {
  const lost = new WorkerDied({ worker: 'w-a', cause: 'node_lost', reason: 'its node is away' });

  it('asks the worker itself where the core cannot, and no other refusal is passed over', async () => {
    for (const error of [lost, new ConnectionLost({ why: 'no core' })]) {
      const asked: string[] = [];
      const { worker } = await setUp(
        (method, [proof]) => void (method === 'rpc.destruct' && asked.push(proof)),
        () => {
          throw error;
        },
      );
      await worker.destruct();
      assert.deepEqual(asked, [await mac(key, destructText('w-a', 3))]);
    }
    const { worker } = await setUp(
      (method) => assert.notEqual(method, 'rpc.destruct'),
      () => {
        throw new Forbidden({ why: 'it is another’s' });
      },
    );
    await assert.rejects(worker.destruct(), (error) => isError(error, Forbidden));
  });

  it('has ended one that is gone already', async () => {
    for (const error of [new WorkerUnknown({ worker: 'w-a' }), new WorkerDied({ ...lost.fields, cause: 'exited' })]) {
      const { worker, other } = await setUp(
        (method) => assert.notEqual(method, 'rpc.destruct'),
        () => {
          throw error;
        },
      );
      await worker.destruct();
      await other.closed;
    }
  });
});

it('a cut session is dialled for as long as its owner’s lease lasts, a visitor’s for a bounded time', async () => {
  const { worker } = await setUp(() => ({ next: 'n', renewed: true, lease_until: 0 }));
  assert.equal(worker.way.lasts_ms, 90_000);
  worker.way.body = { ...worker.way.body, role: 'visitor' } as TicketBody;
  assert.equal(worker.way.lasts_ms, LIMITS.resume_ms);
  worker.leave();
});

describe('a deadline for all calls of a worker', () => {
  it('is refused where it is none, before anybody is asked', async () => {
    for (const timeout_ms of [Number.NaN, -1, '50', null, 50n] as number[]) {
      const worker = new NodeWorker('p2p_preferred', { timeout_ms } as never);
      await assert.rejects(
        worker.open(() => assert.fail('the core was asked')),
        (thrown) => isError(thrown, BadInput) && thrown.fields.what === 'timeout_ms',
      );
    }
  });
});
