/** WebSockets of modules through the core: whoever may ask may open one, and however it ends, both sides learn of it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { before, describe, it } from 'node:test';
import type { StartedKernel } from '@hauki/cli';
import { connectKernel } from '@hauki/mesh';
import { WebSocket } from 'ws';
import { useJoinedKernels } from './support/kernel.ts';
import { until, useMesh } from './support/mesh.ts';
import {
  assertEchoes,
  assertSpeaks,
  assertTakesPages,
  ECHO,
  openSocket,
  rawHandshake,
  refusal,
  reply,
  SPEAKER,
} from './support/sockets.ts';

describe('WebSockets through the gateway', () => {
  const used = useMesh({ nodes: [] });
  const { all: kernels, start } = useJoinedKernels(used, 'ws');
  before(async () => {
    await Promise.all([start(0), start(1)]);
    const all = { replicas: 'all' as const };
    await used.mesh.kernels.evolve({ target_module: 'echo', content: ECHO, ...all });
  });
  const open = (path: string, headers?: Record<string, string>) => openSocket(used.local, path, headers);
  const raw = (path: string, headers?: Record<string, string>, method?: string) =>
    rawHandshake(used.local, path, headers, method);
  /** Where a socket is served, by the handshake's own word. */
  const opened = async (headers?: Record<string, string>) => {
    const { socket, heard, closed } = await raw('echo/', headers);
    await until('the handshake is answered', () => heard().includes('\r\n\r\n'));
    return { socket, closed, heard, kernel: /x-hauki-kernel: (\S+)/.exec(heard().toString())?.[1] };
  };
  /** What a kernel's module has under way, asked of the kernel itself. */
  const under_way = async (kernel: StartedKernel, module = 'echo') => {
    const { modules } = await connectKernel({ url: kernel.url, token: kernel.token }).status();
    const live = modules.find((one) => one.module === module)?.live ?? [];
    return live.reduce((sum, { in_flight }) => sum + in_flight, 0);
  };
  const quiet = (module?: string) =>
    until('nothing is under way', async () => {
      for (const kernel of kernels) if ((await under_way(kernel, module)) > 0) return false;
      return true;
    });

  it('carry text, bytes and a module’s close, and large messages whole', async () => {
    await assertEchoes(await open('echo/'));
    const socket = await open('echo/');
    const large = new Uint8Array(3 * 1024 * 1024).map((_, i) => i % 251);
    assert.deepEqual(new Uint8Array((await reply(socket, large)) as Buffer), large);
    const text = 'häuki '.repeat(100_000);
    assert.equal(await reply(socket, text), `echo ${text}`);
    socket.close(1000);
    await once(socket, 'close');
    await quiet();
  });

  it('go to the kernels in turn, or by key to the same one, and say which version of which kernel serves', async () => {
    const seen = [await opened(), await opened()];
    assert.equal(new Set(seen.map(({ kernel }) => kernel)).size, 2);
    assert.match(seen[0]!.heard().toString(), /x-hauki-digest: [0-9a-f]{64}\r\n/);
    assert.match(seen[0]!.heard().toString(), /x-hauki-version: 1\r\n/);
    const sticky = [];
    for (let i = 0; i < 3; i++) sticky.push(await opened({ 'x-hauki-key': 'ada' }));
    assert.equal(new Set(sticky.map(({ kernel }) => kernel)).size, 1);
    for (const { socket } of [...seen, ...sticky]) socket.destroy();
    await quiet();
  });

  it('go to the same kernel by a key in the query, for pages, which the module does not see', async () => {
    const content = `export default { fetch(request) {
      const { 0: client, 1: server } = new WebSocketPair();
      server.accept();
      server.addEventListener('message', () => server.send(new URL(request.url).search));
      return new Response(null, { status: 101, webSocket: client });
    } };`;
    await used.mesh.kernels.evolve({ target_module: 'asked', content, replicas: 'all' });
    const search = async (query: string) => {
      const socket = await open(`asked/${query}`);
      const said = String(await reply(socket, 'what was asked?'));
      socket.close();
      return said;
    };
    assert.equal(await search('?a=1&x-hauki-key=ada&b=%20'), '?a=1&b=%20');
    assert.equal(await search('?x-hauki-key=ada'), '');
    assert.equal(await search('?x-hauki-keys=1'), '?x-hauki-keys=1');
    const kernels_of = async (query: string) => {
      const all = [];
      for (let i = 0; i < 4; i++) {
        const { socket, heard } = await raw(`echo/?${query}`);
        await until('the handshake is answered', () => heard().includes('\r\n\r\n'));
        all.push(/x-hauki-kernel: (\S+)/.exec(heard().toString())?.[1]);
        socket.destroy();
      }
      return new Set(all).size;
    };
    assert.deepEqual([await kernels_of('x-hauki-key=r%C3%BCm'), await kernels_of('x=1')], [1, 2]);
    for (const wrong of [
      'x-hauki-key',
      'x-hauki-key=',
      'x-hauki-key=%',
      `x-hauki-key=${'x'.repeat(129)}`,
      'x-hauki-key=a&x-hauki-key=b',
    ]) {
      const { socket, heard } = await raw(`echo/?${wrong}`);
      await until('it is refused', () => heard().includes('\r\n\r\n'));
      assert.match(heard().toString(), /^HTTP\/1\.1 400 /, wrong);
      socket.destroy();
    }
    await quiet();
  });

  it('need the token and the origin that requests need, and a module that takes them', async () => {
    const { url, token } = used.local;
    const authorization = `Bearer ${token}`;
    const at = `${url}/api/plugins/echo/`;
    assert.equal(await refusal(at, { authorization: 'Bearer wrong' }), 401);
    assert.equal(await refusal(at, { authorization, origin: 'http://elsewhere.example' }), 403);
    const { token: reader } = await used.mesh.tokens.create({ name: 'reader', scopes: ['read'] });
    assert.equal(await refusal(at, { authorization: `Bearer ${reader}` }), 403);
    assert.equal(await refusal(`${url}/api/plugins/nobody/`, { authorization }), 404);
    assert.equal(await refusal(`${url}/api/plugins/ECHO/`, { authorization }), 400);
    const { heard, closed } = await raw('echo/%2e%2e/x');
    await closed;
    assert.match(heard().toString(), /^HTTP\/1\.1 400 /);
    await used.mesh.kernels.evolve({
      target_module: 'deaf',
      content: `export default { fetch: () => new Response('no sockets here', { status: 418 }) };`,
    });
    assert.equal(await refusal(`${url}/api/plugins/deaf/`, { authorization }), 418);
  });

  it('do not see the mesh’s token, and see their prefix', async () => {
    await used.mesh.kernels.evolve({
      target_module: 'headers',
      content: `export default { fetch(request) {
        const [client, server] = Object.values(new WebSocketPair());
        server.accept();
        const { pathname, search } = new URL(request.url);
        server.send([pathname + search, request.headers.get('authorization'), request.headers.get('x-forwarded-prefix')].join());
        return new Response(null, { status: 101, webSocket: client });
      } };`,
    });
    const { socket, heard } = await raw('headers/a?b=c');
    await until('the first message came', () => heard().includes('/a?b=c,,/api/plugins/headers'));
    socket.destroy();
  });

  it('have the module’s subprotocol, end with its code, and are opened to pages as by the kernel itself', async () => {
    await used.mesh.kernels.evolve({ target_module: 'speaker', content: SPEAKER, replicas: 1 });
    await assertSpeaks(used.local, 'speaker/');
    await assertTakesPages(used.local, 'speaker/');
    await quiet('speaker');
  });

  it('end with the token of a page too, and need one of a scope that may call', async () => {
    const open = async (token: string) => {
      const socket = new WebSocket(`${used.local.url.replace('http', 'ws')}/api/plugins/echo/`);
      await once(socket, 'open');
      const closed = once(socket, 'close');
      const said = String(await reply(socket, JSON.stringify({ token })));
      return { socket, closed, said };
    };
    const { token: reader } = await used.mesh.tokens.create({ name: 'page-reader', scopes: ['read'] });
    const refused = await open(reader);
    assert.match(refused.said, /"Forbidden"/);
    assert.equal((await refused.closed)[0], 4403);
    const { token, id } = await used.mesh.tokens.create({ name: 'page', scopes: ['evolve'] });
    const { socket, closed } = await open(token);
    assert.equal(await reply(socket, 'here'), 'echo here');
    await used.mesh.tokens.revoke(id);
    await closed;
    await quiet();
  });

  it('end with the token', async () => {
    const { token, id } = await used.mesh.tokens.create({ name: 'short', scopes: ['evolve'] });
    const socket = await openSocket({ ...used.local, token }, 'echo/');
    assert.equal(await reply(socket, 'here'), 'echo here');
    const closed = once(socket, 'close');
    await used.mesh.tokens.revoke(id);
    await closed;
    await quiet();
  });

  it('let go of the module when a client leaves without a word, half closes, or breaks the rules', async () => {
    const gone = await open('echo/');
    gone.terminate();
    const half = await opened();
    half.socket.end();
    await half.closed;
    const large = await open('echo/');
    const too_large = once(large, 'close');
    large.send(new Uint8Array(5 * 1024 * 1024));
    assert.equal((await too_large)[0], 1009);
    for (const [why, bytes] of [
      ['a frame that is not masked', [0x81, 0x01, 0x61]],
      ['reserved bits', [0xf1, 0x80, 0, 0, 0, 0]],
      ['an unknown opcode', [0x83, 0x80, 0, 0, 0, 0]],
      ['a continuation of nothing', [0x80, 0x80, 0, 0, 0, 0]],
      ['a ping that is too long', [0x89, 0xfe, 0x10, 0x00, 0, 0, 0, 0]],
      ['a length beyond all bounds', [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]],
      ['text that is no UTF-8', [0x81, 0x81, 0, 0, 0, 0, 0xff]],
    ] as const) {
      const { socket, closed } = await opened();
      socket.write(Buffer.from(bytes));
      await closed;
      assert.ok(true, why);
    }
    await quiet();
    assert.equal((await fetch(`${used.local.url}/health`)).status, 200);
  });

  it('refuse a bad handshake before any module hears of it', async () => {
    const before = await Promise.all(kernels.map((kernel) => under_way(kernel)));
    const has = async () => {
      const kernel = kernels[0]!;
      const answer = await fetch(`${kernel.url}/api/plugins/echo/`, {
        method: 'POST',
        headers: { authorization: `Bearer ${kernel.token}` },
      });
      return ((await answer.json()) as { ever: number }).ever;
    };
    const ever = await has();
    for (const [headers, method] of [
      [{ 'sec-websocket-key': 'short' }],
      [{ 'sec-websocket-version': '7' }],
      [{}, 'POST'],
    ] as [Record<string, string>, string?][])
      for (const place of [used.local, kernels[0]!]) {
        const { heard, closed } = await rawHandshake(place, 'echo/', headers, method);
        await closed;
        assert.match(heard().toString(), /^HTTP\/1\.1 400 /);
      }
    assert.equal(await has(), ever);
    assert.deepEqual(await Promise.all(kernels.map((kernel) => under_way(kernel))), before);
  });

  it('hold a client up whose module does not read, and a module whose client does not', async () => {
    await used.mesh.kernels.evolve({
      target_module: 'flood',
      content: `export default { fetch(request) {
        const [client, server] = Object.values(new WebSocketPair());
        server.accept();
        const piece = new Uint8Array(64 * 1024);
        server.addEventListener('message', () => { for (let i = 0; i < 200; i++) server.send(piece); server.send('last'); });
        return new Response(null, { status: 101, webSocket: client });
      } };`,
    });
    const socket = await open('flood/');
    socket.send('go');
    socket.pause();
    // Others are served all the while.
    await assertEchoes(await open('echo/'));
    let bytes = 0;
    const last = new Promise<void>((resolve) => {
      socket.on('message', (data: Buffer, is_binary) => {
        if (is_binary) bytes += data.length;
        else resolve();
      });
    });
    socket.resume();
    await last;
    assert.equal(bytes, 200 * 64 * 1024);
    socket.close();
    await quiet('flood');
  });

  it('are bounded for each kernel, with a clear refusal', async () => {
    const sockets: WebSocket[] = [];
    let refused: number | undefined;
    while (refused === undefined && sockets.length < 250)
      await open('echo/').then(
        (socket) => sockets.push(socket),
        (error) => {
          refused = Number(/\d{3}/.exec(error.message)?.[0]);
        },
      );
    // One that was closed a moment ago may still count.
    assert.ok(sockets.length <= 2 * 96 && sockets.length > 2 * 90, `${sockets.length} were opened`);
    assert.equal(refused, 429);
    // Requests are served all the same, with bodies in pieces too.
    const answer = await fetch(`${used.local.url}/api/plugins/echo/`, {
      headers: { authorization: `Bearer ${used.local.token}` },
    });
    assert.equal(answer.status, 426);
    const closed = sockets.map((socket) => once(socket, 'close'));
    for (const socket of sockets) socket.close();
    await Promise.all(closed);
    // Their places are free a moment after their clients know that they are closed.
    const next: WebSocket[] = [];
    await until('there is room again', async () => {
      await open('echo/').then(
        (socket) => next.push(socket),
        (error) => assert.match(error.message, /429/),
      );
      return next.length > 0;
    });
    await assertEchoes(next[0]!);
    await quiet();
  });

  it('are closed with 1014 when their kernel dies, and the next ones go to another', async () => {
    const sockets = [await open('echo/'), await open('echo/')];
    const closes = sockets.map((socket) => once(socket, 'close'));
    const [dead] = kernels;
    await dead!.kill();
    const [code, why] = await Promise.race(closes);
    assert.equal(code, 1014);
    assert.match(String(why), /^Microkernel-ws.* went away$/);
    for (let i = 0; i < 3; i++) await assertEchoes(await open('echo/'));
    for (const socket of sockets) socket.close();
    await start(0);
  });

  it('are closed with 1011 when their module dies', async () => {
    await used.mesh.kernels.evolve({
      target_module: 'dies',
      content: `export default { fetch(request) {
        const [client, server] = Object.values(new WebSocketPair());
        server.accept();
        server.addEventListener('message', () => { for (;;) {} });
        return new Response(null, { status: 101, webSocket: client });
      } };`,
    });
    const socket = await open('dies/');
    const closed = once(socket, 'close');
    socket.send('now');
    assert.equal((await closed)[0], 1011);
  });

  it('are closed with 1001 when the core is stopped', async () => {
    const socket = await open('echo/');
    const closed = once(socket, 'close');
    await used.local.core.stop();
    assert.equal((await closed)[0], 1001);
  });
});
