/** Effects are decided on the host's side: what was granted works, everything else is a typed error naming the grant. */
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import {
  BadInput,
  GrantMissing,
  isError,
  LIMITS,
  NoSuchMethod,
  normaliseGrants,
  Overloaded,
  TooLarge,
} from '@hauki/protocol';
import { createEffects } from '../src/effects/effects.ts';
import { createNetwork } from '../src/effects/network.ts';
import type { FetchedBody } from '../src/guest/context.ts';
import { refuses } from './outward-support.ts';

async function serve(handler: Parameters<typeof createServer>[1]): Promise<{ server: Server; host: string }> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, host: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

describe('a guest’s fetch', () => {
  let granted: { server: Server; host: string };
  let other: { server: Server; host: string };
  const seen: { host: string; request: IncomingMessage }[] = [];
  let waiting = 0;
  let most = 0;

  before(async () => {
    other = await serve((request, response) => {
      seen.push({ host: 'other', request });
      response.end('from the other');
    });
    granted = await serve((request, response) => {
      seen.push({ host: 'granted', request });
      const to = new URL(request.url!, 'http://x').searchParams.get('to');
      if (to) return response.writeHead(302, { location: to }).end();
      if (request.url === '/loop') return response.writeHead(302, { location: '/loop' }).end();
      if (request.url === '/binary') return response.end(Buffer.from([0xff, 0x00, 0xfe]));
      if (request.url === '/large') return response.end(Buffer.alloc(LIMITS.fetch_body_bytes + 1, 0x20));
      if (request.url === '/slow') {
        most = Math.max(most, ++waiting);
        return setTimeout(() => {
          waiting--;
          response.end('slow');
        }, 30);
      }
      let body = '';
      request.on('data', (chunk) => {
        body += chunk;
      });
      return request.on('end', () => response.writeHead(201, { 'x-told': 'yes' }).end(`${request.method} ${body}`));
    });
  });
  after(() => {
    for (const { server } of [granted, other]) {
      server.closeAllConnections();
      server.close();
    }
  });

  const effects = (fetch: string[]) =>
    createEffects({
      owner: 'test',
      grants: normaliseGrants({ fetch }),
      network: createNetwork(),
      meshfs: { resolve: () => assert.fail(), write: () => assert.fail() },
      log: () => {},
    }).perform;
  const get = async (url: string, init: object = {}, fetch = [granted.host]) =>
    (await effects(fetch)('fetch', [url, { method: 'GET', headers: [], ...init }])) as FetchedBody;

  it('reaches the host and port that were granted, with method, headers and body', async () => {
    const answer = await get(`http://${granted.host}/`, { method: 'POST', body: 'hello', headers: [['x-mine', '1']] });
    assert.deepEqual([answer.status, answer.text], [201, 'POST hello']);
    assert.ok(answer.headers.some(([name, value]) => name === 'x-told' && value === 'yes'));
    assert.equal(seen.at(-1)!.request.headers['x-mine'], '1');
  });

  it('gives binary bodies unharmed', async () => {
    const { base64, text } = await get(`http://${granted.host}/binary`);
    assert.equal(text, undefined);
    assert.deepEqual([...Buffer.from(base64!, 'base64')], [0xff, 0x00, 0xfe]);
  });

  it('reaches nothing else, however it is spelled', async () => {
    const port = granted.host.split(':')[1]!;
    const before = seen.length;
    for (const url of [
      `http://${other.host}/`,
      `http://localhost:${port}/`,
      `http://[::1]:${port}/`,
      'http://127.0.0.1/',
      `https://${other.host}/`,
      `http://127.0.0.1.evil.test:${port}/`,
    ])
      await refuses(get(url), GrantMissing, /no grant for this: fetch /);
    for (const url of [
      'file:///etc/passwd',
      'ftp://127.0.0.1/',
      `http://user:pass@${granted.host}/`,
      `http://:pass@${granted.host}/`,
      `http://${granted.host}.evil.test/`,
      'nonsense',
      '',
    ])
      await refuses(get(url), BadInput);
    assert.equal(seen.length, before, 'nothing was asked of anybody');
  });

  it('checks every redirect like a new request, and takes secrets along to none of another origin', async () => {
    await refuses(get(`http://${granted.host}/?to=http://${other.host}/`), GrantMissing);
    await refuses(get(`http://${granted.host}/?to=file:///etc/passwd`), BadInput);
    const before = seen.length;
    await refuses(get(`http://${granted.host}/loop`), BadInput, /redirects/);
    assert.equal(seen.length - before, 1 + LIMITS.fetch_redirects);
    const headers = [
      ['Authorization', 'Bearer mine'],
      ['Cookie', 'a=b'],
      ['x-plain', 'stays'],
    ];
    const url = `http://${granted.host}/?to=http://${other.host}/`;
    const answer = await get(url, { headers }, [granted.host, other.host]);
    assert.equal(answer.text, 'from the other');
    const { host, request } = seen.at(-1)!;
    assert.deepEqual(
      [host, request.headers.authorization, request.headers.cookie, request.headers['x-plain']],
      ['other', undefined, undefined, 'stays'],
    );
  });

  it('sets no header that steers the connection', async () => {
    await get(`http://${granted.host}/`, {
      headers: [
        ...['Host', 'Connection', 'Proxy-Authorization', 'Transfer-Encoding', 'Content-Length', 'Upgrade', 'TE'],
        ...['Trailer', 'Expect', 'Keep-Alive', 'proxy-anything'],
      ].map((name) => [name, '100-continue']),
    });
    const raw = seen.at(-1)!.request.rawHeaders;
    assert.deepEqual(raw.filter((_, at) => at % 2 === 0).sort(), ['Accept-Encoding', 'Connection', 'Host'], raw.join());
    assert.ok(raw.includes(granted.host) && raw.includes('close') && !raw.includes('100-continue'), raw.join());
    for (const bad of [[['x\r\ny', '1']], [['x', 'a\r\nb: c']]])
      await assert.rejects(get(`http://${granted.host}/`, { headers: bad }));
  });

  it('bounds bodies, and how many are under way', async () => {
    await refuses(get(`http://${granted.host}/large`), TooLarge);
    const effect = effects([granted.host]);
    const all = Array.from({ length: LIMITS.effects_in_flight + 5 }, () =>
      effect('fetch', [`http://${granted.host}/slow`, {}]).then(
        () => 'done',
        (error) => (isError(error, Overloaded) ? 'refused' : String(error)),
      ),
    );
    const outcomes = await Promise.all(all);
    assert.equal(outcomes.filter((o) => o === 'done').length, LIMITS.effects_in_flight);
    assert.equal(outcomes.filter((o) => o === 'refused').length, 5);
    assert.ok(most <= 6, `${most} at once`);
    assert.equal(
      ((await effect('fetch', [`http://${granted.host}/`, {}])) as FetchedBody).status,
      201,
      'there is room again',
    );
  });

  it('says which host did not answer', async () => {
    await assert.rejects(get('http://127.0.0.1:9/', {}, ['127.0.0.1:9']), /127\.0\.0\.1:9: /);
  });
});

