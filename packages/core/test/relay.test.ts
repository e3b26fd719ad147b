/** The core's own sessions with workers, for clients that know HTTP alone. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { duplexPair } from 'node:stream';
import { describe, it, mock } from 'node:test';
import {
  ConnectionLost,
  DeadlineExceeded,
  isError,
  LIMITS,
  NO_GRANTS,
  OutcomeUnknown,
  Overloaded,
  TicketForged,
  WorkerDied,
} from '@hauki/protocol';
import { encode, Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { type RegisteredNode, type RegisteredWorker, Registry } from '../src/registry.ts';
import { Relay } from '../src/relay.ts';

/** A registry that knows one worker, and hears its node. */
const reached = { workers: new Map([['w-a', {}]]), watch() {}, async demandRunning() {}, async demandHeard() {} };

describe('the sessions of the relay', () => {
  it('are bounded, the longest unused goes first, and none goes with a call under way', async () => {
    const registry = reached as unknown as Registry;
    const relay = new Relay({ registry, visitorTicket: () => assert.fail('no session is opened') });
    const closed: string[] = [];
    const answer = Promise.withResolvers<string>();
    let opened = 0;
    relay.open = async (worker) => {
      opened++;
      const end = Promise.withResolvers<string>();
      const session = {
        open: true,
        closed: end.promise,
        close() {
          session.open = false;
          closed.push(worker);
          end.resolve('closed');
        },
        call: async (method: string) => (method === 'slow' ? answer.promise : 'quick'),
      };
      return session as unknown as Session;
    };
    const call = (worker: string, method = 'quick') => relay.call(worker, method, [], {}, 'ada');
    const slow = call('w-slow', 'slow');
    for (let i = 0; i < 300; i++) await call(`w-${i}`);
    assert.deepEqual([closed.length, closed[0], closed.at(-1)], [45, 'w-0', 'w-44']);
    answer.resolve('late');
    assert.equal(await slow, 'late');
    await call('w-300');
    assert.deepEqual([closed.length, closed.at(-1)], [46, 'w-slow']);
    await call('w-0');
    assert.equal(opened, 303, 'one that was closed is opened anew');
  });
});

describe('calls over HTTP to one worker', () => {
  it('of one token are half of those that may be under way, and others find room', async () => {
    const registry = reached as unknown as Registry;
    const relay = new Relay({ registry, visitorTicket: () => assert.fail('never') });
    const answers: (() => void)[] = [];
    relay.open = async () =>
      ({
        open: true,
        closed: new Promise(() => {}),
        call: () => new Promise<void>((resolve) => answers.push(resolve)),
      }) as unknown as Session;
    const call = (by: string) => relay.call('w-a', 'wait', [], {}, by);
    const most = LIMITS.calls_in_flight / 2;
    const calls = Array.from({ length: most }, (_, i) => call(i % 2 ? 'ada' : 'ada/below'));
    const refused = (error: unknown) => isError(error, Overloaded) && /calls over HTTP/.test(error.message);
    await assert.rejects(call('ada'), refused);
    calls.push(call('bob'), call('admin'));
    while (answers.length < calls.length) await new Promise((resolve) => setImmediate(resolve));
    for (const answer of answers.splice(0)) answer();
    await Promise.all(calls);
    const again = call('ada');
    while (answers.length < 1) await new Promise((resolve) => setImmediate(resolve));
    answers[0]!();
    await again;
  });
});

