/** A module's WebSockets: what waits for a client that does not read, and what both sides hear at the end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { before, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing, until } from './support/mesh.ts';
import { openSocket } from './support/sockets.ts';

const MIB = 1024 * 1024;

/** At /push a quarter of a MiB for all; tells how many there are and what waits for each. Else rows, as many as are asked for. */
const FEED = `
  const all = new Set();
  const piece = new Uint8Array(256 * 1024);
  export default { fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === '/push') {
      for (const one of all) one.send(piece);
      return Response.json([...all].map((one) => one.bufferedAmount));
    }
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    all.add(server);
    server.addEventListener('close', () => all.delete(server));
    const rows = () => { for (let i = 0; i < Number(searchParams.get('rows')); i++) server.send('row ' + i); };
    if (searchParams.has('early')) rows();
    server.addEventListener('message', rows);
    return new Response(null, { status: 101, webSocket: client });
  } };`;

/** Echoes, and tells at GET what each socket heard, in its order; `bye` closes it from its side. */
const TELLER = `
  const sockets = [];
  export default { fetch(request) {
    if (request.headers.get('upgrade') !== 'websocket') return Response.json(sockets);
    const [client, server] = Object.values(new WebSocketPair());
    const heard = [];
    sockets.push(heard);
    server.accept();
    const removed = new AbortController();
    server.addEventListener('message', ({ data }) => heard.push('once ' + data), { once: true });
    server.addEventListener('message', () => heard.push('removed'), { signal: removed.signal });
    removed.abort();
    server.addEventListener('message', { handleEvent: ({ data }) => heard.push(data) });
    server.addEventListener('message', ({ data }) => {
      if (data === 'bye') server.close(4000, 'mine');
      else server.send('ok ' + data);
    });
    server.addEventListener('close', ({ code, reason, wasClean }) => heard.push([code, reason, wasClean]));
    return new Response(null, { status: 101, webSocket: client });
  } };`;

for (const driver of DRIVERS)
  describe(`WebSockets of a module, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver] });
    before(async () => {
      await kernel.door.evolve({ target_module: 'feed', driver, content: FEED });
      await kernel.door.evolve({ target_module: 'teller', driver, content: TELLER });
    });
    /** What the socket heard that was opened last, when it has heard of its end. */
    const heard = async (): Promise<unknown[]> => {
      let last: unknown[] = [];
      await until('it has heard of its end', async () => {
        last = (await kernel.json('teller/')).at(-1);
        return last.some((one) => Array.isArray(one));
      });
      return last;
    };
    const open = (path: string) => openSocket(kernel.process, path);
    const closed = async (socket: WebSocket) => {
      const [code, reason] = await once(socket, 'close');
      return [code, String(reason)];
    };

    it('close a client that does not read, and the others hear all', async () => {
      const [reader, other] = [await open('feed/'), await open('feed/')];
      other.pause();
      let [most, pushes] = [0, 0];
      for (let left = 2; left === 2; pushes++) {
        assert.ok(pushes < 400, 'one that reads nothing is still served');
        const [heard, waiting] = await Promise.all([once(reader, 'message'), kernel.json('feed/push')]);
        assert.equal(heard[0].length, MIB / 4);
        most = Math.max(most, ...waiting);
        left = waiting.length;
      }
      assert.ok(most > 14 * MIB && most < 17 * MIB, `${most} bytes waited`);
      const end = closed(other);
      other.resume();
      assert.deepEqual(await end, [1013, 'too much waits to be read']);
      reader.close();
      await closed(reader);
    });

    it('take thousands of small messages that are sent in one turn', async () => {
      for (const [path, turns] of [
        ['feed/?rows=5000', 1],
        ['feed/?rows=5000&early', 2],
      ] as const) {
        const { url, token } = kernel.process;
        const headers = { authorization: `Bearer ${token}` };
        const socket = new WebSocket(`${url.replace('http', 'ws')}/api/plugins/${path}`, { headers });
        // Before it is open: the first of them come with the handshake.
        let heard = 0;
        const all = new Promise<void>((resolve) => {
          socket.on('message', () => ++heard === turns * 5_000 && resolve());
        });
        const broken = closed(socket);
        await once(socket, 'open');
        socket.send('go');
        assert.equal(await Promise.race([all, broken]), undefined);
        socket.close(1000);
        await broken;
      }
    });

    it('bring a module all that its client sent before it closed, and then how it closed', async () => {
      const all = Array.from({ length: 200 }, (_, i) => `m${i}`);
      for (let i = 0; i < 5; i++) {
        const socket = await open('teller/');
        for (const one of all) socket.send(one);
        socket.close(1000, 'done');
        await closed(socket);
        assert.deepEqual(await heard(), ['once m0', ...all, [1000, 'done', true]]);
      }
    });

    it('tell a module of its own close once, when its client has ended too, and nothing that comes behind it', async () => {
      const socket = await open('teller/');
      for (const one of ['bye', 'too late', 'later']) socket.send(one);
      assert.deepEqual(await closed(socket), [4000, 'mine']);
      assert.deepEqual(await heard(), ['once bye', 'bye', [4000, 'mine', true]]);
    });
  });
