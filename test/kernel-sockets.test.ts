/** A module's WebSockets: what waits for a client that does not read, and what both sides hear at the end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { before, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing } from './support/mesh.ts';
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

for (const driver of DRIVERS)
  describe(`WebSockets of a module, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver] });
    before(async () => {
      await kernel.door.evolve({ target_module: 'feed', driver, content: FEED });
    });
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
      assert.ok(most > 3 * MIB && most < 5 * MIB, `${most} bytes waited`);
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
  });