describe('a call over HTTP to a node that falls silent', () => {
  it('says that it was not sent, where no session with its worker could be opened', async () => {
    const registry = reached as unknown as Registry;
    const unknown = new OutcomeUnknown({ method: 'mint_ticket', why: 'the node has not reported for too long' });
    const late = new DeadlineExceeded({ what: 'mint_ticket()', timeout_ms: 1, may_have_run: true });
    const forged = new TicketForged({ why: 'another key' });
    for (const [error, heard] of [
      [unknown, /^Not connected: .*has not reported for too long.* was not sent$/],
      [late, /^Not connected: mint_ticket\(\) gave no answer.* was not sent$/],
      [forged, /another key/],
    ] as const) {
      const relay = new Relay({ registry, visitorTicket: () => Promise.reject(error) });
      await assert.rejects(relay.call('w-a', 'look', [], {}, 'ada'), (thrown: Error) => {
        assert.ok(isError(thrown, error === forged ? TicketForged : ConnectionLost), thrown.name);
        assert.match(thrown.message, heard);
        return true;
      });
    }
  });

  it('says so too where the node is counted away, and what became of a worker that has ended', async () => {
    for (const [living, kind] of [
      ['w-a', ConnectionLost],
      ['w-b', WorkerDied],
    ] as const) {
      const died = new WorkerDied({ worker: living, cause: 'node_lost', reason: 'its node north is away' });
      const registry = { ...reached, demandHeard: () => Promise.reject(died) } as unknown as Registry;
      const relay = new Relay({ registry, visitorTicket: () => assert.fail('never') });
      await assert.rejects(relay.call(living, 'look', [], {}, 'ada'), (thrown) => isError<any>(thrown, kind));
    }
  });

  it('is not sent while the node is silent, and leaves when that is heard again', async () => {
    const heard = Promise.withResolvers<void>();
    const registry = { ...reached, demandHeard: () => heard.promise };
    const relay = new Relay({ registry: registry as unknown as Registry, visitorTicket: () => assert.fail('never') });
    const sent: string[] = [];
    relay.open = async () =>
      ({
        open: true,
        closed: new Promise(() => {}),
        call: async (method: string) => sent.push(method),
      }) as unknown as Session;
    const call = relay.call('w-a', 'look', [], {}, 'ada');
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(sent, []);
    heard.resolve();
    await call;
    assert.deepEqual(sent, ['look']);
  });

  it('settles when its worker is counted dead with the node, and waits on where another is', async () => {
    const registry = new Registry();
    const rpc = { splice: async (_worker: string, splice: string) => relay.arrived(splice, ends.pop()!) };
    const info = { node: 'north', labels: {}, drivers: {}, memory_mib: 1, cores: 1 };
    const [load, heard_at] = [{ workers: 0, memory_used_mib: 0, cpu: 0 }, performance.now()];
    registry.register({ info, load, rpc, heard_at } as unknown as RegisteredNode, []);
    const entry = { owner: 'ada', epoch: 1, node: 'north', driver: 'lxc', grants: NO_GRANTS, memory_mib: 1 };
    const names = ['w-a', 'w-b', 'w-c'];
    for (const worker of names) registry.workers.set(worker, { ...entry, worker } as RegisteredWorker);
    const relay: Relay = new Relay({ registry, visitorTicket: () => assert.fail('none is asked for') });
    const pairs = names.map(() => duplexPair());
    const ends = pairs.map(([near]) => near as unknown as Socket);
    const streams: Socket[] = [];
    for (const worker of names) streams.push(await relay.dial(worker));
    const fate = { owner: 'ada', reason: 'its node north is gone', at: 0, lines: [] };
    registry.died({ ...fate, worker: 'w-a', cause: 'node_lost' });
    // Its answer may be on its way: the end of its connection comes behind it.
    registry.died({ ...fate, worker: 'w-b', cause: 'exited' });
    assert.deepEqual(
      streams.map(({ destroyed }) => destroyed),
      [true, false, false],
    );
    for (const stream of streams) stream.destroy();
  });
});

describe('a connection that a node dials for the relay', () => {
  const socket = () => Object.assign(new EventEmitter(), { destroy: mock.fn(), bytesRead: 0, bytesWritten: 0 });
  /** A relay over a node that answers a splice so. */
  const over = (splice: (worker: string, splice: string) => unknown) => {
    const rpc = { splice: async (...args: [string, string]) => splice(...args) };
    const registry = { watch() {}, ask: (_worker: string, asked: (home: object) => unknown) => asked({ rpc }) };
    return new Relay({
      registry: registry as unknown as Registry,
      visitorTicket: () => assert.fail('none is asked for'),
    });
  };

  it('is taken once, by whoever waits for it', async () => {
    const [first, second] = [socket(), socket()] as unknown as Socket[];
    const taken: boolean[] = [];
    const relay = over((_worker, splice) => {
      for (const each of [first!, second!]) taken.push(relay.arrived(splice, each));
    });
    assert.equal(await relay.dial('w-a'), first);
    assert.deepEqual([taken, relay.arrived('another', second!)], [[true, false], false]);
  });

  it('is closed where its node then fails', async () => {
    const came = socket();
    const relay = over((_worker, splice) => {
      relay.arrived(splice, came as unknown as Socket);
      throw new ConnectionLost({ why: 'its node fell' });
    });
    await assert.rejects(relay.dial('w-a'), /its node fell/);
    assert.equal(came.destroy.mock.callCount(), 1);
  });

  it('is closed where its worker does not hold the ticket', async () => {
    const [near, far] = duplexPair();
    const worker = new Session({ transport: streamTransport(far), dispatch: () => ({ nonce: 'n' }), literal: encode });
    const body = { jti: 'j', worker: 'w-a', secret_hash: 'another', routes: { direct: { tls: false } } };
    const signed = `h.${Buffer.from(JSON.stringify(body)).toString('base64url')}.s`;
    const registry = { workers: new Map(), death: () => undefined, watch() {} } as unknown as Registry;
    const relay = new Relay({ registry, visitorTicket: async () => ({ signed, secret: 'c2VjcmV0' }) });
    relay.dial = async () => near as unknown as Socket;
    await assert.rejects(relay.open('w-a'), (error) => isError(error, TicketForged));
    await worker.closed;
  });
});
