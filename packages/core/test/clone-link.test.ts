/** How long a caller's link for clones is kept. */
import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { describe, it } from 'node:test';
import { Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { serveCloneLink } from '../src/clone-link.ts';
import type { Principal } from '../src/rights.ts';

const IDLE_MS = 40;

describe('a link for clones over which nothing is asked', () => {
  it('ends after a while, but not while a clone is under way', async () => {
    const [near, far] = duplexPair();
    const begun = Promise.withResolvers<void>();
    const made = Promise.withResolvers<object>();
    const swarm = {
      spawn() {
        begun.resolve();
        return made.promise as never;
      },
    };
    const powers = { swarm, principal: () => ({}) as Principal, typed: (error: Error) => error as never };
    const served = serveCloneLink(far, { ...powers, idle_ms: IDLE_MS });
    const caller = new Session({ transport: streamTransport(near), literal: JSON.stringify });
    const answer = caller.call('spawn', [1, { source: 'export const a = 1;', audience: 'a'.repeat(43) }]);
    await begun.promise;
    await new Promise((resolve) => setTimeout(resolve, 3 * IDLE_MS));
    assert.equal(served.open, true);
    made.resolve({ worker: 'w-1' });
    assert.deepEqual(await answer, { worker: 'w-1' });
    assert.equal(await served.closed, 'idle');
    await caller.closed;
  });
});
