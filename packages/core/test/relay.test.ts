/** The core's own sessions with workers, for clients that know HTTP alone. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Session } from '@hauki/rpc';
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
