/** Frames over WebSockets against the suite of all transports, over every client there is in Node, whole and cut up. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { after, before, describe, it } from 'node:test';
import { LIMITS } from '@hauki/protocol';
import fc from 'fast-check';
import { WebSocket as WsSocket } from 'ws';
import { FRAMES_AT_ONCE } from '../src/frames.ts';
import type { FrameTransport } from '../src/transport.ts';
import { streamTransport } from '../src/transports/stream.ts';
import { WEBSOCKET_PROTOCOL, type WebSocketLike, webSocketTransport } from '../src/transports/websocket.ts';
import { acceptWebSocket, type ServedWebSocket, serveWebSocket } from '../src/transports/websocket-server.ts';
import { settle, until } from './support.ts';
import { type TransportPair, transportConformance } from './transport-conformance.ts';

/** Node's own, as browsers have it, and that of `ws`. */
const CLIENTS: Record<string, (url: string) => WebSocketLike> = {
  'the platform’s WebSocket': (url) => new WebSocket(url, WEBSOCKET_PROTOCOL) as unknown as WebSocketLike,
  ws: (url) => new WsSocket(url, WEBSOCKET_PROTOCOL, { perMessageDeflate: false }) as unknown as WebSocketLike,
};

const opened = (socket: WebSocketLike) =>
  new Promise<void>((resolve, reject) => {
    const target = socket as unknown as WebSocket;
    target.addEventListener('open', () => resolve());
    target.addEventListener('error', () => reject(new Error('the WebSocket did not open')));
  });

interface Served {
  socket: ServedWebSocket;
  raw: Socket;
}

