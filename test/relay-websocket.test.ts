/** Route B over WebSocket: the token in the first message, or in the header; then bytes that the core does not read. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { before, describe, it } from 'node:test';
import { LIMITS } from '@hauki/protocol';
import { WEBSOCKET_PROTOCOL, type WebSocketLike, webSocketTransport } from '@hauki/rpc';
import { CALCULATOR, until, useMesh } from './support/mesh.ts';

interface Client {
  socket: WebSocket;
  /** All messages so far: text, or bytes. */
  heard: (string | Uint8Array)[];
  closed: Promise<{ code: number; reason: string }>;
}

/** What stands in a frame of kind 1. */
const frame = (text: string): Uint8Array<ArrayBuffer> => {
  const body = new TextEncoder().encode(text);
  const made = new Uint8Array(5 + body.length);
  new DataView(made.buffer).setUint32(0, body.length + 1);
  made[4] = 1;
  made.set(body, 5);
  return made;
};
const HELLO = '{"jsonrpc":"2.0","id":1,"method":"rpc.hello"}';

describe('the relay over WebSocket', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  let worker: string;
  let path: string;
  before(async () => {
    ({ worker } = await used.mesh.details(used.mesh.clone({ source: CALCULATOR })));
    path = `/api/v2/ephemeral/${worker}`;
  });

  /** Node's WebSocket, which takes headers where a browser's does not. */
  const dial = (headers: Record<string, string> = {}, to = path): Client => {
    const url = new URL(to, used.local.url.replace('http', 'ws'));
    const socket = new WebSocket(url, { protocols: [WEBSOCKET_PROTOCOL], headers } as never);
    socket.binaryType = 'arraybuffer';
    const heard: Client['heard'] = [];
    const { promise, resolve } = Promise.withResolvers<{ code: number; reason: string }>();
    socket.onmessage = ({ data }) => void heard.push(typeof data === 'string' ? data : new Uint8Array(data));
    socket.onclose = ({ code, reason }) => resolve({ code, reason });
    socket.onerror = () => {};
    return { socket, heard, closed: promise };
  };
  const opened = async (client: Client) => {
    await until('the WebSocket is open', () => client.socket.readyState !== WebSocket.CONNECTING);
    assert.equal(client.socket.readyState, WebSocket.OPEN);
    return client;
  };
  const bearer = () => ({ authorization: `Bearer ${used.local.token}` });
  const first = () => JSON.stringify({ token: used.local.token });

  /** That the worker itself is at the other end: nobody else greets so. */
  const greeted = async ({ socket, heard }: Client) => {
    const transport = webSocketTransport(socket as unknown as WebSocketLike);
    const answers: any[] = [];
    transport.start({ message: (text) => void answers.push(JSON.parse(text)), close() {} });
    heard.length = 0;
    transport.send(HELLO);
    await until('the worker’s hello', () => answers.length > 0);
    assert.equal(typeof answers[0].result.nonce, 'string');
    transport.close();
  };

  it('reaches the worker with the token in the first message', async () => {
    const client = await opened(dial());
    assert.equal(client.socket.protocol, WEBSOCKET_PROTOCOL);
    assert.equal(client.socket.extensions, '', 'nothing is compressed');
    client.socket.send(first());
    await until('the answer', () => client.heard.length > 0);
    assert.deepEqual(client.heard, ['{"status":"success"}']);
    await greeted(client);
  });

  it('reaches the worker with the token in the header, and then says nothing of its own', async () => {
    const client = await opened(dial(bearer()));
    assert.deepEqual(client.heard, []);
    await greeted(client);
    assert.doesNotMatch(used.log(), /MaxListenersExceededWarning/);
  });

  it('does not care where messages begin and end', async () => {
    const client = await opened(dial(bearer()));
    const bytes = frame(HELLO);
    for (let at = 0; at < bytes.length; at += 3) client.socket.send(bytes.subarray(at, at + 3));
    await until('the worker’s hello', () => client.heard.length > 0);
    assert.match(new TextDecoder().decode(client.heard[0] as Uint8Array), /"nonce"/);
    client.socket.close();
  });

  const refusals: [what: string, message: () => string | Uint8Array<ArrayBuffer>, code: number, name: string][] = [
    ['a wrong token', () => '{"token":"hauki_wrong"}', 4401, 'Unauthorised'],
    ['a node’s token', () => JSON.stringify({ token: nodeToken() }), 4403, 'Forbidden'],
    ['no token', () => '{}', 4401, 'Unauthorised'],
    ['null', () => 'null', 4401, 'Unauthorised'],
    ['no JSON', () => 'let me in', 4401, 'Unauthorised'],
    ['bytes', () => frame(HELLO), 4400, 'ProtocolViolation'],
    ['more than a first message may have', () => 'x'.repeat(LIMITS.handshake_bytes), 4413, 'TooLarge'],
  ];
  const nodeToken = () => readFileSync(`${used.local.data_dir}/core/node.token`, 'utf8').trim();

  for (const [what, message, code, name] of refusals)
    it(`refuses ${what} as first message, with a typed error and a code`, async () => {
      const client = await opened(dial());
      client.socket.send(message());
      assert.equal((await client.closed).code, code);
      assert.equal(client.heard.length, 1);
      const { status, error } = JSON.parse(client.heard[0] as string);
      assert.equal(status, 'error');
      assert.equal(error.data.name, name);
      assert.ok(!used.log().includes(used.local.token));
    });

  it('says that a worker is unknown only to those who may know', async () => {
    const stranger = await opened(dial({}, '/api/v2/ephemeral/w-nobody'));
    stranger.socket.send('{"token":"wrong"}');
    assert.equal((await stranger.closed).code, 4401);
    const friend = await opened(dial({}, '/api/v2/ephemeral/w-nobody'));
    friend.socket.send(first());
    assert.deepEqual(await friend.closed, { code: 4404, reason: 'WorkerUnknown' });
  });

  it('keeps for the worker what comes before it has answered the first message', async () => {
    const client = await opened(dial());
    client.socket.send(first());
    client.socket.send(frame(HELLO));
    await until('both answers', () => client.heard.length === 2);
    assert.equal(client.heard[0], '{"status":"success"}');
    assert.match(new TextDecoder().decode(client.heard[1] as Uint8Array), /"nonce"/);
    client.socket.close();
  });

  it('takes no text afterwards', async () => {
    const client = await opened(dial(bearer()));
    client.socket.send('hello');
    assert.equal((await client.closed).code, 4400);
  });

  /** The status with which an upgrade is answered in HTTP, by a client that may say anything. */
  const upgradeStatus = (headers: Record<string, string>, to = path) =>
    new Promise<number>((resolve, reject) => {
      const asked = request(new URL(to, used.local.url), {
        agent: false,
        headers: {
          connection: 'Upgrade',
          upgrade: 'websocket',
          'sec-websocket-version': '13',
          'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
          'sec-websocket-protocol': WEBSOCKET_PROTOCOL,
          ...bearer(),
          ...headers,
        },
      });
      asked.once('upgrade', (response, socket) => {
        socket.destroy();
        resolve(response.statusCode!);
      });
      asked.once('response', (response) => {
        response.resume();
        resolve(response.statusCode!);
      });
      asked.once('error', reject);
      asked.end();
    });

  const answers: [what: string, status: number, headers: Record<string, string>, to?: string][] = [
    ['a good request', 101, {}],
    ['a page of the core’s own host', 101, { origin: 'http://localhost:1234' }],
    ['a wrong token in the header', 401, { authorization: 'Bearer wrong' }],
    ['a page of another host', 403, { origin: 'https://elsewhere.example' }],
    ['a page of no host', 403, { origin: 'null' }],
    ['another name for the core', 403, { host: 'elsewhere.example' }],
    ['another subprotocol', 400, { 'sec-websocket-protocol': 'another.v1' }],
    ['a malformed subprotocol', 400, { 'sec-websocket-protocol': `${WEBSOCKET_PROTOCOL}, a b` }],
    ['a malformed key', 400, { 'sec-websocket-key': 'short' }],
    ['another version', 400, { 'sec-websocket-version': '7' }],
    ['another path', 400, {}, '/api/v2/node/link'],
    ['an unknown worker', 404, {}, '/api/v2/ephemeral/w-nobody'],
  ];
  for (const [what, status, headers, to] of answers)
    it(`answers ${what} with HTTP ${status}`, async () => assert.equal(await upgradeStatus(headers, to), status));

  it('lets a bounded number wait without a token; the oldest gives way', async () => {
    const clients: Client[] = [];
    for (let i = 0; i < LIMITS.strangers + 1; i++) clients.push(await opened(dial()));
    assert.equal((await clients[0]!.closed).code, 1013);
    const last = clients.at(-1)!;
    last.socket.send(first());
    await until('the answer', () => last.heard.length > 0);
    assert.equal(last.heard[0], '{"status":"success"}');
    for (const { socket } of clients) socket.close();
  });

  it('counts the bytes as the relay’s, and ends the connection when the worker ends', async () => {
    const before_it = (await used.mesh.registry()).relay_bytes;
    const ghost = used.mesh.clone({ source: CALCULATOR });
    const { worker: short } = await used.mesh.details(ghost);
    const client = await opened(dial(bearer(), `/api/v2/ephemeral/${short}`));
    client.socket.send(frame(HELLO));
    await until('the worker’s hello', () => client.heard.length > 0);
    assert.ok((await used.mesh.registry()).relay_bytes > before_it);
    await used.mesh.destruct(short);
    const { code } = await client.closed;
    assert.ok(code === 1000 || code === 1006, String(code));
  });
});

