/**
 * A guest's `fetch`, over a session to the host's effects and to real servers on loopback. Names are played by a lookup of
 * the test's own; nothing goes beyond loopback.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttps } from 'node:https';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { createBrotliCompress, gzipSync } from 'node:zlib';
import { BadInput, GrantMissing, isError, LIMITS, normaliseGrants, Overloaded } from '@hauki/protocol';
import { createNetwork } from '../src/effects/network.ts';
import { createRates } from '../src/effects/rates.ts';
import { GUEST_BOUNDS } from '../src/guest/outside.ts';
import { Request as VmRequest } from '../src/guest/platform/http.ts';

import { guest, http, listening, refuses, sockets, tcp, textOf, until } from './outward-support.ts';

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
      // As many a server answers.
      if (request.method === 'HEAD') return response.writeHead(200, { 'content-encoding': 'gzip' }).end();
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
    const head = await fetch(`${url}/gzip`, { method: 'HEAD' });
    assert.deepEqual([head.headers.get('content-encoding'), await head.text()], ['gzip', '']);
    await assert.rejects((await fetch(`${url}/broken`)).text(), /fetch failed.*Z_DATA_ERROR/);
  });

  it('follows redirects only as far as it was told to, and says whether it did', async () => {
    const asked: string[] = [];
    const port = await http((request, response) => {
      asked.push(request.url!);
      if (request.url === '/from') return response.writeHead(302, { location: '/to' }).end('elsewhere');
      return response.end('there');
    });
    const { fetch, vmFetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}/from`;
    for (const get of [fetch, vmFetch]) {
      const followed = await get(url);
      assert.deepEqual(
        [followed.redirected, followed.url, await followed.text()],
        [true, url.replace('from', 'to'), 'there'],
      );
      const direct = await get(url.replace('from', 'to'));
      assert.deepEqual([direct.redirected, await direct.text()], [false, 'there']);
      asked.length = 0;
      const manual = await get(url, { redirect: 'manual' });
      assert.deepEqual([manual.status, manual.redirected, manual.headers.get('location')], [302, false, '/to']);
      assert.equal(await manual.text(), 'elsewhere');
      await refuses(get(url, { redirect: 'error' }), BadInput, /redirected/);
      assert.deepEqual(asked, ['/from', '/from']);
      await refuses(get(url, { redirect: 'sometimes' }), BadInput, /one of follow, manual, error/);
    }
    for (const [get, Kind] of [[fetch, Request] as const, [vmFetch, VmRequest] as const]) {
      const manual = await get(new Kind(url, { redirect: 'manual' }).clone());
      assert.deepEqual([manual.status, await manual.text()], [302, 'elsewhere']);
      await refuses(get(new Kind(url, { redirect: 'error' })), BadInput, /redirected/);
    }
  });

  it('keeps method and body over the redirects that say so, and no word of a body that is left behind', async () => {
    const seen: string[] = [];
    const port = await http(async (request, response) => {
      const [, status] = request.url!.split('/');
      if (status) return response.writeHead(Number(status), { location: '/' }).end();
      const { headers, method } = request;
      seen.push(`${method} ${headers['content-type']} ${headers['content-language']} ${await textOf(request)}`);
      return response.end();
    });
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const headers = { 'content-type': 'text/x', 'content-language': 'fi' };
    const send = (status: number, method: string, body: unknown = 'body') =>
      fetch(`http://127.0.0.1:${port}/${status}`, { method, body, headers });
    const [kept, left] = ['text/x fi body', 'GET undefined undefined '];
    for (const [status, method, wanted] of [
      ...([301, 302, 303] as const).map((status) => [status, 'POST', left] as const),
      ...([307, 308] as const).map((status) => [status, 'POST', `POST ${kept}`] as const),
      ...([301, 302, 307, 308] as const).map((status) => [status, 'PUT', `PUT ${kept}`] as const),
      [303, 'PUT', left] as const,
    ]) {
      await send(status, method);
      assert.equal(seen.pop(), wanted, `${status} of ${method}`);
    }
    await refuses(send(307, 'POST', new Blob(['streamed']).stream()), BadInput, /cannot be sent twice/);
    assert.deepEqual(seen, []);
  });

  it('leaves the answer that redirects it, whatever that goes on to say', async () => {
    let left = false;
    const port = await http((request, response) => {
      if (request.url === '/there') return response.end('there');
      response.on('close', () => {
        left = true;
      });
      return response.writeHead(302, { location: '/there' }).write('endless');
    });
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'there');
    await until('the server sees the first go', () => left);
  });

  it('takes from the rates of all above it, and of none that has lost the grant', async () => {
    const port = await http((_request, response) => response.end('ok'));
    const to = `127.0.0.1:${port}`;
    const allowance = (worker: string, per_minute?: number) => ({
      worker,
      grants: normaliseGrants(per_minute === undefined ? {} : { fetch: [{ to, per_minute }] }),
      rates: createRates(),
    });
    const all = [allowance('own', 5), allowance('lost'), allowance('above', 2)];
    const { fetch } = guest({ fetch: [{ to, per_minute: 5 }] }, { allowances: () => all });
    for (let i = 0; i < 2; i++) assert.equal(await (await fetch(`http://${to}/`)).text(), 'ok');
    await refuses(fetch(`http://${to}/`), Overloaded, /of above, from which this one stems.*limit of 2/);
  });

  it('takes headers in every form that the standard has', async () => {
    const port = await http((request, response) => response.end(`${request.headers['x-a']} ${request.headers['0']}`));
    const { fetch, vmFetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const pairs: [string, string][] = [['x-a', '1']];
    for (const headers of [pairs, Object.fromEntries(pairs), new Map(pairs), new Headers(pairs)])
      for (const get of [fetch, vmFetch])
        assert.equal(await (await get(`http://127.0.0.1:${port}/`, { headers })).text(), '1 undefined');
  });

  it('ends where a server changes the protocol, and takes no place from the next ones', async () => {
    const port = await http((_request, response) => response.end('fine'));
    // Nobody asks for it: a server may answer so anyway.
    const rude = await tcp((socket) => {
      socket.once('data', () =>
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n'),
      );
    });
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`, `127.0.0.1:${rude}`] });
    const all = await Promise.allSettled(Array.from({ length: 12 }, () => fetch(`http://127.0.0.1:${rude}/`)));
    for (const one of all) assert.match(String((one as PromiseRejectedResult).reason), /another protocol/);
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'fine');
  });

  it('sends every kind of body, and says of what kind it is', async () => {
    const port = await http(async (request, response) =>
      response.end(`${request.headers['content-type']} ${request.headers['content-length']} ${await textOf(request)}`),
    );
    const { fetch, vmFetch } = guest({ fetch: [`127.0.0.1:${port}`] });
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
    const others = new VmRequest(`http://127.0.0.1:${port}/`, { method: 'POST', body: 'asked' });
    assert.match(await (await vmFetch(others.clone())).text(), /^text\/plain;charset=UTF-8 5 asked$/);
    assert.equal(await (await vmFetch(others, { headers: { 'x-a': '1' } })).text(), 'undefined 5 asked');
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
    await assert.rejects(silent, /ABORT_ERR/);
    await assert.rejects(response.text());
    await until('the server sees both go', () => gone.length === 2);
  });

  it('is held up by no more than a node has room for', async () => {
    const port = await http((_request, response) => response.write('begins'));
    const network = createNetwork({ limit_bytes: 4 * LIMITS.stream_bytes });
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] }, { network });
    const url = `http://127.0.0.1:${port}/`;
    const open = [await fetch(url), await fetch(url)];
    await refuses(fetch(url), Overloaded, /bytes that this node holds/);
    await open[0]!.body!.cancel();
    await until('there is room again', () => {
      try {
        network.holdFor('test')(LIMITS.stream_bytes)();
        return true;
      } catch {
        return false;
      }
    });
    await (await fetch(url)).body!.cancel();
    await open[1]!.body!.cancel();
  });

  it('has room for a window each way where bodies stream both ways', async () => {
    const port = await http((_request, response) => response.write('begins'));
    const network = createNetwork({ limit_bytes: 4 * LIMITS.stream_bytes });
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] }, { network });
    const send = () => fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: new Blob(['x']).stream() });
    const open = await send();
    await refuses(send(), Overloaded, /bytes that this node holds/);
    await open.body!.cancel();
  });

  it('has room whatever the workers of other owners hold', async () => {
    const port = await http((request, response) => (request.url === '/' ? response.end('ok') : response.write('x')));
    const network = createNetwork({ limit_bytes: 40 * LIMITS.stream_bytes });
    const grants = { fetch: [`127.0.0.1:${port}`] };
    const url = `http://127.0.0.1:${port}`;
    const open: Response[] = [];
    // Tokens below one are no owners of their own, and no worker has more for being another.
    for (const owner of ['greedy', 'greedy/below', 'greedy/other', 'as-greedy']) {
      const { fetch } = guest(grants, { network, owner });
      await refuses(
        (async () => {
          for (;;) open.push(await fetch(`${url}/held`));
        })(),
        Overloaded,
        /one owner/,
      );
    }
    assert.equal(open.length, 20 + 10);
    const { fetch } = guest(grants, { network, owner: 'modest' });
    assert.equal(await (await fetch(`${url}/`)).text(), 'ok');
    for (const one of open) await one.body!.cancel();
  });

  it('follows what the grants are now', async () => {
    const port = await http((_request, response) => response.end('ok'));
    const { fetch, effects } = guest({ fetch: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}/`;
    assert.equal(await (await fetch(url)).text(), 'ok');
    effects.regrant(normaliseGrants());
    await refuses(fetch(url), GrantMissing, /revoked while it lived/);
  });

  it('says of a secret that was revoked that it was, and of one that never was granted that it is not', async () => {
    const port = await http((request, response) => response.end(request.headers['x-key']));
    const to = [`127.0.0.1:${port}`];
    const { fetch, effects } = guest({ fetch: to }, { secrets: { KEY: { value: 'hunter2hunter2', to } } });
    const ask = (name: string) => fetch(`http://${to}/`, { headers: { 'x-key': `{{secret:${name}}}` } });
    assert.equal(await (await ask('KEY')).text(), 'hunter2hunter2');
    await refuses(ask('NOBODY'), GrantMissing, /^((?!revoked).)*$/);
    effects.regrant(normaliseGrants({ fetch: to }));
    await refuses(ask('KEY'), GrantMissing, /any more: secrets KEY.*revoked while it lived/);
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
