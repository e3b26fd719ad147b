/** Requests of a module where they are no plain ones: whatever makes an answer, a client that leaves, and failures. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing, until } from './support/mesh.ts';
import { openSocket } from './support/sockets.ts';

/** Versions of one module that live at once (`KERNEL_LIMITS.live_versions`). */
const LIVE = 4;

const MODULE = `
  const told = [];
  const first = () => new ReadableStream({
    start(controller) { controller.enqueue(new TextEncoder().encode('first')); },
  });
  export default { async fetch(request) {
    const { pathname } = new URL(request.url);
    request.signal.addEventListener('abort', () => told.push(pathname));
    switch (pathname) {
      case '/redirect': return Response.redirect('http://localhost/there', 307);
      case '/clone': return new Response('twice', { status: 201 }).clone();
      case '/kinds': return Response.json([request, request.clone(), new Request('http://x/')].map((it) => it instanceof Request)
        .concat([new Response(''), Response.json(1), new Response('').clone(), Response.redirect('http://x/')].map((it) => it instanceof Response)));
      case '/throw': throw new Error('on purpose');
      case '/waits': return new Promise(() => {});
      case '/breaks': return new Response((async function* () {
        yield new TextEncoder().encode('begun');
        throw new Error('on purpose');
      })());
      case '/streams': return new Response(first());
      case '/sized': return new Response(request.method === 'HEAD' ? null : 'x'.repeat(20), { headers: { 'content-length': '20' } });
      case '/none': return new Response(null, { status: 204 });
      case '/told': return Response.json(told);
    }
    return new Response(pathname);
  } };`;

