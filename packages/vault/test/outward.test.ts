/**
 * A guest's ways out, from its `fetch` and `connect` over a session to the host's effects and to real servers on loopback.
 * Names are played by a lookup of the test's own; nothing goes beyond loopback.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { type AddressInfo, createServer as createTcp, type Socket, type Server as TcpServer } from 'node:net';
import { Duplex } from 'node:stream';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { createBrotliCompress, gzipSync } from 'node:zlib';
import {
  BadInput,
  ConnectionLost,
  type ErrorClass,
  GrantMissing,
  type GrantRequest,
  isError,
  LIMITS,
  normaliseGrants,
  Overloaded,
  RemoteError,
  type SecretRequests,
  secretValues,
} from '@hauki/protocol';
import { memoryPair, Session } from '@hauki/rpc';
import { createEffects } from '../src/effects/effects.ts';
import { createNetwork } from '../src/effects/network.ts';
import { GUEST_BOUNDS, outsideOver, serveOutside } from '../src/guest/outside.ts';
import { connectFor, fetchFor } from '../src/guest/outward.ts';
import * as platform from '../src/guest/platform/http.ts';
import { nodePlatform } from '../src/guest/respond-node.ts';

const refuses = (promise: Promise<unknown>, kind: ErrorClass<any>, pattern: RegExp = /./) =>
  assert.rejects(promise, (error: Error) => {
    assert.ok(isError(error, kind), `${error?.name}: ${error?.message}`);
    assert.match(error.message, pattern);
    return true;
  });

const servers = new Set<Server | TcpServer>();
const sockets = new Set<Socket>();
const sessions = new Set<Session>();
after(() => {
  for (const session of sessions) session.close();
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
});

async function listening(server: Server | TcpServer, host = '127.0.0.1', port = 0): Promise<number> {
  servers.add(server);
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  server.listen(port, host);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}
const http = (handler: RequestListener, host?: string, port?: number) => listening(createServer(handler), host, port);
const tcp = (handler: (socket: Socket) => void) => listening(createTcp(handler));

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

/** A guest with these grants, and the host that performs for it. */
function guest(
  request: GrantRequest,
  more: { secrets?: SecretRequests; lookup?: (host: string) => Promise<string[]>; limit_bytes?: number } = {},
) {
  const { secrets, lookup = async (host: string) => assert.fail(`nobody looks up ${host}`), limit_bytes } = more;
  const network = createNetwork({ lookup, ...(limit_bytes === undefined ? {} : { limit_bytes }) });
  const effects = createEffects({
    grants: normaliseGrants(request, secrets),
    secrets: secretValues(secrets),
    meshfs: { resolve: () => assert.fail(), write: () => assert.fail() },
    network,
    log: () => {},
  });
  const [inner, outer] = memoryPair();
  const outside = {
    effect: effects.perform,
    heartbeat: async () => assert.fail(),
    destruct: async () => assert.fail(),
  };
  const host = new Session({ transport: outer, dispatch: serveOutside(outside), bounds: GUEST_BOUNDS });
  const session = new Session({ transport: inner, timeout_ms: 20_000 });
  sessions.add(host).add(session);
  const way = outsideOver(session);
  return {
    effects,
    host,
    session,
    network,
    fetch: fetchFor(way, nodePlatform) as (url: any, init?: any) => Promise<Response>,
    vmFetch: fetchFor(way, { respond: platform.fetched, pack: platform.pack }) as (
      url: any,
      init?: any,
    ) => Promise<platform.Response>,
    connect: connectFor(way),
  };
}

platform.useText({
  encode: (text) => new TextEncoder().encode(text).slice().buffer,
  decode: (bytes, encoding) => new TextDecoder(encoding).decode(bytes),
});

const until = async (what: string, check: () => boolean) => {
  for (let i = 0; i < 1500 && !check(); i++) await sleep(10);
  assert.ok(check(), what);
};