/** Servers of this file; each connection is given to whoever waits for it. */
let url: string;
let next: (served: Served) => void;
const server = createServer();
server.on('upgrade', (request, raw, head) => {
  raw.on('error', () => {});
  acceptWebSocket(request, raw, head).then(
    (socket) => next({ socket, raw: raw as Socket }),
    () => raw.destroy(),
  );
});
before(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `ws://127.0.0.1:${(server.address() as { port: number }).port}/`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

async function joined(make: (url: string) => WebSocketLike): Promise<{ client: WebSocketLike } & Served> {
  const arrived = new Promise<Served>((resolve) => {
    next = resolve;
  });
  const client = make(url);
  const [served] = await Promise.all([arrived, opened(client)]);
  return { client, ...served };
}

for (const [name, make] of Object.entries(CLIENTS)) {
  transportConformance(
    `frames over WebSocket, ${name}`,
    async (): Promise<TransportPair> => {
      const { client, socket, raw } = await joined(make);
      return {
        a: webSocketTransport(client),
        b: socket.transport(),
        cut: () => raw.destroy(),
        end: async () => void raw.destroy(),
      };
    },
    { runs: 25 },
  );
}

let seed = 7;
const size = () => {
  seed = (seed * 1103515245 + 12345) % 0x80000000;
  const draw = seed / 0x80000000;
  return draw < 0.5 ? 1 + Math.floor(draw * 14) : Math.floor(draw * 60_000);
};

/** A WebSocket whose messages are cut and joined anew on their way out, as a relay may do. */
function torn(socket: WebSocketLike): WebSocketLike {
  let rest: Uint8Array[] = [];
  let scheduled = false;
  const flush = () => {
    scheduled = false;
    const bytes = Buffer.concat(rest);
    rest = [];
    for (let at = 0; at < bytes.length; ) {
      const end = at + Math.max(1, size());
      socket.send(new Uint8Array(bytes.subarray(at, end)));
      at = end;
    }
  };
  return {
    get readyState() {
      return socket.readyState;
    },
    get bufferedAmount() {
      return socket.bufferedAmount;
    },
    get binaryType() {
      return socket.binaryType;
    },
    set binaryType(type) {
      socket.binaryType = type;
    },
    addEventListener: socket.addEventListener.bind(socket) as WebSocketLike['addEventListener'],
    send(data) {
      rest.push(data.slice());
      if (scheduled) return;
      scheduled = true;
      queueMicrotask(flush);
    },
    close(code, reason) {
      flush();
      socket.close(code, reason);
    },
  };
}

transportConformance(
  'frames over WebSocket, cut and joined on the way',
  async () => {
    const { client, socket, raw } = await joined(CLIENTS['the platform’s WebSocket']!);
    return {
      a: webSocketTransport(torn(client)),
      b: socket.transport(),
      cut: () => raw.destroy(),
      end: async () => void raw.destroy(),
    };
  },
  { runs: 20 },
);

transportConformance(
  'frames over WebSocket, served as a stream of bytes',
  async () => {
    const { client, socket, raw } = await joined(CLIENTS['the platform’s WebSocket']!);
    return {
      a: webSocketTransport(client),
      b: streamTransport(socket.stream()),
      cut: () => raw.destroy(),
      end: async () => void raw.destroy(),
    };
  },
  { runs: 20 },
);

const listen = (transport: FrameTransport) => {
  const heard: [string, Uint8Array | undefined][] = [];
  const closes: string[] = [];
  transport.start({
    message: (text, bytes) => void heard.push([text, bytes?.slice()]),
    close: (reason) => void closes.push(reason),
  });
  return { heard, closes };
};

describe('frames over WebSockets', () => {
  const make = CLIENTS['the platform’s WebSocket']!;

  it('carry attachments of any sizes as they are', async () => {
    const { client, socket, raw } = await joined(make);
    const a = webSocketTransport(client);
    const b = socket.transport();
    const back = listen(a);
    // The other side sends everything back.
    b.start({ message: (text, bytes) => b.send(text, bytes && [bytes.slice()]), close() {} });
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: 'grapheme' }),
        fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 4 }),
        fc.constantFrom(0, 16 * 1024, LIMITS.websocket_bytes - 1, LIMITS.websocket_bytes + 1),
        async (text, parts, large) => {
          back.heard.length = 0;
          const bytes = [...parts, new Uint8Array(large).fill(parts.length)];
          a.send(text, bytes);
          await until(() => back.heard.length === 1, 'the echo');
          assert.equal(back.heard[0]![0], text);
          assert.ok(Buffer.concat(bytes).equals(back.heard[0]![1]!));
        },
      ),
      { numRuns: 30 },
    );
    assert.deepEqual(back.closes, []);
    raw.destroy();
  });

  it('leave in few messages for each turn, of bounded size', async () => {
    const sizes: number[] = [];
    const { client, socket, raw } = await joined((to) => {
      const made = make(to);
      const send = made.send.bind(made);
      made.send = (data) => {
        sizes.push(data.length);
        send(data);
      };
      return made;
    });
    const a = webSocketTransport(client);
    const { heard } = listen(socket.transport());
    for (let i = 0; i < 100; i++) a.send(`message ${i}`);
    await until(() => heard.length === 100, 'the messages');
    assert.equal(sizes.length, Math.ceil(100 / FRAMES_AT_ONCE));
    a.send('x'.repeat(LIMITS.message_bytes));
    await until(() => heard.length === 101, 'the large message');
    assert.ok(sizes.every((bytes) => bytes <= LIMITS.websocket_bytes));
    raw.destroy();
  });

  for (const [what, bad] of [
    ['text', 'hello'],
    ['bytes that are no frame', new Uint8Array([0xff, 0, 0, 0, 0, 0])],
    ['a frame of an unknown kind', new Uint8Array([0, 0, 0, 2, 9, 0])],
  ] as const)
    it(`end at ${what}, with a code and a reason`, async () => {
      const { client, socket } = await joined(make);
      const { closes } = listen(socket.transport());
      const closed = new Promise<{ code: number; reason: string }>((resolve) =>
        client.addEventListener('close', resolve),
      );
      client.send(bad as never);
      const { code, reason } = await closed;
      assert.equal(code, 4400);
      assert.match(reason, /frame|text/);
      assert.equal(closes.length, 1);
    });

  it('take no message beyond the bound of a WebSocket’s', async () => {
    const { client, socket } = await joined(make);
    const { closes } = listen(socket.transport());
    client.send(new Uint8Array(LIMITS.websocket_bytes + 1));
    await until(() => closes.length === 1, 'the end');
  });

  it('served as a stream, are not read faster than the stream is', async () => {
    const { client, socket, raw } = await joined(make);
    const stream = socket.stream();
    const chunk = new Uint8Array(256 * 1024);
    const sent = 64 * chunk.length;
    for (let i = 0; i < 64; i++) client.send(chunk);
    await settle(200);
    // What a socket, the parser and the stream hold; far below what was sent.
    assert.ok(stream.readableLength < 2 * LIMITS.websocket_bytes, `${stream.readableLength} bytes are held`);
    assert.ok(raw.bytesRead < sent / 2, `${raw.bytesRead} bytes were read`);
    let got = 0;
    for await (const part of stream) {
      got += (part as Buffer).length;
      if (got === sent) break;
    }
    assert.equal(got, sent);
  });
});

