/** What the tests of Mesh-RPC share: joined sockets, a proxy that tears bytes apart, endings that can be waited for. */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface SocketPair {
  a: Socket;
  b: Socket;
  end(): Promise<void>;
}

const listen = async (server: Server): Promise<number> => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as { port: number }).port;
};

/** Two joined ends of a real TCP connection. */
export async function tcpPair(): Promise<SocketPair> {
  const server = createServer();
  const port = await listen(server);
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const a = connect(port, '127.0.0.1');
  const [b] = await accepted;
  await once(a, 'connect').catch(() => {});
  a.setNoDelay(true);
  b.setNoDelay(true);
  return {
    a,
    b,
    async end() {
      a.destroy();
      b.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Two joined ends with a proxy between them, which passes bytes on in pieces of the sizes that `piece` gives. */
export async function tornPair(piece: () => number): Promise<SocketPair> {
  const inner: Socket[] = [];
  const back = createServer();
  const back_port = await listen(back);
  const accepted = once(back, 'connection') as Promise<[Socket]>;
  const front = createServer((near) => {
    const far = connect(back_port, '127.0.0.1');
    inner.push(near, far);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      to.setNoDelay(true);
      let last = Promise.resolve();
      from.on('data', (chunk: Buffer) => {
        last = last.then(async () => {
          for (let at = 0; at < chunk.length; ) {
            const size = Math.max(1, piece());
            to.write(chunk.subarray(at, at + size));
            at += size;
            // A turn of the loop between the pieces, so that they arrive apart.
            await new Promise((resolve) => setImmediate(resolve));
          }
        });
      });
      from.on('end', () => void last.then(() => to.end()));
      from.on('error', () => to.destroy());
    }
  });
  const port = await listen(front);
  const a = connect(port, '127.0.0.1');
  const [b] = await accepted;
  return {
    a,
    b,
    async end() {
      for (const socket of [a, b, ...inner]) socket.destroy();
      await Promise.all([front, back].map((server) => new Promise((resolve) => server.close(resolve))));
    },
  };
}

/** A listening server on a free port of loopback. */
export async function listening(
  serve: (socket: Socket) => void,
): Promise<{ port: number; server: Server; end(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    serve(socket);
  });
  const port = await listen(server);
  return {
    port,
    server,
    async end() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Waits until `holds` is true; fails loudly after a generous time. */
export async function until(holds: () => boolean, what: string, timeout_ms = 15_000): Promise<void> {
  const last = Date.now() + timeout_ms;
  while (!holds()) {
    if (Date.now() > last) throw new Error(`waited ${timeout_ms} ms in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Enough turns of the event loop for anything that is under way on loopback to show itself. */
export async function settle(turns = 20): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
}