describe('a guest’s other effects', () => {
  const asked: unknown[][] = [];
  const lines: string[] = [];
  const effect = createEffects({
    owner: 'test',
    grants: normaliseGrants({ meshfs: { read: ['gem-pointer://wiki/a/'], write: ['gem-pointer://wiki/a/out'] } }),
    meshfs: {
      resolve: async (pointer) => {
        asked.push(['resolve', pointer]);
        return { pointer, content: 'x', media_type: 'text/plain' };
      },
      write: async (pointer, content) => {
        asked.push(['write', pointer, content]);
        return {};
      },
    },
    network: createNetwork(),
    log: (level, line) => lines.push(`${level} ${line}`),
  }).perform;

  it('read and write pointers under the prefixes that were granted, and no others', async () => {
    await effect('meshfs.resolve', ['gem-pointer://wiki/a/b/c']);
    await effect('meshfs.write', ['gem-pointer://wiki/a/out', 'text']);
    assert.deepEqual(asked, [
      ['resolve', 'gem-pointer://wiki/a/b/c'],
      ['write', 'gem-pointer://wiki/a/out', 'text'],
    ]);
    // The same page in its other spelling.
    await effect('meshfs.write', ['gem-pointer://Wiki/a/out.md', 'more']);
    assert.deepEqual(asked.pop(), ['write', 'gem-pointer://wiki/a/out.md', 'more']);
    for (const pointer of ['gem-pointer://wiki/ab', 'gem-pointer://wiki/b/c', 'gem-pointer://other/a/b'])
      await refuses(effect('meshfs.resolve', [pointer]), GrantMissing, /meshfs\.read/);
    await refuses(effect('meshfs.write', ['gem-pointer://wiki/a/outer', 'x']), GrantMissing, /meshfs\.write/);
    for (const pointer of [
      'gem-pointer://wiki/a/../b/c',
      'gem-pointer://wiki/a/%2e%2e/b',
      '/etc/passwd',
      5,
      null,
      undefined,
    ])
      await assert.rejects(effect('meshfs.resolve', [pointer]));
    assert.equal(asked.length, 2, 'nothing else reached MeshFS');
  });

  it('log lines are cut, cannot forge others, and flood nobody', async () => {
    await effect('log', ['warn', 'one\nerror two']);
    await effect('log', ['strange', 'x'.repeat(LIMITS.log_line_chars * 2)]);
    assert.equal(lines[0], 'warn one\n  error two');
    assert.ok(lines[1]!.startsWith('info x') && lines[1]!.length <= LIMITS.log_line_chars + 10);
    await effect('log', ['info', '\n'.repeat(LIMITS.log_line_chars)]);
    assert.ok(lines[2]!.length <= LIMITS.log_line_chars + 10, 'what keeps it from forging others counts too');
    for (let i = 0; i < 10_000; i++) await effect('log', ['info', 'flood']);
    assert.ok(lines.length < 1_000, `${lines.length} lines were kept`);
    // Nothing more has to be logged for it.
    for (let i = 0; i < 1_000 && !/lines were dropped/.test(lines.at(-1)!); i++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    assert.match(lines.at(-1)!, /^warn \[\d{4} lines were dropped: too many at once\]$/);
    for (const none of [0, -1, 1e300, Number.NaN, 'many', {}, null]) await effect('log', ['warn', '', none]);
    await effect('log', ['warn', '', 70_000]);
    await effect('log', ['warn', '', 7]);
    for (let i = 0; i < 1_000 && !/70007/.test(lines.at(-1)!); i++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(lines.at(-1), 'warn [70007 lines were dropped: too many at once]');
  });

  it('take no text from what is none', async () => {
    const odd = { toString: () => assert.fail('it was asked for its text') };
    for (const name of ['volume.read', 'volume.write', 'volume.list', 'volume.delete'])
      await refuses(effect(name, [odd, { text: '' }]), BadInput, /it is no text/);
  });

  it('hold no more in memory of what they were called with than there is room for', async () => {
    const parked: (() => void)[] = [];
    const { perform } = createEffects({
      owner: 'test',
      grants: normaliseGrants({ clone: 1 }),
      network: createNetwork(),
      meshfs: { resolve: () => assert.fail(), write: () => assert.fail() },
      family: {
        clone: () => assert.fail(),
        call: () => new Promise<void>((resolve) => parked.push(resolve)),
        destruct: async () => {},
      },
      log: () => {},
    });
    const park = (items: number) => perform('clone.call', ['child', 'park', Array.from({ length: items }, () => [])]);
    // More than all the room: alone it passes.
    const large = park(1_000_000);
    await refuses(park(10_000), Overloaded, /called with/);
    parked.pop()!();
    await large;
    const few = Array.from({ length: 5 }, () => park(100_000));
    await refuses(park(100_000), Overloaded, /called with/);
    for (const resolve of parked) resolve();
    await Promise.all(few);
  });

  it('are only those that exist', async () => {
    await refuses(effect('shell', ['rm']), NoSuchMethod);
    await refuses(effect('constructor', []), NoSuchMethod);
    await refuses(effect('fetch', 'not a list' as never), BadInput);
  });
});
