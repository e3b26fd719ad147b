/** WebSockets as calls, by themselves: what a client does that is not there any more, or never was. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import type { Answer, Body } from '@hauki/protocol';
import { answerUpgrade, callWebSocket, type WebSocketCall, writeAnswer } from '@hauki/rpc/node';
import { WebSocket } from 'ws';

type Call = (messages: () => Body) => Promise<Answer>;

/** A server of WebSockets on a free port; what each call came to is gathered. */
async function serving(call: Call, options: WebSocketCall = {}) {
  const ends: Promise<unknown>[] = [];
  const server = createServer();
  const cut = Promise.withResolvers<void>();
  server.on('connection', (socket) => void cut.promise.then(() => socket.destroy()));
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => {});
    ends.push(
      callWebSocket(request, socket, head, call, options).then(async (refused) => {
        if (refused) await writeAnswer(answerUpgrade(request, socket), refused);
        return refused?.[0] ?? 'ended';
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return {
    port,
    url: `ws://127.0.0.1:${port}`,
    ends,
    /** Breaks all connections off. */
    cut: cut.resolve,
    async [Symbol.asyncDispose]() {
      await Promise.allSettled(ends);
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const echo: Call = async (messages) => [101, [], messages()];

/** A raw client that has sent a handshake and never answers anything. */
async function mute(port: number) {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  const closed = once(socket, 'close');
  await once(socket, 'connect');
  socket.write(
    'GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  );
  socket.resume();
  return { socket, closed };
}

describe('a WebSocket served as a call', () => {
  it('asks its client now and then, and is over when that does not answer', async () => {
    await using served = await serving(echo, { ping_ms: 100 });
    const { closed } = await mute(served.port);
    await closed;
    assert.deepEqual(await Promise.all(served.ends), ['ended']);
  });

  it('is kept by a client that answers', async () => {
    await using served = await serving(echo, { ping_ms: 3_000 });
    const client = new WebSocket(served.url);
    await once(client, 'open');
    await once(client, 'ping');
    client.send('there');
    assert.equal(String((await once(client, 'message'))[0]), 'there');
    client.close(1000);
    await once(client, 'close');
  });

  it('leaves the answer’s stream where the connection broke off before the handshake is answered', async () => {
    const left = Promise.withResolvers<void>();
    const gone = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    const answer: AsyncIterableIterator<Uint8Array> = {
      next: () => new Promise(() => {}),
      async return() {
        left.resolve();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]: () => answer,
    };
    await using served = await serving(async (messages) => {
      messages();
      asked.resolve();
      await gone.promise;
      return [101, [], answer];
    });
    const { closed } = await mute(served.port);
    await asked.promise;
    served.cut();
    await closed;
    gone.resolve();
    await left.promise;
  });

  it('gives the messages to the call that asked for them last', async () => {
    await using served = await serving(async (messages) => {
      const first = messages() as AsyncIterable<Uint8Array>;
      void (async () => {
        for await (const message of first) assert.fail(`the first has heard ${message}`);
      })();
      return [101, [], messages()];
    });
    const client = new WebSocket(served.url);
    await once(client, 'open');
    client.send('hello');
    assert.equal(String((await once(client, 'message'))[0]), 'hello');
    client.close();
    await once(client, 'close');
  });

  it('passes on those headers alone that are the kernel’s, and none that would begin another line', async () => {
    const headers = ['x-hauki-version', '3', 'set-cookie', 'a=b', 'x-hauki-digest', 'a\r\nx-evil: 1'];
    await using served = await serving(async (messages) => [101, headers, messages()]);
    const client = new WebSocket(served.url);
    client.on('open', () => client.close());
    const closed = once(client, 'close');
    const [answer] = await once(client, 'upgrade');
    assert.equal(answer.headers['x-hauki-version'], '3');
    for (const name of ['set-cookie', 'x-hauki-digest', 'x-evil']) assert.equal(answer.headers[name], undefined);
    await closed;
  });

  it('writes an answer that opens none as any other, however long it is, and ends the connection', async () => {
    const pieces = async function* () {
      for (let i = 0; i < 64; i++) yield new Uint8Array(64 * 1024);
    };
    await using served = await serving(async () => [418, ['content-type', 'text/plain'], pieces()]);
    const { socket, closed } = await mute(served.port);
    let bytes = 0;
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    await closed;
    assert.ok(bytes > 64 * 64 * 1024, `${bytes} bytes came`);
    assert.deepEqual(await Promise.all(served.ends), [418]);
  });

  it('tells its client when this side goes away', async () => {
    const ending = new AbortController();
    await using served = await serving(echo, { ending: ending.signal });
    const client = new WebSocket(served.url);
    await once(client, 'open');
    const closed = once(client, 'close');
    ending.abort();
    assert.equal((await closed)[0], 1001);
  });
});
