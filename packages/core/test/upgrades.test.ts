/** Upgrades of callers: how many of one token the core relays. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { duplexPair } from 'node:stream';
import { describe, it } from 'node:test';
import type { MeshError } from '@hauki/protocol';
import { ADMIN } from '../src/rights.ts';
import { Shares } from '../src/shares.ts';
import { createUpgrades, type UpgradePowers } from '../src/upgrades.ts';

describe('relayed connections', () => {
  it('are half of them at most one token’s, and free again when they end', async () => {
    const upgrades = createUpgrades({
      auth: {
        checkOrigin() {},
        authenticate: ({ headers }: IncomingMessage) => ({ ...ADMIN, name: headers.authorization }),
      },
      tokens: { hold: () => () => {} },
      registry: { known: () => ({ worker: 'w-a', owner: 'ada' }), find() {} },
      relay: { splice: async (_worker: string, open: () => unknown) => void open() },
      relayed: new Shares('relayed connections', 8),
      typed: (error: Error) => error as MeshError,
    } as unknown as UpgradePowers);
    const dial = async (authorization: string) => {
      const [near, far] = duplexPair();
      const socket = Object.assign(far, {
        setNoDelay() {},
        setTimeout() {},
        destroySoon: () => far.end(),
      }) as unknown as Socket;
      const headers = { upgrade: 'hauki', authorization };
      const request = { url: '/api/v2/ephemeral/w-a', headers } as unknown as IncomingMessage;
      await upgrades.serve(request, socket, Buffer.alloc(0));
      const [head] = await once(near.setEncoding('latin1'), 'data');
      return { socket, status: Number(head.split(' ')[1]) };
    };
    const statuses = async (count: number, ...by: string[]) => {
      const found = [];
      for (let i = 0; i < count; i++) found.push((await dial(by[i % by.length]!)).status);
      return found;
    };
    const first = await dial('ada');
    assert.deepEqual(await statuses(4, 'ada/below', 'ada'), [101, 101, 101, 429]);
    assert.deepEqual(await statuses(3, 'bob'), [101, 101, 429]);
    assert.deepEqual(await statuses(1, 'admin'), [101]);
    first.socket.destroy();
    await once(first.socket, 'close');
    assert.deepEqual(await statuses(2, 'bob'), [429, 429], 'two of four that others have not');
    assert.deepEqual(await statuses(2, 'eve'), [101, 429]);
    await upgrades.close();
  });
});