describe('pages that ask the core', () => {
  const used = useMesh({ nodes: [] });
  const ask = (method: string, headers: Record<string, string>, path = '/api/v2/service_registry') =>
    fetch(new URL(path, used.local.url), { method, headers });
  const preflight = (origin: string) =>
    ask('OPTIONS', {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization',
    });

  it('on loopback, at any port, may send a token and read the answer, errors too', async () => {
    const origin = 'http://localhost:5173';
    const asked = await preflight(origin);
    assert.equal(asked.status, 204);
    assert.equal(asked.headers.get('access-control-allow-origin'), origin);
    assert.match(asked.headers.get('access-control-allow-headers')!, /authorization/);
    assert.equal(asked.headers.get('access-control-allow-credentials'), null);
    for (const [headers, status] of [
      [{ authorization: `Bearer ${used.local.token}` }, 200],
      [{}, 401],
    ] as const) {
      const answer = await ask('GET', { origin, ...headers } as Record<string, string>);
      assert.equal(answer.status, status);
      assert.equal(answer.headers.get('access-control-allow-origin'), origin);
      assert.match(answer.headers.get('vary')!, /origin/i);
    }
  });

  it('of other hosts, or of none, are refused and told nothing', async () => {
    for (const origin of ['https://elsewhere.example', 'http://localhost.elsewhere.example', 'null', 'file://']) {
      for (const answer of [
        await preflight(origin),
        await ask('GET', { origin, authorization: `Bearer ${used.local.token}` }),
      ]) {
        assert.equal(answer.status, 403, origin);
        assert.equal(answer.headers.get('access-control-allow-origin'), null);
      }
    }
  });

  it('leave programs alone, which send no origin', async () => {
    const answer = await ask('GET', {}, '/health');
    assert.equal(answer.headers.get('access-control-allow-origin'), null);
  });
});
