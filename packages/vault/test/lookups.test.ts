/** Who looks a name up next, where a name server may never answer. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { LOOKUPS } from '../src/effects/limits.ts';
import { lookupsInTurn } from '../src/effects/lookups.ts';
import { createNetwork } from '../src/effects/network.ts';
import { guest, http, until } from './outward-support.ts';

/** Names as they are asked for, which are answered when the test says so. */
function server() {
  const open = new Map<string, (addresses: string[]) => void>();
  return {
    asked: () => [...open.keys()],
    lookup: (host: string) => new Promise<string[]>((resolve) => open.set(host, resolve)),
    async answer(host: string) {
      open.get(host)!([host]);
      open.delete(host);
      await turn();
    },
  };
}

describe('names', () => {
  const never = new AbortController().signal;

  it('are looked up one at a time for each family, and so many at once', async () => {
    const { asked, lookup, answer } = server();
    const look = lookupsInTurn(lookup, 2);
    const all = [
      ['a1', 1],
      ['a2', 1],
      ['b1', 2],
      ['b2', 2],
      ['c1', 3],
    ].map(([host, family]) => look(host as string, { owner: 'ada', family }, never));
    await turn();
    assert.deepEqual(asked(), ['a1', 'b1']);
    await answer('b1');
    assert.deepEqual(asked(), ['a1', 'b2'], 'the other of a family waits');
    await answer('a1');
    assert.deepEqual(asked(), ['b2', 'a2']);
    for (const host of ['a2', 'b2', 'c1']) await answer(host);
    assert.deepEqual(await Promise.all(all), [['a1'], ['a2'], ['b1'], ['b2'], ['c1']]);
  });

  it('are looked up first for who has fewest under way', async () => {
    const { asked, lookup, answer } = server();
    const look = lookupsInTurn(lookup, 2);
    const all = [1, 2, 3, 4].map((family) => look(`ada${family}`, { owner: 'ada', family }, never));
    all.push(look('bob', { owner: 'bob', family: 5 }, never));
    await turn();
    assert.deepEqual(asked(), ['ada1', 'ada2']);
    await answer('ada1');
    assert.deepEqual(asked(), ['ada2', 'bob']);
    for (const host of ['bob', 'ada2', 'ada3', 'ada4']) await answer(host);
    await Promise.all(all);
  });

  it('that nobody waits for any more are not looked up, and one that failed stands in nobody’s way', async () => {
    const asked: string[] = [];
    const look = lookupsInTurn(async (host) => {
      asked.push(host);
      await turn();
      throw new Error('no such name');
    }, 1);
    const giving_up = new AbortController();
    const first = look('first', { owner: 'ada', family: 1 }, never);
    const given_up = look('second', { owner: 'ada', family: 2 }, giving_up.signal);
    const last = look('last', { owner: 'ada', family: 3 }, never);
    giving_up.abort(new Error('given up'));
    await assert.rejects(given_up, /given up/);
    for (const one of [first, last]) await assert.rejects(one, /no such name/);
    assert.deepEqual(asked, ['first', 'last']);
    await assert.rejects(look('x', { owner: 'ada', family: 1 }, giving_up.signal), /given up/);
  });

  it('of one worker that are never answered keep no other worker from its own', async () => {
    const port = await http((_request, response) => response.end('ok'));
    const asked: string[] = [];
    const network = createNetwork({
      lookup: async (host) => {
        asked.push(host);
        return host.startsWith('slow') ? new Promise<string[]>(() => {}) : ['127.0.0.1'];
      },
    });
    const slow = Array.from({ length: 2 * LOOKUPS }, (_, i) => `slow${i}.example:80`);
    const stuck = guest({ fetch: slow }, { network, owner: 'one' });
    for (const host of slow) stuck.fetch(`http://${host}/`).catch(() => {});
    await until('the first is asked for', () => asked.length === 1);
    const other = guest({ fetch: [`quick.example:${port}`, `127.0.0.1:${port}`] }, { network, owner: 'one' });
    assert.equal(await (await other.fetch(`http://quick.example:${port}/`)).text(), 'ok');
    assert.deepEqual(asked, ['slow0.example', 'quick.example']);
    stuck.effects.close();
  });
});
