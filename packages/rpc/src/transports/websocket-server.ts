/**
 * WebSockets as a server in Node has them: for sessions of its own, or, for a relay, as a plain stream of bytes.
 *
 * The protocol itself is `ws`'s part. It is imported with the first connection: who only dials out never loads it.
 * Compression is off, because it costs more than it saves and lets lengths tell secrets. Every message is bounded.
 */
import { createServer, type IncomingMessage } from 'node:http';
import { Duplex } from 'node:stream';
import { BadInput, ConnectionLost, DeadlineExceeded, ProtocolViolation, TooLarge } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { WebSocket } from 'ws';
import type { FrameTransport } from '../transport.ts';
import { bufferUtf8, streamTransport } from './stream.ts';
import { WEBSOCKET_PROTOCOL, type WebSocketLike, webSocketTransport } from './websocket.ts';

/** How long the other side may take to answer a close. */
const CLOSE_MS = 2_000;
/** Closes for what the other side sent. */
const VIOLATION = 4400;

/** The raw connection; of a socket it has these as well. */
type Raw = Duplex & { ref?(): unknown; unref?(): unknown };

export class ServedWebSocket {
  readonly #socket: WebSocket;
  readonly #raw: Raw;
  /** What follows a first text, from then on. */
  #rest: Duplex | undefined;

  constructor(socket: WebSocket, raw: Raw) {
    this.#socket = socket;
    this.#raw = raw;
    // Its close event follows, and says enough.
    socket.on('error', () => {});
    // Nothing is read before somebody listens.
    socket.pause();
  }

  /**
   * Waits for the first message, which must be text. Rejects as `firstText` of a socket does. What comes after it waits
   * in the stream, which holds no more than a stream does.
   */
  firstText(limit_bytes: number, timeout_ms: number): Promise<string> {
    return firstText(this.#socket, this.#raw, limit_bytes, timeout_ms, () => {
      this.#rest = byteStream(this.#socket);
    });
  }

  /** Sends a message of text. */
  say(text: string): void {
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.send(text);
  }

  /** Closes after what was sent; at once, when the other side does not answer. */
  close(code: number, reason: string): void {
    this.#socket.close(code, reason);
  }

  /** The payloads of binary messages as a stream of bytes, with backpressure both ways. Text ends it. */
  stream(): Duplex {
    return this.#rest ?? byteStream(this.#socket);
  }

  /** Our frames. */
  transport(limit?: () => number): FrameTransport {
    if (this.#rest) return streamTransport(this.#rest, limit);
    this.#socket.resume();
    const hold = (on: boolean) => void (on ? this.#raw.ref?.() : this.#raw.unref?.());
    return webSocketTransport(this.#socket as unknown as WebSocketLike, limit, hold, bufferUtf8);
  }
}

/**
 * The first message of a socket that stands still; it must be text. `then` runs before any other is told of. Rejects, and
 * leaves closing to the caller: TooLarge after `limit_bytes`, DeadlineExceeded, ProtocolViolation for bytes, ConnectionLost.
 */
export function firstText(
  socket: WebSocket,
  raw: Raw,
  limit_bytes: number,
  timeout_ms: number,
  then: () => void,
): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const what = 'The first message of the WebSocket';
  let got = 0;
  // Counted as it comes in, before it is parsed: no more is held for one who has not said who they are.
  const count = (chunk: Buffer) => {
    got += chunk.length;
    if (got > limit_bytes) reject(new TooLarge({ what, limit_bytes }));
  };
  const take = (data: Buffer, binary: boolean) => {
    then();
    if (binary) reject(new ProtocolViolation({ why: 'the first message must be text' }));
    else resolve(data.toString('utf8'));
  };
  const gone = () => reject(new ConnectionLost({ why: 'the WebSocket was closed before its first message' }));
  const timer = setTimeout(() => reject(new DeadlineExceeded({ what, timeout_ms, may_have_run: false })), timeout_ms);
  raw.prependListener('data', count);
  socket.once('message', take);
  socket.once('close', gone);
  socket.resume();
  return promise.finally(() => {
    clearTimeout(timer);
    raw.off('data', count);
    socket.off('message', take);
    socket.off('close', gone);
  });
}

/** What is written while a message leaves goes into the next; what is not read stops the socket. */
function byteStream(socket: WebSocket): Duplex {
  const write = (bytes: Buffer, done: (error?: Error | null) => void) => {
    let at = 0;
    for (; at + LIMITS.websocket_bytes < bytes.length; at += LIMITS.websocket_bytes)
      socket.send(bytes.subarray(at, at + LIMITS.websocket_bytes));
    socket.send(bytes.subarray(at), done);
  };
  const stream: Duplex = new Duplex({
    read() {
      if (socket.isPaused) socket.resume();
    },
    write: (chunk: Buffer, _encoding, done) => write(chunk, done),
    writev: (chunks, done) => write(Buffer.concat(chunks.map(({ chunk }) => chunk as Buffer)), done),
    final(done) {
      if (socket.readyState === socket.CLOSED) return done();
      socket.once('close', () => done());
      socket.close(1000);
    },
    destroy(error, done) {
      // A close under way may finish: it has its own time limit.
      if (socket.readyState !== socket.CLOSING) socket.terminate();
      done(error);
    },
  });
  socket.on('message', (data: Buffer, binary: boolean) => {
    if (stream.destroyed || stream.readableEnded) return;
    if (!binary) {
      socket.close(VIOLATION, 'text where only bytes are taken');
      stream.destroy();
    } else if (!stream.push(data)) socket.pause();
  });
  socket.once('close', () => {
    if (!stream.destroyed) stream.push(null);
  });
  if (socket.readyState === socket.CLOSED) stream.push(null);
  // Whoever joins it to another listens too; after that nobody has to.
  stream.on('error', () => {});
  // Nothing follows a close: who has ended reading has nobody to write to.
  stream.once('end', () => stream.end());
  return stream;
}

/**
 * Answers a request to upgrade to a WebSocket that carries our frames. Rejects with BadInput for one that is malformed
 * or means another protocol; answering that is the caller's part.
 */
export async function acceptWebSocket(request: IncomingMessage, raw: Raw, head: Buffer): Promise<ServedWebSocket> {
  const asked = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
  if (!asked.includes(WEBSOCKET_PROTOCOL))
    throw new BadInput({ what: 'the subprotocol', why: `only ${WEBSOCKET_PROTOCOL} is spoken here` });
  const { WebSocketServer } = await import('ws');
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: LIMITS.websocket_bytes,
    closeTimeout: CLOSE_MS,
    handleProtocols: () => WEBSOCKET_PROTOCOL,
  } as ConstructorParameters<typeof WebSocketServer>[0]);
  return new Promise((resolve, reject) => {
    server.on('wsClientError', (error) => reject(new BadInput({ what: 'the upgrade', why: error.message })));
    raw.once('close', () => reject(new ConnectionLost({ why: 'the connection ended before its upgrade' })));
    server.handleUpgrade(request, raw, head, (socket) => resolve(new ServedWebSocket(socket, raw)));
  });
}

