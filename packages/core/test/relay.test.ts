/** The core's own sessions with workers, for clients that know HTTP alone. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { duplexPair } from 'node:stream';
import { describe, it, mock } from 'node:test';
import { ConnectionLost, isError, TicketForged } from '@hauki/protocol';
import { encode, Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import type { Registry } from '../src/registry.ts';
import { Relay } from '../src/relay.ts';

describe('the sessions of the relay', () => {
  it('are bounded, the longest unused goes first, and none goes with a call under way', async () => {
    const registry = { home() {}, async demandRunning() {} } as unknown as Registry;
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
    const call = (worker: string, method = 'quick') => relay.call(worker, method, [], {});
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

describe('a connection that a node dials for the relay', () => {
  const socket = () => Object.assign(new EventEmitter(), { destroy: mock.fn(), bytesRead: 0, bytesWritten: 0 });
  /** A relay over a node that answers a splice so. */
  const over = (splice: (worker: string, splice: string) => unknown) => {
    const rpc = { splice: async (...args: [string, string]) => splice(...args) };
    const registry = { ask: (_worker: string, asked: (home: object) => unknown) => asked({ rpc }) };
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
    const registry = { workers: new Map(), death: () => undefined } as unknown as Registry;
    const relay = new Relay({ registry, visitorTicket: async () => ({ signed, secret: 'c2VjcmV0' }) });
    relay.dial = async () => near as unknown as Socket;
    await assert.rejects(relay.open('w-a'), (error) => isError(error, TicketForged));
    await worker.closed;
  });
});