describe('fetch', () => {
  it('keeps to the methods of its grant, also after a redirect', async () => {
    const seen: string[] = [];
    const port = await http((request, response) => {
      seen.push(`${request.method} ${request.url}`);
      if (request.url === '/moved') response.writeHead(303, { location: '/there' }).end();
      else response.end('ok');
    });
    const to = `127.0.0.1:${port}`;
    const { fetch } = guest({ fetch: [{ to, methods: ['POST', 'PUT'] }] });
    assert.equal(await (await fetch(`http://${to}/a`, { method: 'put', body: 'x' })).text(), 'ok');
    await refuses(fetch(`http://${to}/a`), GrantMissing, new RegExp(`fetch GET ${to}`));
    await refuses(fetch(`http://${to}/moved`, { method: 'POST', body: 'x' }), GrantMissing, /fetch GET /);
    await refuses(fetch(`http://${to}/a`, { method: 'CONNECT' }), BadInput);
    await refuses(fetch(`http://${to}/a`, { method: 'TRACE' }), BadInput);
    assert.deepEqual(seen, ['PUT /a', 'POST /moved']);
  });

  it('keeps to the rate of its grant, redirects counted', async () => {
    const port = await http((request, response) =>
      request.url === '/1' ? response.writeHead(302, { location: '/2' }).end() : response.end('ok'),
    );
    const { fetch } = guest({ fetch: [{ to: `127.0.0.1:${port}`, per_minute: 3 }] });
    const url = `http://127.0.0.1:${port}`;
    assert.equal(await (await fetch(`${url}/1`)).text(), 'ok');
    assert.equal(await (await fetch(`${url}/2`)).text(), 'ok');
    await refuses(fetch(`${url}/2`), Overloaded, /in a minute is at its limit of 3/);
  });

  it('goes by name to public addresses and to listed ones only', async () => {
    const port = await http((request, response) => response.end(`for ${request.headers.host}`));
    const lookup = async (host: string) => (host === 'inner.example' ? ['127.0.0.1'] : ['::1', '127.0.0.1']);
    const names = [`inner.example:${port}`, `both.example:${port}`];
    const closed = guest({ fetch: names }, { lookup });
    const refusal = await closed.fetch(`http://inner.example:${port}/`).catch((error) => error);
    assert.ok(isError(refusal, GrantMissing), String(refusal));
    assert.equal(refusal.fields.wanted, `127.0.0.1:${port}`);
    assert.match(refusal.message, /inner\.example:\d+ is at 127\.0\.0\.1.*loopback.*grant fetch 127\.0\.0\.1:\d+ too/);
    // A grant for another method is none for this one.
    const reads = { to: `127.0.0.1:${port}`, methods: ['GET'] };
    const open = guest({ fetch: [...names, reads] }, { lookup });
    assert.equal(await (await open.fetch(`http://INNER.example.:${port}/`)).text(), `for inner.example:${port}`);
    assert.equal(await (await open.fetch(`http://both.example:${port}/`)).text(), `for both.example:${port}`);
    await refuses(open.fetch(`http://inner.example:${port}/`, { method: 'POST' }), GrantMissing);
  });

  it('goes where its check has looked, whatever the name is said to be a moment later', async () => {
    const seen: string[] = [];
    const port = await http((_request, response) => response.end(seen.push('first') && 'first'));
    await http((_request, response) => response.end(seen.push('second') && 'second'), '127.0.0.2', port);
    const answers = ['127.0.0.1', '127.0.0.2', '127.0.0.1', '127.0.0.2'];
    let asked = 0;
    const lookup = async () => [answers[asked++]!];
    const { fetch } = guest({ fetch: [`rebinds.example:${port}`, `127.0.0.1:${port}`] }, { lookup });
    const url = `http://rebinds.example:${port}/`;
    assert.equal(await (await fetch(url)).text(), 'first');
    assert.equal(asked, 1, 'one request asks once');
    await refuses(fetch(url), GrantMissing, /rebinds\.example:\d+ is at 127\.0\.0\.2/);
    assert.equal(await (await fetch(url)).text(), 'first');
    await refuses(fetch(url), GrantMissing);
    assert.deepEqual(seen, ['first', 'first'], 'nothing ever reached the other address');
  });

  it('checks where a redirect leads as it does a first request, its address too', async () => {
    const inner = await http((_request, response) => response.end('inner'));
    const port = await http((_request, response) =>
      response.writeHead(302, { location: `http://inner.example:${inner}/` }).end(),
    );
    const lookup = async () => ['127.0.0.1'];
    const from = `127.0.0.1:${port}`;
    const named = guest({ fetch: [from, `inner.example:${inner}`] }, { lookup });
    await refuses(named.fetch(`http://${from}/`), GrantMissing, /is at 127\.0\.0\.1, which is not a public address/);
    const listed = guest({ fetch: [from, `inner.example:${inner}`, `127.0.0.1:${inner}`] }, { lookup });
    assert.equal(await (await listed.fetch(`http://${from}/`)).text(), 'inner');
  });

  it('streams bodies both ways: the answer begins before the request has ended', async () => {
    const port = await http(async (request, response) => {
      response.writeHead(200);
      for await (const chunk of request) response.write(chunk);
      response.end();
    });
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const { promise: answered, resolve } = Promise.withResolvers<void>();
    async function* body() {
      yield 'first ';
      await answered;
      yield Buffer.from('second');
    }
    const response = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: body() });
    const reader = response.body!.getReader();
    assert.equal(Buffer.from((await reader.read()).value!).toString(), 'first ');
    resolve();
    assert.equal(Buffer.from((await reader.read()).value!).toString(), 'second');
    assert.equal((await reader.read()).done, true);
  });

  it('carries large bodies in bounded memory, and waits for whoever reads', async () => {
    const size = 24 * 1024 * 1024;
    let received = 0;
    let written = 0;
    const port = await http(async (request, response) => {
      if (request.method === 'PUT') {
        for await (const chunk of request) received += chunk.length;
        return response.end(String(received));
      }
      for (; written < size; written += 65_536)
        if (!response.write(Buffer.alloc(65_536, 7))) await once(response, 'drain');
      return response.end();
    });
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}/`;
    const response = await fetch(url);
    // Nobody reads yet: what is on its way is a stream's credit, and what sockets hold.
    await sleep(150);
    assert.ok(written < size / 2, `${written} bytes were asked for`);
    let bytes = 0;
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) bytes += chunk.length;
    assert.equal(bytes, size);
    async function* upload() {
      for (let i = 0; i < 8; i++) yield new Uint8Array(1024 * 1024);
    }
    assert.equal(await (await fetch(url, { method: 'PUT', body: upload() })).text(), String(8 * 1024 * 1024));
  });

  it('unpacks what comes packed', async () => {
    const port = await http((request, response) => {
      assert.match(request.headers['accept-encoding']!, /gzip.*br/);
      if (request.url === '/gzip')
        return response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync('packed'));
      if (request.url === '/broken') return response.writeHead(200, { 'content-encoding': 'gzip' }).end('not packed');
      response.writeHead(200, { 'content-encoding': 'br' });
      const packer = createBrotliCompress();
      packer.pipe(response);
      return packer.end('ä'.repeat(100_000));
    });
    const { fetch, vmFetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}`;
    assert.equal(await (await fetch(`${url}/gzip`)).text(), 'packed');
    assert.equal(await (await vmFetch(`${url}/br`)).text(), 'ä'.repeat(100_000));
    await assert.rejects((await fetch(`${url}/broken`)).text(), /fetch failed.*Z_DATA_ERROR/);
  });

  it('sends every kind of body, and says of what kind it is', async () => {
    const port = await http(async (request, response) =>
      response.end(`${request.headers['content-type']} ${request.headers['content-length']} ${await textOf(request)}`),
    );
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const post = async (body: unknown, headers = {}) =>
      (await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body, headers })).text();
    assert.equal(await post('ä'), 'text/plain;charset=UTF-8 2 ä');
    assert.equal(await post('{}', { 'Content-Type': 'application/json' }), 'application/json 2 {}');
    assert.equal(await post(Buffer.from('abc')), 'undefined 3 abc');
    assert.equal(await post(new TextEncoder().encode('abc').buffer), 'undefined 3 abc');
    assert.equal(await post(new URLSearchParams({ a: '1' })), 'application/x-www-form-urlencoded;charset=UTF-8 3 a=1');
    assert.match(await post(new Blob(['blob'], { type: 'text/x' })), /^text\/x 4 blob$/);
    assert.equal(await post(new Blob(['stream']).stream()), 'undefined undefined stream');
    const request = new Request(`http://127.0.0.1:${port}/`, {
      method: 'POST',
      body: 'asked',
      headers: { 'x-a': '1' },
    });
    assert.match(await (await fetch(request)).text(), /asked$/);
    await refuses(fetch(`http://127.0.0.1:${port}/`, { body: 'x' }), BadInput, /GET has no body/);
    await assert.rejects(
      post(
        (async function* () {
          yield { no: 'bytes' };
        })(),
      ),
      /neither text nor bytes/,
    );
  });

  it('can be given up before and while the body comes, and the server sees it', async () => {
    const gone: string[] = [];
    const port = await http((request, response) => {
      response.on('close', () => gone.push(request.url!));
      if (request.url === '/silent') return;
      response.write('some ');
    });
    const { fetch, session, host } = guest({ fetch: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}`;
    const silent = new AbortController();
    const waiting = fetch(`${url}/silent`, { signal: silent.signal });
    setTimeout(() => silent.abort(new Error('enough')), 50);
    await assert.rejects(waiting, /enough/);
    await until('the server sees the first go', () => gone.includes('/silent'));
    const slow = new AbortController();
    const response = await fetch(`${url}/slow`, { signal: slow.signal });
    const reading = response.text();
    setTimeout(() => slow.abort(new Error('enough of it')), 50);
    await assert.rejects(reading, /enough of it/);
    await until('the server sees the second go', () => gone.includes('/slow'));
    const left = await fetch(`${url}/left`);
    await left.body!.cancel();
    await until('the server sees the third go', () => gone.includes('/left'));
    await assert.rejects(fetch(url, { signal: AbortSignal.abort(new Error('at once')) }), /at once/);
    await until('no stream is left', () => session.stats().streams === 0 && host.stats().streams === 0);
  });

  it('ends with the vault', async () => {
    const gone: string[] = [];
    const port = await http((request, response) => {
      response.on('close', () => gone.push(request.url!));
      if (request.url === '/body') response.write('some');
    });
    const { fetch, effects } = guest({ fetch: [`127.0.0.1:${port}`] });
    const silent = fetch(`http://127.0.0.1:${port}/silent`);
    const response = await fetch(`http://127.0.0.1:${port}/body`);
    await until('both have come', () => sockets.size > 0);
    await sleep(50);
    effects.close();
    await assert.rejects(silent);
    await assert.rejects(response.text());
    await until('the server sees both go', () => gone.length === 2);
  });

  it('is held up by no more than a node has room for', async () => {
    const port = await http((_request, response) => response.write('begins'));
    const { fetch, network } = guest({ fetch: [`127.0.0.1:${port}`] }, { limit_bytes: 2 * LIMITS.stream_bytes });
    const url = `http://127.0.0.1:${port}/`;
    const open = [await fetch(url), await fetch(url)];
    await refuses(fetch(url), Overloaded, /bytes that this node holds/);
    await open[0]!.body!.cancel();
    await until('there is room again', () => {
      try {
        network.hold(LIMITS.stream_bytes)();
        return true;
      } catch {
        return false;
      }
    });
    await (await fetch(url)).body!.cancel();
    await open[1]!.body!.cancel();
  });

  it('follows what the grants are now', async () => {
    const port = await http((_request, response) => response.end('ok'));
    const { fetch, effects } = guest({ fetch: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}/`;
    assert.equal(await (await fetch(url)).text(), 'ok');
    effects.regrant(normaliseGrants());
    await refuses(fetch(url), GrantMissing);
  });

  it('holds nothing for a guest but values and streams', async () => {
    const { session } = guest({});
    const reference = () => 1;
    for (let i = 0; i < GUEST_BOUNDS.references; i++) await session.call('effect', ['log', ['info', 'x', () => i]]);
    await refuses(session.call('effect', ['log', ['info', 'x', reference]]), Overloaded);
  });
});

describe('fetch over https', () => {
  // Made for this test alone; the certificate is for secure.example, until 2126.
  const key = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgKmElEz4f3p5IBcwa
OS8IpGYiWTVWw4LQR8iKlYXbGb+hRANCAAQG1CTqrw55O3oaRILawBbFbTbg/R7W
ackaGctibxF9EEF/FaPWnkxT3/JryCHeEPTSHkdr9rTsto27jkNOrK73
-----END PRIVATE KEY-----`;
  const cert = `-----BEGIN CERTIFICATE-----
MIIBnTCCAUKgAwIBAgIUF4RIOhwBGlMrW7rsVkyQr0qp914wCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKaGF1a2kgdGVzdDAgFw0yNjExMjExNzQ2NTNaGA8yMTI2MTAy
ODE3NDY1M1owFTETMBEGA1UEAwwKaGF1a2kgdGVzdDBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABAbUJOqvDnk7ehpEgtrAFsVtNuD9HtZpyRoZy2JvEX0QQX8Vo9ae
TFPf8mvIId4Q9NIeR2v2tOy2jbuOQ06srvejbjBsMB0GA1UdDgQWBBSfZHIDu9Zj
LTq/rhlUG52k5U4pXDAfBgNVHSMEGDAWgBSfZHIDu9ZjLTq/rhlUG52k5U4pXDAZ
BgNVHREEEjAQgg5zZWN1cmUuZXhhbXBsZTAPBgNVHRMBAf8EBTADAQH/MAoGCCqG
SM49BAMCA0kAMEYCIQDaVM9N9yvIc4TRPyynYDCnqEQ0eNeTDx6CBXi6/DU4+QIh
ANS5VGsjrrDxFbz49sytjooLEdGfxGVCvtgiNjP732NS
-----END CERTIFICATE-----`;

  it('goes to the address that was checked, and trusts it by its name', async () => {
    const port = await listening(createHttps({ key, cert }, (request, response) => response.end(request.headers.host)));
    const lookup = async () => ['127.0.0.1'];
    const to = [`secure.example:${port}`, `other.example:${port}`, `127.0.0.1:${port}`];
    const { fetch } = guest({ fetch: to }, { lookup });
    await assert.rejects(fetch(`https://secure.example:${port}/`), /SELF_SIGNED|UNABLE_TO_VERIFY/);
    const before = getCACertificates();
    setDefaultCACertificates([...before, cert]);
    try {
      assert.equal(await (await fetch(`https://secure.example:${port}/`)).text(), `secure.example:${port}`);
      await assert.rejects(fetch(`https://other.example:${port}/`), /ERR_TLS_CERT_ALTNAME_INVALID/);
      await assert.rejects(fetch(`https://127.0.0.1:${port}/`), /ERR_TLS_CERT_ALTNAME_INVALID/);
    } finally {
      setDefaultCACertificates(before);
    }
  });
});

describe('a secret', () => {
  const value = 's3cr3t-v4lue';
  const setUp = async () => {
    const seen: { to: string; headers: IncomingMessage['headers']; body: string }[] = [];
    const other = await http(async (request, response) => {
      seen.push({ to: 'other', headers: request.headers, body: await textOf(request) });
      response.end('other');
    });
    const port = await http(async (request, response) => {
      const { headers } = request;
      seen.push({ to: 'granted', headers, body: await textOf(request) });
      const to = new URL(request.url!, 'http://x').searchParams.get('to');
      if (to) return response.writeHead(307, { location: to.replace('SECRET', value) }).end();
      return response.end('ok');
    });
    const here = `127.0.0.1:${port}`;
    const elsewhere = `127.0.0.1:${other}`;
    const made = guest({ fetch: [here, elsewhere] }, { secrets: { KEY: { value, to: [here] } } });
    return { ...made, seen, here, elsewhere };
  };
  const headers = { authorization: 'Bearer {{secret:KEY}}', 'x-key': '{{secret:KEY}}', 'x-plain': 'stays' };

  it('goes in headers and bodies to where it may, and never comes to the guest', async () => {
    const { fetch, seen, here } = await setUp();
    await fetch(`http://${here}/`, { method: 'POST', headers, body: '{"key":"{{secret:KEY}}"}' });
    assert.equal(seen[0]!.headers.authorization, `Bearer ${value}`);
    assert.deepEqual([seen[0]!.headers['x-key'], seen[0]!.body], [value, `{"key":"${value}"}`]);
    async function* streamed() {
      yield 'a {{sec';
      yield 'ret:KEY}} b';
    }
    await fetch(`http://${here}/`, { method: 'POST', body: streamed() });
    assert.equal(seen[1]!.body, `a ${value} b`);
  });

  it('goes nowhere else: not when asked to, and not along with a redirect', async () => {
    const { fetch, seen, here, elsewhere } = await setUp();
    await refuses(fetch(`http://${elsewhere}/`, { headers }), GrantMissing, new RegExp(`secrets KEY to ${elsewhere}`));
    await refuses(fetch(`http://${elsewhere}/`, { method: 'POST', body: '{{secret:KEY}}' }), GrantMissing);
    await refuses(fetch(`http://${here}/`, { headers: { a: '{{secret:ELSE}}' } }), GrantMissing, /secrets ELSE/);
    assert.equal(seen.length, 0, 'nobody was asked');
    const url = `http://${here}/?to=${encodeURIComponent(`http://${elsewhere}/`)}`;
    assert.equal(await (await fetch(url, { headers })).text(), 'other');
    const { headers: got } = seen.at(-1)!;
    assert.deepEqual([got['x-plain'], got['x-key'], got.authorization], ['stays', undefined, undefined]);
    await refuses(fetch(url, { method: 'POST', body: '{{secret:KEY}}' }), GrantMissing, /secrets KEY to/);
    assert.ok(!JSON.stringify(seen.filter(({ to }) => to === 'other')).includes(value));
  });

  it('is taken out of what is said of a redirect that has it', async () => {
    const { fetch, here } = await setUp();
    for (const to of [
      'http://SECRET.example/',
      'http://user:SECRET@a.example/',
      'ftp://SECRET/',
      'http://[SECRET',
      'SECRET:x',
    ]) {
      const url = `http://${here}/?to=${encodeURIComponent(to)}`;
      const error: Error = await fetch(url, { headers }).catch((thrown) => thrown);
      assert.ok(error instanceof Error && !(error instanceof RemoteError && error.name === 'TypeError'));
      const said = JSON.stringify([error.message, error, error.stack, error.cause]);
      assert.ok(!said.toLowerCase().includes(value), said);
    }
    const back = await fetch(`http://${here}/?to=${encodeURIComponent('/SECRET')}`, { headers });
    assert.ok(!back.url.includes(value), back.url);
  });

  it('is not said by errors of the connection either', async () => {
    const closed = createServer();
    const port = await listening(closed);
    await new Promise((resolve) => closed.close(resolve));
    const here = `127.0.0.1:${port}`;
    const { fetch } = guest({ fetch: [here] }, { secrets: { KEY: { value, to: [here] } } });
    for (const bad of [{}, { 'x-bad': '{{secret:KEY}}\r\nx: y' }]) {
      const error: Error = await fetch(`http://${here}/`, { headers: { ...headers, ...bad } }).catch(
        (thrown) => thrown,
      );
      assert.ok(error instanceof Error);
      assert.ok(!JSON.stringify([error.message, error, error.stack]).includes(value), error.message);
      assert.ok(!String(error.stack).includes('effects/'), 'nor where the host’s code is');
    }
  });
});

describe('connect', () => {
  const echo = () => tcp((socket) => socket.pipe(socket));
  const read = async (stream: AsyncIterable<Uint8Array>) => {
    let text = '';
    for await (const chunk of stream) text += Buffer.from(chunk).toString();
    return text;
  };

  it('gives a byte stream both ways to what was granted, and to nothing else', async () => {
    const port = await echo();
    const { connect, session, host } = guest({ connect: [`127.0.0.1:${port}`] });
    const connection = await connect(`127.0.0.1:${port}`);
    assert.equal(connection.address, '127.0.0.1');
    await connection.write('hello ');
    await connection.write(Buffer.from('world'));
    connection.end();
    assert.equal(await read(connection.readable), 'hello world');
    await refuses(connect(`localhost:${port}`), GrantMissing, new RegExp(`connect localhost:${port}`));
    await refuses(connect('127.0.0.1:1'), GrantMissing);
    for (const none of ['127.0.0.1', 'http://127.0.0.1:1', '', 5, null])
      await refuses(connect(none as never), BadInput);
    await until('no stream is left', () => session.stats().streams === 0 && host.stats().streams === 0);
  });

  it('goes by name to public and listed addresses only, and where its check has looked', async () => {
    const port = await echo();
    let asked = 0;
    const lookup = async () => [['127.0.0.1', '127.0.0.2'][asked++]!];
    const { connect } = guest({ connect: [`rebinds.example:${port}`, `127.0.0.1:${port}`] }, { lookup });
    const connection = await connect(`rebinds.example:${port}`);
    connection.close();
    assert.equal(asked, 1);
    await refuses(
      connect(`rebinds.example:${port}`),
      GrantMissing,
      /is at 127\.0\.0\.2.*grant connect 127\.0\.0\.2:\d+ too/,
    );
  });

  it('carries much in bounded memory, each side waiting for the other', async () => {
    let received = 0;
    let stalled: Socket | undefined;
    const port = await tcp((socket) => {
      stalled = socket.pause();
      socket.on('data', (chunk) => {
        received += chunk.length;
      });
      socket.on('end', () => socket.end());
      socket.pause();
    });
    const { connect } = guest({ connect: [`127.0.0.1:${port}`] });
    const connection = await connect(`127.0.0.1:${port}`);
    const size = 24 * 1024 * 1024;
    let sent = 0;
    const writing = (async () => {
      for (; sent < size; sent += 1024 * 1024) await connection.write(new Uint8Array(1024 * 1024));
      connection.end();
    })();
    await sleep(200);
    assert.ok(sent < size / 2, `${sent} bytes were taken though nobody reads`);
    stalled!.resume();
    await writing;
    assert.equal(await read(connection.readable), '');
    assert.equal(received, size);
  });

  it('ends on both sides when either ends it', async () => {
    const ended: string[] = [];
    const port = await tcp((socket) => {
      socket.on('close', () => ended.push('server'));
      socket.on('data', (chunk) => chunk.toString() === 'bye' && socket.destroy());
    });
    const { connect } = guest({ connect: [`127.0.0.1:${port}`] });
    const mine = await connect(`127.0.0.1:${port}`);
    mine.close();
    await until('the server hears', () => ended.length === 1);
    await refuses(mine.write('x'), ConnectionLost);
    const theirs = await connect(`127.0.0.1:${port}`);
    await theirs.write('bye');
    await read(theirs.readable).catch(() => {});
    await until('the server has gone', () => ended.length === 2);
    await assert.rejects(async () => {
      for (let i = 0; i < 100; i++) {
        await theirs.write('x');
        await sleep(5);
      }
    });
    const left = await connect(`127.0.0.1:${port}`);
    await left.readable[Symbol.asyncIterator]().return?.();
    await until('the server hears that nobody reads', () => ended.length === 3);
  });

  it('ends with its grant, and with the vault', async () => {
    const port = await echo();
    const target = `127.0.0.1:${port}`;
    const { connect, effects } = guest({ connect: [target], fetch: [target] });
    const first = await connect(target);
    effects.regrant(normaliseGrants({ connect: [target] }));
    await first.write('still');
    const reading = read(first.readable);
    effects.regrant(normaliseGrants({ fetch: [target] }));
    await refuses(reading, GrantMissing, /connect/);
    await refuses(connect(target), GrantMissing);
    effects.regrant(normaliseGrants({ connect: [target] }));
    const second = await connect(target);
    effects.close();
    await assert.rejects(read(second.readable), /the vault has ended/);
  });

  it('is bounded in number, and says who did not answer', async () => {
    const port = await echo();
    const closed = createTcp();
    const nobody = await listening(closed);
    await new Promise((resolve) => closed.close(resolve));
    const { connect, session } = guest({ connect: [`127.0.0.1:${port}`, `127.0.0.1:${nobody}`] });
    await refuses(connect(`127.0.0.1:${nobody}`), RemoteError, /connect failed: 127\.0\.0\.1:\d+: ECONNREFUSED/);
    const open = [];
    for (let i = 0; i < LIMITS.connections_out; i++) open.push(await connect(`127.0.0.1:${port}`));
    await refuses(connect(`127.0.0.1:${port}`), Overloaded, /connections of this worker/);
    open[0]!.close();
    await until('its place is free', () => session.stats().streams === 2 * (LIMITS.connections_out - 1));
    (await connect(`127.0.0.1:${port}`)).close();
    for (const one of open) one.close();
    await refuses(
      connect(`127.0.0.1:${port}`, { signal: AbortSignal.abort(new ConnectionLost({ why: 'no' })) }),
      ConnectionLost,
    );
  });

  it('can be made a Duplex, as code for node:net expects', async () => {
    const port = await echo();
    const { connect } = guest({ connect: [`127.0.0.1:${port}`] });
    const connection = await connect(`127.0.0.1:${port}`);
    const duplex = Duplex.from({
      readable: connection.readable,
      writable: async (source: AsyncIterable<Uint8Array>) => {
        for await (const chunk of source) await connection.write(chunk);
        connection.end();
      },
    } as never);
    duplex.end('a line\n');
    assert.equal(await read(duplex), 'a line\n');
  });
});

describe('what a guest hands in', () => {
  it('is let go of where its effect is refused', async () => {
    const { session, host, fetch, connect } = guest({ fetch: ['127.0.0.1:1'] });
    async function* endless() {
      for (;;) yield new Uint8Array(1_000);
    }
    for (let i = 0; i < 10; i++) {
      await refuses(fetch('http://127.0.0.1:2/', { method: 'POST', body: endless() }), GrantMissing);
      await assert.rejects(fetch('http://127.0.0.1:1/', { method: 'POST', body: endless() }), /ECONNREFUSED/);
      await refuses(fetch('nonsense', { method: 'POST', body: endless() }), BadInput);
      await refuses(connect('127.0.0.1:2'), GrantMissing);
      await assert.rejects(session.call('effect', ['nothing', [{ body: endless() }, endless()]]), /Method not found/);
    }
    await until('no stream is left', () => session.stats().streams === 0 && host.stats().streams === 0);
  });

  it('may be anything, and is refused in words', async () => {
    const { session } = guest({ fetch: ['127.0.0.1:1'], connect: ['127.0.0.1:1'] });
    const odd = [
      undefined,
      null,
      5,
      'x',
      [],
      {},
      new Map(),
      () => 1,
      { body: 5 },
      [[]],
      new Uint8Array(3),
      Symbol.iterator.toString(),
    ];
    for (const name of ['fetch', 'connect', 'meshfs.resolve', 'meshfs.write', 'constructor', '__proto__', 5, null, {}])
      for (const args of [...odd, ...odd.map((one) => [one]), ...odd.map((one) => ['http://127.0.0.1:1/', one])])
        if (name !== 'fetch' || !Array.isArray(args) || args[0] !== 'http://127.0.0.1:1/')
          await assert.rejects(
            session.call('effect', [name, args]),
            (error: Error) => !/TypeError|Cannot/.test(error.message),
          );
  });

  it('is bounded for each worker before it waits', async () => {
    const port = await http(() => {});
    const { fetch, effects } = guest({ fetch: [`127.0.0.1:${port}`] });
    const body = new Uint8Array(6 * 1024 * 1024);
    const all = Array.from({ length: 8 }, () => fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body }));
    const outcomes = all.map((one) =>
      one.then(
        () => 'done',
        (error) => (isError(error, Overloaded) ? 'refused' : 'ended'),
      ),
    );
    await Promise.race(outcomes);
    effects.close();
    const counted = await Promise.all(outcomes);
    assert.ok(counted.filter((o) => o === 'refused').length >= 3, counted.join());
  });
});
