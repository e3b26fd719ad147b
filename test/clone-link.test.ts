/** Clones over a lasting link to the core (docs/protocol.md, section 16): what they are over HTTP, and no way around it. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { connect, type Mesh } from '@hauki/mesh';
import { type Dispatch, Session } from '@hauki/rpc';
import { dialUpgrade, streamTransport } from '@hauki/rpc/node';
import { CALCULATOR, type Calculator, until, useMesh } from './support/mesh.ts';

const AUDIENCE = randomBytes(32).toString('base64url');
const ROUTE = '/api/v2/swarm_spawn_ephemeral';
const LINK = '/api/v2/swarm_link';

describe('a link for clones', { concurrency: 3 }, () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });

  /** A link of our own. */
  const link = async (token = used.local.token, dispatch: Dispatch = () => undefined) => {
    const stream = await dialUpgrade(used.local.url, LINK, token, 10_000);
    return new Session({ transport: streamTransport(stream), dispatch, literal: JSON.stringify });
  };
  const token = async (...scopes: any[]) => used.mesh.tokens.create({ name: 'test', scopes });

  it('tells first what the worker said at once, and then the whole', async () => {
    const told: unknown[] = [];
    const session = await link(undefined, (method, params) => void told.push([method, params]));
    const call = { jsonrpc: '2.0', id: 1, method: 'add', params: [1, 2] };
    const first = [{ text: JSON.stringify(call) }];
    const asked = { source: CALCULATOR, driver: 'quickjs', audience: AUDIENCE, first };
    // The core waits for it no longer than it may.
    await until('it is told at once', async () => {
      told.length = 0;
      const answer: any = await session.call('spawn', [7, asked]);
      await used.mesh.destruct(answer.worker);
      assert.match(answer.ticket.signed, /^[\w-]+\.[\w-]+\.[\w-]+$/);
      const first = told.length > 0 ? [{ text: '{"jsonrpc":"2.0","id":1,"result":3}' }] : [];
      assert.deepEqual(answer.first, first);
      if (told.length > 0) assert.deepEqual(told, [['part', [7, { first }]]]);
      return told.length > 0;
    });
    session.close();
  });

  it('refuses what the route refuses, in the same words', async () => {
    const session = await link();
    const asked = { source: CALCULATOR, audience: AUDIENCE };
    const authorization = `Bearer ${used.local.token}`;
    const bodies = [
      {},
      [],
      'text',
      { ...asked, audience: 'short' },
      { ...asked, lease_ms: 'long' },
      { ...asked, more: true },
      { ...asked, first: [{ text: 'x'.repeat(200_000) }] },
      { ...asked, grants: { fetch: ['no port'] } },
      { ...asked, driver: 'none' },
      { ...asked, source: 'export const a = (' },
      { audience: AUDIENCE, pointer: 'gem-pointer://wiki/nothing/here' },
    ];
    for (const body of bodies) {
      const headers = { authorization, 'content-type': 'application/json' };
      const text = JSON.stringify(body);
      const { error } = await (
        await fetch(`${used.local.url}${ROUTE}`, { method: 'POST', headers, body: text })
      ).json();
      const words = error.message.replaceAll(/w-\w{12}/g, 'w');
      await assert.rejects(session.call('spawn', [1, body]), (refused: Error) => {
        assert.equal(
          `${refused.name}: ${refused.message.replaceAll(/w-\w{12}/g, 'w')}`,
          `${error.data.name}: ${words}`,
        );
        return true;
      });
    }
    await assert.rejects(session.call('destruct', ['w']), { name: 'NoSuchMethod' });
    session.close();
  });

  it('is no way around a token’s scopes, and ends with the token', async () => {
    const reader = await token('read');
    await assert.rejects(link(reader.token), { name: 'Forbidden' });
    await assert.rejects(link('hauki_nobody'), { name: 'Unauthorised' });
    const kept = await token('spawn.pointer');
    const session = await link(kept.token);
    await assert.rejects(session.call('spawn', [1, { source: CALCULATOR, audience: AUDIENCE }]), { name: 'Forbidden' });
    await used.mesh.tokens.revoke(kept.id);
    await session.closed;
  });

  it('is one of a bounded number, of which no token has all, and who gets none asks over HTTP', async () => {
    const { token: mine } = await token('spawn');
    const kept: Session[] = [];
    const open = async () => {
      for (;;) kept.push(await link(mine));
    };
    await assert.rejects(open(), { name: 'Overloaded', message: /links for clones/ });
    (await link()).close();
    const mesh = await connect({ core: used.local.url, token: mine });
    for (let i = 0; i < 2; i++) {
      const worker = mesh.clone<Calculator>({ source: CALCULATOR }, { driver: 'quickjs' });
      assert.equal(await worker.add(1, 2), 3);
      await mesh.destruct(worker);
    }
    await mesh.close();
    for (const session of kept) session.close();
    await until('there is room again', async () => {
      const session = await link(mine).catch(() => undefined);
      session?.close();
      return session !== undefined;
    });
  });

  /** A mesh behind a proxy of bytes, which counts the clones that pass over HTTP and over links. */
  const watched = async () => {
    const over = { http: 0, links: 0 };
    const links = new Set<Socket>();
    const sockets = new Set<Socket>();
    const proxy = createServer((near) => {
      const far = connectTcp(Number(new URL(used.local.url).port), '127.0.0.1');
      for (const socket of [near, far]) {
        sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          links.delete(near);
          near.destroy();
          far.destroy();
        });
      }
      near.on('data', (chunk) => {
        const text = chunk.toString('latin1');
        if (text.startsWith(`POST ${ROUTE}`)) over.http++;
        if (text.startsWith(`GET ${LINK}`)) links.add(near);
        else if (links.has(near)) over.links += text.split('"method":"spawn"').length - 1;
        far.write(chunk);
      });
      far.pipe(near);
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const core = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    const mesh: Mesh = await connect({ core, token: used.local.token });
    return {
      mesh,
      over,
      cut: () => {
        for (const socket of links) socket.destroy();
      },
      clone: async (source = CALCULATOR) => {
        const worker = mesh.clone<Calculator>({ source }, { driver: 'quickjs' });
        assert.equal(await worker.add(1, 2), 3);
        await mesh.destruct(worker);
      },
      async [Symbol.asyncDispose]() {
        await mesh.close();
        for (const socket of sockets) socket.destroy();
        proxy.close();
      },
    };
  };

  it('is made behind a caller’s first clone, and taken by those that follow', async () => {
    await using one = await watched();
    await one.clone();
    assert.deepEqual(one.over, { http: 1, links: 0 });
    await until('a clone goes over a link', async () => {
      await one.clone();
      return one.over.links > 0;
    });
    const { http } = one.over;
    await one.clone();
    await Promise.all([one.clone(), one.clone(), one.clone()]);
    assert.equal(one.over.http, http, 'none goes over HTTP any more');
    await one.clone(`${CALCULATOR}\n// ${'x'.repeat(70_000)}`);
    assert.equal(one.over.http, http + 1, 'but one that is large');
  });

  it('that is cut in the middle leaves unknown what became of the clone, and the next goes over HTTP', async () => {
    await using one = await watched();
    await until('a clone goes over a link', async () => {
      await one.clone();
      return one.over.links > 0;
    });
    const { http, links } = one.over;
    const source = 'await new Promise(() => {}); export const add = () => 3;';
    const never = one.mesh.clone<Calculator>({ source }, { driver: 'quickjs' });
    const lost = assert.rejects(never.add(1, 2), { name: 'OutcomeUnknown' });
    await until('it has been asked for', () => one.over.links > links);
    one.cut();
    await lost;
    await one.clone();
    assert.equal(one.over.http, http + 1);
    const before = one.over.links;
    await until('there is a link again', async () => {
      await one.clone();
      return one.over.links > before;
    });
  });
});