describe('a stream of bytes over a WebSocket', () => {
  const make = CLIENTS.ws!;

  it('takes no more than its client reads', async () => {
    const { client, socket, raw } = await joined(make);
    const reader = client as unknown as WsSocket;
    reader.pause();
    let made = 0;
    const total = 1024;
    const source = Readable.from(
      (function* () {
        for (; made < total; made++) yield Buffer.alloc(64 * 1024, made);
      })(),
      { highWaterMark: 1 },
    );
    const sent = pipeline(source, socket.stream());
    // It stands still once both sides' sockets are full.
    let before = -1;
    while (before !== made) {
      before = made;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.ok(made < total / 2, `${made} of ${total} pieces were taken`);
    let got = 0;
    reader.on('message', (data: Buffer) => {
      got += data.length;
    });
    reader.resume();
    await sent;
    await until(() => got === total * 64 * 1024, 'all of it');
    raw.destroy();
  });

  it('sends what was written before it ends, and ends for both', async () => {
    const { client, socket } = await joined(make);
    const chunks: Buffer[] = [];
    (client as unknown as WsSocket).on('message', (data: Buffer) => chunks.push(data));
    const closed = new Promise<{ code: number }>((resolve) => client.addEventListener('close', resolve));
    const stream = socket.stream();
    const large = Buffer.alloc(3 * LIMITS.websocket_bytes + 5, 7);
    stream.resume();
    stream.end(large);
    assert.equal((await closed).code, 1000);
    assert.ok(Buffer.concat(chunks).equals(large));
    assert.ok(chunks.every((chunk) => chunk.length <= LIMITS.websocket_bytes));
    await until(() => stream.closed, 'its own end');
  });

  it('ends when the client is gone before it began', async () => {
    const { client, socket, raw } = await joined(make);
    client.terminate!();
    await until(() => raw.destroyed, 'the end of the connection');
    await settle();
    const stream = socket.stream();
    stream.resume();
    await until(() => stream.closed, 'the end of the stream');
  });
});

describe('a server of WebSockets', () => {
  it('serves sessions’ transports to programs, and to pages of named origins only', async () => {
    const listener = await serveWebSocket({ origins: ['https://friend.example'] }, (transport) =>
      transport.start({ message: (text) => transport.send(text.toUpperCase()), close() {} }),
    );
    const dial = async (options: { origin?: string }, protocol = WEBSOCKET_PROTOCOL) => {
      const socket = new WsSocket(listener.url, protocol, options) as unknown as WebSocketLike;
      await opened(socket);
      return webSocketTransport(socket);
    };
    try {
      for (const options of [{}, { origin: 'https://friend.example' }]) {
        const transport = await dial(options);
        const { heard } = listen(transport);
        transport.send('hello');
        await until(() => heard.length === 1, 'the answer');
        assert.equal(heard[0]![0], 'HELLO');
        transport.close();
      }
      await assert.rejects(dial({ origin: 'https://stranger.example' }), /did not open/);
      await assert.rejects(dial({}, 'another.v1'), /did not open/);
      const plain = await fetch(listener.url.replace('ws:', 'http:'));
      assert.equal(plain.status, 426);
    } finally {
      await listener.close();
    }
  });
});