export interface WebSocketOptions {
  /** 127.0.0.1 when left out. */
  host?: string;
  /** 0, or left out: a free one. */
  port?: number;
  /** Origins whose pages may connect, such as `https://example.org`. Others may not; programs send no origin. */
  origins?: readonly string[];
  /** How many bytes one incoming message of the connection may have, asked for each. */
  limit?: (request: IncomingMessage) => number;
}

export interface WebSocketListener {
  /** ws://host:port */
  url: string;
  close(): Promise<void>;
}

/** Listens for WebSockets and gives each as a transport. Rejects when it cannot listen. */
export async function serveWebSocket(
  { host = '127.0.0.1', port = 0, origins = [], limit }: WebSocketOptions,
  serve: (transport: FrameTransport, request: IncomingMessage) => void,
): Promise<WebSocketListener> {
  const open = new Set<Duplex>();
  const refuse = (socket: Duplex, status: string) =>
    socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
  const server = createServer((_request, response) => response.writeHead(426, { upgrade: 'websocket' }).end());
  server.on('upgrade', (request, socket, head) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    socket.on('error', () => socket.destroy());
    const { origin } = request.headers;
    if (origin !== undefined && !origins.includes(origin)) return refuse(socket, '403 Forbidden');
    acceptWebSocket(request, socket, head).then(
      (accepted) => serve(accepted.transport(limit && (() => limit(request))), request),
      () => refuse(socket, '400 Bad Request'),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  const { port: taken } = server.address() as { port: number };
  return {
    url: `ws://${host.includes(':') ? `[${host}]` : host}:${taken}`,
    async close() {
      for (const socket of open) socket.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