describe('the door of an open kernel', { skip: missing('quickjs') }, () => {
  const kernel = useKernel({ drivers: ['quickjs'], open: true });
  const post = (path: string, body?: string, headers = {}) =>
    fetch(kernel.process.url + path, { method: 'POST', headers, ...(body === undefined ? {} : { body }) });
  const answers = (text: string) => `export default { fetch: () => new Response('${text}') };`;

  it('takes what curl sends without a type, and nothing from the page of another', async () => {
    const body = (text: string) => JSON.stringify({ target_module: 'plain.js', content: answers(text) });
    const type = { 'content-type': 'application/x-www-form-urlencoded' };
    assert.equal((await post('/api/evolve_plugin', body('one'), type)).status, 200);
    assert.equal((await post('/api/evolve', body('two'), { 'content-type': 'text/plain' })).status, 200);
    const foreign = { ...type, origin: 'http://elsewhere.example' };
    assert.equal((await post('/api/evolve_plugin', body('three'), foreign)).status, 403);
    assert.equal((await post('/api/evolve_plugin', 'a=b', type)).status, 400);
    assert.equal(await (await fetch(`${kernel.process.url}/api/plugins/plain/`)).text(), 'two');
    // The last good one: there is nothing more to say.
    assert.equal((await post('/api/modules/plain/rollback')).status, 200);
    assert.equal(await (await fetch(`${kernel.process.url}/api/plugins/plain/`)).text(), 'one');
  });

  it('answers for no other host, also where no token is needed', async () => {
    const { hostname, port, host } = new URL(kernel.process.url);
    const status = async (target: string, ...headers: string[]) => {
      const socket = connect(Number(port), hostname);
      socket.write(`${[`GET ${target} HTTP/1.1`, ...headers, 'Connection: close'].join('\r\n')}\r\n\r\n`);
      return Number((await text(socket)).slice(9, 12));
    };
    for (const path of ['/health', '/docs/json', '/api/status']) {
      assert.equal(await status(path, `Host: ${host}`), 200, path);
      assert.equal(await status(path, 'Host: evil.example'), 403, path);
      assert.equal(await status(`http://evil.example${path}`, `Host: ${host}`), 403, path);
      assert.equal(await status(path, `Host: ${host}`, 'Host: evil.example'), 400, path);
    }
  });

  it('says of each module what it serves and how it does', async () => {
    const status: any = await (await fetch(`${kernel.process.url}/api/status`)).json();
    const { module, version, digest, language, state, routes, requests, error_rate, p99_ms, memory_bytes } =
      status.modules.find((one: { module: string }) => one.module === 'plain');
    assert.deepEqual(
      [module, version, language, state, routes, requests, error_rate],
      ['plain', 1, 'javascript', 'serving', ['* /*'], 1, 0],
    );
    assert.match(digest, /^[0-9a-f]{64}$/);
    assert.ok(p99_ms > 0 && memory_bytes > 0);
  });

  it('takes no change from a page that a module served, which has the kernel’s own origin; what is read it may', async () => {
    const type = { 'content-type': 'application/json' };
    const own = { origin: kernel.process.url };
    const body = JSON.stringify({ target_module: 'plain.js', content: answers('owned') });
    for (const page of [own, { 'sec-fetch-site': 'same-origin' }, { ...own, 'sec-fetch-site': 'same-origin' }])
      for (const [path, sent] of [
        ['/api/evolve_plugin', body],
        ['/api/evolve', body],
        ['/api/modules/plain/rollback', '{}'],
      ] as const) {
        const refused = await post(path, sent, { ...type, ...page });
        assert.equal(refused.status, 401);
        assert.match(await refused.text(), /only with its token/);
      }
    assert.equal(await (await fetch(`${kernel.process.url}/api/plugins/plain/`)).text(), 'one');
    assert.equal((await fetch(`${kernel.process.url}/api/status`, { headers: own })).status, 200);
    assert.equal((await post('/api/plugins/plain/', 'x', own)).status, 200);
    const dry = JSON.stringify({ target_module: 'plain.js', content: answers('dry'), dry_run: true });
    const authorization = `Bearer ${kernel.process.token}`;
    assert.equal((await post('/api/evolve', dry, { ...type, ...own, authorization })).status, 200);
  });

  it('has room for a module after any number of others that came to nothing', async () => {
    for (let i = 0; i <= 256; i++)
      assert.equal(
        (await post('/api/evolve', JSON.stringify({ target_module: `none_${i}`, content: '' }))).status,
        422,
      );
    const body = JSON.stringify({ target_module: 'some', content: answers('some') });
    assert.equal((await post('/api/evolve', body)).status, 200);
  });

  it('refuses shares of what is no version', async () => {
    const json = { 'content-type': 'application/json' };
    const answer = await post('/api/modules/plain/weights', JSON.stringify({ versions: { first: 100 } }), json);
    assert.deepEqual([answer.status, /first: there is no such member/.test(await answer.text())], [400, true]);
  });

  it('begins anew with a module that was removed: its tests and bounds are gone with it', async () => {
    const { door } = kernel;
    const tests = [{ path: '/', expect: { text: 'old' } }];
    await door.evolve({ target_module: 'anew', content: answers('old'), tests, bounds: { max_p99_ms: 5_000 } });
    await assert.rejects(door.evolve({ target_module: 'anew', content: answers('new') }), /stage tests/);
    await door.remove('anew');
    const { version } = await door.evolve({ target_module: 'anew', content: answers('new') });
    assert.equal(version, 2);
    const view = (await door.status()).modules.find(({ module }) => module === 'anew');
    assert.equal(view?.bounds, null);
  });
});

