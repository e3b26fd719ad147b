/** What tests of modules' WebSockets share: a module that echoes, a client that has heard an echo, and raw handshakes. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { WebSocket } from 'ws';
import { until } from './mesh.ts';

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

/**
 * Speaks `chat.v2`, refuses at /teapot, closes as it is told (`close 4000 why`), says anything else again; tells at GET how
 * its sockets were closed.
 */
export const SPEAKER = `
  const closes = [];
  export default { fetch(request) {
    if (request.headers.get('upgrade') !== 'websocket') return Response.json(closes);
    if (request.url.endsWith('/teapot')) return new Response('no', { status: 418 });
    const offered = (request.headers.get('sec-websocket-protocol') ?? '').split(',').map((name) => name.trim());
    const headers = offered.includes('chat.v2') ? { 'sec-websocket-protocol': 'chat.v2' } : {};
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.addEventListener('message', ({ data }) => {
      const [verb, code, ...reason] = data.split(' ');
      if (verb !== 'close') return server.send(data);
      try { server.close(Number(code), reason.join(' ')); } catch (error) { server.send(error.name); }
    });
    server.addEventListener('close', ({ code, reason, wasClean }) => closes.push([code, reason, wasClean]));
    return new Response(null, { status: 101, webSocket: client, headers });
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

/** How a socket was closed. */
async function closeOf(socket: WebSocket): Promise<[code: number, reason: string]> {
  const [code, reason] = await once(socket, 'close');
  return [code, String(reason)];
}

/** That a SPEAKER's sockets have its subprotocol, and that either side learns how the other closed. */
export async function assertSpeaks(place: SocketPlace, path: string): Promise<void> {
  const open = async (protocols: string[]) => {
    const socket = new WebSocket(`${place.url.replace('http', 'ws')}/api/plugins/${path}`, protocols, {
      headers: { authorization: `Bearer ${place.token}` },
    });
    await once(socket, 'open');
    return socket;
  };
  const first = await open(['chat.v1', 'chat.v2']);
  assert.equal(first.protocol, 'chat.v2');
  for (const code of ['1005', '2000', '70000', `4000 ${'x'.repeat(124)}`])
    assert.equal(await reply(first, `close ${code}`), 'TypeError', code);
  const closed = closeOf(first);
  first.send('close 4321 it is énough');
  assert.deepEqual(await closed, [4321, 'it is énough']);
  // What the module does not speak is not said to be spoken.
  await assert.rejects(open(['chat.v1']), /sent no subprotocol/);
  (await open(['chat.v2'])).close(4002, 'bored');
  (await open(['chat.v2'])).terminate();
  const told = async () => {
    const headers = { authorization: `Bearer ${place.token}` };
    return (await (await fetch(`${place.url}/api/plugins/${path}`, { headers })).json()) as unknown[];
  };
  const wanted = [
    [4002, 'bored', true],
    [1006, '', false],
  ].map((one) => JSON.stringify(one));
  await until('the module has heard how they closed', async () => {
    const said = (await told()).map((one) => JSON.stringify(one));
    return wanted.every((one) => said.includes(one));
  });
}

/** That a page, whose WebSocket sends no header, is let in by its first message, and what it reads where it is not. */
export async function assertTakesPages(place: SocketPlace, path: string): Promise<void> {
  const begin = async (token: unknown, { more = '', protocols = [] as string[] } = {}) => {
    const socket = new WebSocket(`${place.url.replace('http', 'ws')}/api/plugins/${path}${more}`, protocols, {
      headers: { origin: place.url },
    });
    await once(socket, 'open');
    const heard = once(socket, 'message');
    const closed = closeOf(socket);
    socket.send(typeof token === 'string' ? JSON.stringify({ token }) : (token as Uint8Array));
    return { socket, said: JSON.parse(String((await heard)[0])), closed };
  };
  const { socket, said, closed } = await begin(place.token, { protocols: ['chat.v2', 'chat.v1'] });
  assert.equal(said.status, 'success');
  assert.match(said['x-hauki-digest'], /^[0-9a-f]{64}$/);
  assert.equal(socket.protocol, 'chat.v2');
  assert.equal(await reply(socket, 'hello'), 'hello');
  socket.send('close 4001 enough');
  assert.deepEqual(await closed, [4001, 'enough']);

  // What is sent behind the token waits for the module.
  const eager = new WebSocket(`${place.url.replace('http', 'ws')}/api/plugins/${path}`);
  await once(eager, 'open');
  const all: string[] = [];
  eager.on('message', (data) => all.push(String(data)));
  for (const text of [JSON.stringify({ token: place.token }), 'a', 'b', 'c']) eager.send(text);
  await until('all of it has come back', () => all.length === 4);
  assert.deepEqual(all.slice(1), ['a', 'b', 'c']);
  eager.close();

  for (const [token, options, code, name] of [
    ['wrong', {}, 4401, 'Unauthorised'],
    [new Uint8Array([1]), {}, 4400, 'ProtocolViolation'],
    [place.token, { more: 'teapot' }, 4418, 'RemoteError'],
    [place.token, { protocols: ['chat.v1', 'chat.v2'] }, 4400, 'BadInput'],
  ] as const) {
    const refused = await begin(token, options as { more?: string; protocols?: string[] });
    assert.deepEqual([refused.said.status, refused.said.error.data?.name], ['error', name]);
    assert.equal((await refused.closed)[0], code);
  }
  assert.equal(await refusal(`${place.url}/api/plugins/${path}`, { origin: 'http://elsewhere.example' }), 403);
}
