/** What tests of modules' WebSockets share: a module that echoes, a client that has heard an echo, and raw handshakes. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { WebSocket } from 'ws';

/** Echoes text behind `echo `, bytes as they are; ends at `bye`; tells at GET how many it has, and how many it had. */
export const ECHO = `
  let [open, ever] = [0, 0];
  export default { fetch(request) {
    if (request.headers.get('upgrade') !== 'websocket')
      return Response.json({ open, ever }, { status: request.method === 'GET' ? 426 : 200 });
    const [client, server] = Object.values(new WebSocketPair());
    open++;
    ever++;
    server.accept();
    server.addEventListener('message', ({ data }) => {
      if (data === 'bye') { open--; return server.close(); }
      server.send(typeof data === 'string' ? 'echo ' + data : data);
    });
    server.addEventListener('close', () => open--);
    return new Response(null, { status: 101, webSocket: client });
  } };`;

export interface SocketPlace {
  /** http://host:port */
  url: string;
  token: string;
}

/** A WebSocket to a path below /api/plugins/ that is open. Its other headers can be given. */
export async function openSocket(
  { url, token }: SocketPlace,
  path: string,
  headers: Record<string, string> = {},
): Promise<WebSocket> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/api/plugins/${path}`, {
    headers: { authorization: `Bearer ${token}`, ...headers },
  });
  await once(socket, 'open');
  return socket;
}

/** The status with which a WebSocket is refused. */
export async function refusal(url: string, headers: Record<string, string> = {}): Promise<number> {
  const socket = new WebSocket(url.replace('http', 'ws'), { headers });
  const [, { statusCode }] = await once(socket, 'unexpected-response');
  socket.on('error', () => {}).terminate();
  return statusCode;
}

/** What comes back to a message. */
export async function reply(socket: WebSocket, message: string | Uint8Array): Promise<string | Buffer> {
  const heard = once(socket, 'message');
  socket.send(message);
  const [data, is_binary] = await heard;
  return is_binary ? data : String(data);
}

/** An echo of text, one of bytes, and the module's close. */
export async function assertEchoes(socket: WebSocket): Promise<void> {
  assert.equal(await reply(socket, 'a'), 'echo a');
  assert.deepEqual([...((await reply(socket, new Uint8Array([1, 2, 3]))) as Buffer)], [1, 2, 3]);
  const closed = once(socket, 'close');
  socket.send('bye');
  assert.equal((await closed)[0], 1000);
}

/** A raw connection that has sent a handshake, with headers as they are given; what comes is gathered. */
export async function rawHandshake(
  { url, token }: SocketPlace,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<{ socket: Socket; heard(): Buffer; closed: Promise<unknown> }> {
  const { hostname, port, host } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  let heard = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    heard = Buffer.concat([heard, chunk]);
  });
  await once(socket, 'connect');
  const all: Record<string, string> = {
    host,
    authorization: `Bearer ${token}`,
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'sec-websocket-version': '13',
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`${method} /api/plugins/${path} HTTP/1.1\r\n${lines.join('')}\r\n`);
  return { socket, heard: () => heard, closed };
}