for (const driver of DRIVERS)
  describe(`requests of a module, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver] });
    let digest = '';

    it('are answered by whatever makes a Response', async () => {
      ({ digest } = await kernel.door.evolve({ target_module: 'edge', content: MODULE }));
      const redirect = await kernel.get('edge/redirect', { redirect: 'manual' });
      assert.deepEqual([redirect.status, redirect.headers.get('location')], [307, 'http://localhost/there']);
      const clone = await kernel.get('edge/clone');
      assert.deepEqual([clone.status, await clone.text()], [201, 'twice']);
      assert.deepEqual(await kernel.json('edge/kinds'), Array(7).fill(true));
    });

    it('with a body that their method has none of are served without it', async () => {
      const content = `export default { async fetch(request) {
        const { method, body } = request.clone();
        return Response.json([method, body === null, await request.text(), request.headers.get('content-type')]);
      } };`;
      await kernel.door.evolve({ target_module: 'bodiless', content });
      const ask = (method: string, body: string) =>
        new Promise<string>((resolve, reject) => {
          const headers = { authorization: `Bearer ${kernel.process.token}`, 'content-type': 'application/json' };
          const url = `${kernel.process.url}/api/plugins/bodiless/`;
          const asked = request(url, { method, headers: { ...headers, 'content-length': body.length } }, (answer) =>
            text(answer).then(resolve, reject),
          );
          asked.on('error', reject).end(body);
        });
      for (const body of ['{}', 'x'.repeat(300_000)])
        assert.deepEqual(JSON.parse(await ask('GET', body)), ['GET', true, '', 'application/json']);
      assert.deepEqual(JSON.parse(await ask('DELETE', '{}')), ['DELETE', false, '{}', 'application/json']);
      assert.equal((await kernel.door.status()).modules.find(({ module }) => module === 'bodiless')?.errors, 0);
    });

    it('are answered with headers beyond ASCII in Latin-1, whatever the body is', async () => {
      const content = `const bodies = {
          text: () => 'caf\\u00e9', bytes: () => new Uint8Array([1]), none: () => null, empty: () => '',
          stream: () => new ReadableStream({ start(to) { to.enqueue(new TextEncoder().encode('x')); to.close(); } }),
        };
        export default { fetch: (request) =>
          new Response(bodies[new URL(request.url).pathname.slice(1)](), { headers: { 'x-name': 'caf\\u00e9' } }) };`;
      await kernel.door.evolve({ target_module: 'accents', content });
      for (const body of ['text', 'bytes', 'none', 'empty', 'stream'])
        for (const method of ['GET', 'POST', 'HEAD']) {
          const answer = await kernel.get(`accents/${body}`, { method });
          assert.deepEqual([method, body, answer.headers.get('x-name')], [method, body, 'caf\u00e9']);
          if (body === 'text' && method !== 'HEAD') assert.equal(await answer.text(), 'caf\u00e9');
        }
    });

    it('are refused with the line where a module is TypeScript, and nobody says so', async () => {
      const refused = (content: string) =>
        kernel.door.evolve({ target_module: 'typed', content }).then(
          () => assert.fail('it was taken'),
          (error: Error) => error.message,
        );
      const typed = await refused('const twice =\n  (n: number) => 2 * n;\nexport default { fetch: () => twice(1) };');
      assert.match(typed, /SyntaxError.*worker\.mjs:2/);
      const decorated = await refused('const d = () => {};\n@d\nclass A {}\nexport default { fetch() {} };');
      assert.match(decorated, /SyntaxError.*worker\.mjs:2/);
      assert.match(typed, /language "typescript"/);
    });

    it('abort their signal when the client leaves, before the answer or in the middle of it', async () => {
      const early = new AbortController();
      const asked = kernel.get('edge/waits', { signal: early.signal });
      const under_way = async () =>
        (await kernel.door.status()).modules.some(({ live }) => live.some(({ in_flight }) => in_flight > 0));
      await until('it waits', under_way);
      early.abort();
      await assert.rejects(asked);
      const reader = (await kernel.get('edge/streams')).body!.getReader();
      await reader.read();
      await reader.cancel();
      await until('it was told of both', async () => {
        const told = await kernel.json('edge/told');
        return told.includes('/waits') && told.includes('/streams');
      });
      assert.equal((await kernel.json('edge/told')).length, 2);
    });

    it('with a body that nobody reads leave their connection to the next one; what is read on behind the answer comes whole', async () => {
      const content = `let late = '';
        export default { async fetch(request, env, ctx) {
          const { pathname } = new URL(request.url);
          if (pathname === '/late') return new Response(late);
          if (pathname === '/fails') throw new Error('on purpose');
          const reader = request.body?.getReader();
          if (pathname === '/some') await reader.read();
          if (pathname === '/behind' || pathname === '/later') ctx.waitUntil((async () => {
            let bytes = 0;
            if (pathname === '/later') await new Promise((resolve) => setTimeout(resolve, 3_000));
            try {
              for (let got = await reader.read(); !got.done; got = await reader.read()) bytes += got.value.length;
              late += bytes + ' read ';
            } catch (error) {
              late += error.message;
            }
          })());
          return new Response('answered');
        } };`;
      await kernel.door.evolve({ target_module: 'unread', content });
      const { hostname, port, host } = new URL(kernel.process.url);
      const bytes = 1_500_000;
      const head = (method: string, path: string, more = '') =>
        `${method} /api/plugins/unread/${path} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${kernel.process.token}\r\n${more}\r\n`;
      for (const path of ['none', 'some', 'fails', 'behind', 'later']) {
        const socket = connect(Number(port), hostname);
        socket.write(head('POST', path, `Content-Length: ${bytes}\r\n`));
        socket.write(Buffer.alloc(bytes));
        socket.write(head('GET', 'next', 'Connection: close\r\n'));
        const said = (await text(socket)).match(/HTTP\/1\.1 \d+/g);
        assert.deepEqual(said, [`HTTP/1.1 ${path === 'fails' ? 500 : 200}`, 'HTTP/1.1 200'], path);
      }
      const late = async () => (await kernel.get('unread/late')).text();
      await until('both have heard', async () => (await late()).endsWith('nobody read it'));
      assert.match(await late(), new RegExp(`^${bytes} read .*was dropped: after the answer nobody read it$`));
      const [{ live }] = (await kernel.door.status()).modules.filter(({ module }) => module === 'unread') as any;
      assert.equal(live[0].in_flight, 0);
    });

    it('of HEAD are told the length that GET would have, and 204 has none', async () => {
      for (const [method, path, status, length] of [
        ['HEAD', 'sized', 200, '20'],
        ['GET', 'sized', 200, '20'],
        ['HEAD', 'plain', 200, '6'],
        ['GET', 'none', 204, null],
        ['HEAD', 'none', 204, null],
      ] as const) {
        const answer = await kernel.get(`edge/${path}`, { method });
        assert.deepEqual([answer.status, answer.headers.get('content-length')], [status, length], `${method} ${path}`);
        assert.equal((await answer.text()).length, method === 'HEAD' ? 0 : Number(length));
      }
      const endless = await kernel.get('edge/streams', { method: 'HEAD' });
      assert.deepEqual([endless.status, await endless.text()], [200, '']);
    });

    it('that fail are traced to their source as well', async () => {
      const failed = await kernel.get('edge/throw');
      assert.equal(failed.status, 500);
      assert.deepEqual([failed.headers.get('x-hauki-version'), failed.headers.get('x-hauki-digest')], ['1', digest]);
      assert.match(await failed.text(), /on purpose/);
    });

    it('that fail in the middle of their answer give what came before, and no end', async () => {
      const reader = (await kernel.get('edge/breaks')).body!.getReader();
      assert.equal(String(Buffer.from((await reader.read()).value!)), 'begun');
      await assert.rejects(reader.read());
    });

    it('that stream are bounded, and one more is told to come again', async () => {
      const all = await Promise.all(Array.from({ length: 128 }, () => kernel.get('edge/streams')));
      const readers = all.map((answer) => answer.body!.getReader());
      await Promise.all(readers.map((reader) => reader.read()));
      const refused = await kernel.get('edge/streams');
      assert.equal(refused.status, 429);
      assert.match(await refused.text(), /streams of the module edge is at its limit of 128/);
      assert.equal((await kernel.get('edge/')).status, 200);
      await Promise.all(readers.map((reader) => reader.cancel()));
      await until('there is room again', async () => {
        const answer = await kernel.get('edge/streams');
        await answer.body!.cancel();
        return answer.status === 200;
      });
    });

    it('for a WebSocket are ended with its version by 1012: who opens it again gets the one in its place', async () => {
      const content = `export default { fetch() {
        const [client, server] = Object.values(new WebSocketPair());
        server.accept();
        return new Response(null, { status: 101, webSocket: client });
      } };`;
      const closed: Promise<unknown[]>[] = [];
      const open: { terminate(): void }[] = [];
      // Each keeps the version that it was opened with, until there are too many.
      for (let i = 0; i < LIVE + 1; i++) {
        await kernel.door.evolve({ target_module: 'left', content: `${content} // ${i}` });
        const socket = await openSocket(kernel.process, 'left/');
        open.push(socket);
        closed.push(once(socket, 'close'));
      }
      const [code, reason] = (await closed[0])!;
      assert.deepEqual([code, String(reason)], [1012, 'this version serves no longer']);
      for (const socket of open) socket.terminate();
    });

    it('for a version that does not run are the caller’s mistake', async () => {
      const refused = await kernel.get('edge/', { headers: { 'x-hauki-version': '7' } });
      assert.equal(refused.status, 400);
      assert.match(await refused.text(), /version 7 of edge does not run; 1 do/);
    });
  });
