/** What the servers of the core and of kernels refuse and bound before any of their own rules. */
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { createHttpServer, readDirectly, writeAnswer } from '../src/node.ts';
import { SERVER_LIMITS } from '../src/transports/limits.ts';
import { whenFull } from '../src/transports/room.ts';

const connections = (server: Server) => promisify(server.getConnections.bind(server))();

/** More than the system's buffers of both sides take. */
const LARGE = 32 * 1024 * 1024;

describe('an HTTP server', () => {
  const servers: Server[] = [];
  const asked: Socket[] = [];
  after(() => {
    for (const socket of asked) socket.destroy();
    for (const server of servers) {
      server.close();
      server.closeAllConnections();
    }
  });
  const upgrades: string[] = [];
  /** Gives the port. */
  const start = async (serve: (request: IncomingMessage, response: ServerResponse) => void, stalled_ms?: number) => {
    const server = createHttpServer(
      { keepAliveTimeout: 60_000, ...(stalled_ms ? { stalled_ms } : {}) },
      {
        serve,
        upgrade(request, socket) {
          upgrades.push(request.headers.upgrade!);
          socket.end('HTTP/1.1 101 Switching Protocols\r\n\r\n');
        },
      },
    );
    servers.push(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { server, port: (server.address() as AddressInfo).port };
  };
  const ask = (port: number, text: string): Socket => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(text);
    asked.push(socket);
    return socket;
  };
  const allOf = async (socket: Socket): Promise<string> => {
    let text = '';
    for await (const chunk of socket.setEncoding('latin1')) text += chunk;
    return text;
  };
  const upgrade = (to: string) => `GET /u HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: ${to}\r\n\r\n`;

  it('gives up an answer that nobody reads, and lets one go on that has nothing to say', async () => {
    const quiet = Promise.withResolvers<ServerResponse>();
    const { port } = await start((request, response) => {
      if (request.url === '/quiet') {
        response.write('first');
        return quiet.resolve(response);
      }
      response.once('close', () => closed.resolve(response.writableFinished));
      void writeAnswer(response, [200, [], new Uint8Array(LARGE)]);
    }, 50);
    const closed = Promise.withResolvers<boolean>();
    const reader = ask(port, 'GET /quiet HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n');
    const text = allOf(reader);
    const response = await quiet.promise;
    const deaf = ask(port, 'GET / HTTP/1.1\r\nhost: a\r\n\r\n');
    deaf.pause();
    assert.equal(await closed.promise, false);
    // It has been silent for longer than the other was.
    response.end('last');
    assert.match(await text, /first[\s\S]*last/);
    deaf.destroy();
  });

  it('gives up a stream that nobody reads where it is read directly too', async () => {
    const { server, port } = await start(() => {});
    server.keepAliveTimeout = 50;
    const left = Promise.withResolvers<void>();
    const end = readDirectly(server, (_, by) => {
      const endless = (async function* () {
        try {
          for (;;) yield new Uint8Array(1024 * 1024);
        } finally {
          left.resolve();
        }
      })();
      void writeAnswer(by, [200, [], endless]);
      return true;
    });
    const deaf = ask(port, 'GET / HTTP/1.1\r\nhost: a\r\n\r\n');
    deaf.pause();
    await left.promise;
    deaf.destroy();
    end();
  });

  it('ignores the offer of a protocol that it does not know', async () => {
    const { port } = await start((_, response) => response.end('as usual'));
    const offer = 'connection: close, Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n';
    assert.match(await allOf(ask(port, `GET / HTTP/1.1\r\nhost: a\r\n${offer}\r\n`)), /^HTTP\/1\.1 200[\s\S]*as usual/);
    assert.match(await allOf(ask(port, upgrade('hauki'))), /^HTTP\/1\.1 101/);
    assert.deepEqual(upgrades.splice(0), ['hauki']);
  });

  it('refuses an upgrade behind a request that is not answered yet, after its answer', async () => {
    const begun = Promise.withResolvers<ServerResponse>();
    const { server, port } = await start((_, response) => begun.resolve(response));
    const socket = ask(port, 'POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx');
    const response = await begun.promise;
    const asked = once(server, 'upgrade');
    socket.write(upgrade('websocket'));
    await asked;
    response.end('the answer');
    assert.match(await allOf(socket), /^HTTP\/1\.1 200[\s\S]*the answer[\s\S]*HTTP\/1\.1 400[\s\S]*not answered yet/);
    assert.deepEqual(upgrades, []);
  });

  it('refuses a coding of a body that it does not know', async () => {
    const { port } = await start((_, response) => response.end());
    const post = (coding: string) =>
      allOf(
        ask(port, `POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: ${coding}\r\n\r\n0\r\n\r\n`),
      );
    assert.match(await post('gzip, chunked'), /^HTTP\/1\.1 501[\s\S]*only chunked/);
    assert.match(await post('chunked'), /^HTTP\/1\.1 200/);
  });

  it('leaves some of the process’s descriptors free', async () => {
    const { server } = await start(() => {});
    assert.ok(server.maxConnections > 0);
  });

  it('says what is wrong with what is no request, but not into an answer that has begun', async () => {
    const { port } = await start((_request, response) => void response.write('begun'));
    assert.match(await allOf(ask(port, 'nonsense\r\n\r\n')), /^HTTP\/1\.1 400 .*it is no HTTP/s);
    const long = `GET / HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`;
    assert.match(await allOf(ask(port, long)), /^HTTP\/1\.1 431 .*have more than 16384 bytes/s);
    const socket = ask(port, 'GET / HTTP/1.1\r\nhost: a\r\n\r\n');
    let text = '';
    for await (const piece of socket.setEncoding('latin1')) {
      if (text === '') socket.write('nonsense\r\n\r\n');
      text += piece;
    }
    assert.match(text, /^HTTP\/1\.1 200 .*begun\r\n$/s);
  });

  it('ends the body of an answer whose headers cannot be sent', async () => {
    let ended = 0;
    const body = {
      [Symbol.asyncIterator]: () => body,
      next: () => assert.fail('it is not read'),
      return: () => ended++,
    };
    const failed = Promise.withResolvers<void>();
    const { port } = await start(async (_request, response) => {
      await writeAnswer(response, [200, ['x', 'a\nb'], body as never])?.catch(() => failed.resolve());
      response.end();
    });
    ask(port, 'GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n');
    await failed.promise;
    assert.equal(ended, 1);
  });

  it('that is full takes no upgraded connection for one that asks for nothing', async () => {
    const server = createHttpServer(
      {},
      { serve() {}, upgrade: (_, socket) => void socket.write('HTTP/1.1 101 OK\r\n\r\n') },
    );
    servers.push(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const upgraded = ask(port, 'GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
    await once(upgraded, 'data');
    const idle = ask(port, 'GET / HTTP/1.1\r\n');
    while ((await connections(server)) < 2) await new Promise((resolve) => setTimeout(resolve, 1));
    server.maxConnections = 2;
    const refused = ask(port, '');
    // As an error, where the server had not read all of it.
    await new Promise((resolve) => idle.once('close', resolve));
    assert.equal(upgraded.destroyed, false);
    for (const socket of [upgraded, refused]) socket.destroy();
  });

  it('that is full lets go of a part of those who ask for nothing, the oldest first, and not of more for each who comes', (t) => {
    let now = 1_000;
    t.mock.method(performance, 'now', () => now);
    const server = Object.assign(new EventEmitter(), { maxConnections: 32 });
    const idle = Array.from({ length: 8 }, (_, i) => i);
    whenFull(server as unknown as Server, () =>
      idle.map((i) => ({ destroy: () => idle.splice(idle.indexOf(i), 1) }) as unknown as Socket),
    );
    for (let times = 0; times < 100; times++) server.emit('drop');
    assert.deepEqual(idle, [2, 3, 4, 5, 6, 7]);
    now += SERVER_LIMITS.room_every_ms;
    server.emit('drop');
    assert.deepEqual(idle, [4, 5, 6, 7]);
  });

  for (const directly of [false, true])
    it(`gives whoever asks the place of one who asks for nothing${directly ? ', where it is read directly too' : ''}`, async () => {
      const held = Promise.withResolvers<() => void>();
      const serve = ({ url }: { url?: string | undefined }, answer: () => void) =>
        url === '/held' ? held.resolve(answer) : answer();
      const { server, port } = await start((request, response) => serve(request, () => void response.end('served')));
      const end = readDirectly(server, (request, by) => {
        if (directly) serve(request, () => void by.answer(200, [], [], 'served'));
        return directly;
      });
      server.maxConnections = 8;
      const get = (path: string) => ask(port, `GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`);
      const first = get('/held');
      const answer = await held.promise;
      const idle = Array.from({ length: 7 }, (_, i) => ask(port, ['', 'GET / HTTP/1.1\r\nx: ', 'POST / HT'][i % 3]!));
      await Promise.all(idle.map((socket) => once(socket, 'connect')));
      const served = async (socket: Socket) => {
        const [text] = await once(socket.setEncoding('latin1'), 'data');
        socket.destroy();
        return text.endsWith('served');
      };
      // The one that finds no place makes room for the next.
      const refused = get('/');
      await once(idle[0]!, 'close');
      refused.destroy();
      assert.equal(await served(get('/')), true);
      answer();
      assert.equal(await served(first), true);
      for (const socket of idle) socket.destroy();
      end();
    });
});
