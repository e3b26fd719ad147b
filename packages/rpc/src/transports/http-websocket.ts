/**
 * WebSockets as calls: the messages of a client are the call's streamed body, those for it the answer's. The handshake
 * waits for the answer: only one of status 101 opens the socket, any other is an ordinary HTTP answer.
 *
 * What always holds: both ways a slow reader bounds what waits (a client that is not read is not read from); the end of
 * either side is the end of both.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Answer, Body } from '@hauki/protocol';
import type { WebSocket, WebSocketServer } from 'ws';

/** One message of a plugin's WebSocket. */
const MESSAGE_BYTES = 4 * 1024 * 1024;
/** Messages of a client that wait for their reader; beyond it the socket is paused. */
const WAITING = 64;

let servers: Promise<WebSocketServer> | undefined;
/** Loaded at the first use. */
const handshakes = () => {
  servers ??= import('ws').then(
    ({ WebSocketServer }) =>
      new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MESSAGE_BYTES }),
  );
  return servers;
};

export const wantsWebSocket = ({ headers }: IncomingMessage): boolean => headers.upgrade?.toLowerCase() === 'websocket';

/** A client's messages before there is a client: what reads them waits. */
class Incoming implements AsyncIterableIterator<string | Uint8Array> {
  readonly #items: (string | Uint8Array)[] = [];
  #waiting: ((result: IteratorResult<string | Uint8Array>) => void) | undefined;
  #ended = false;
  #socket: WebSocket | undefined;

  open(socket: WebSocket): void {
    this.#socket = socket;
    socket.on('message', (data: Buffer, is_binary) => this.#take(is_binary ? new Uint8Array(data) : data.toString()));
    socket.on('close', () => this.end());
  }

  #take(item: string | Uint8Array): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) return waiting({ done: false, value: item });
    this.#items.push(item);
    if (this.#items.length >= WAITING) this.#socket?.pause();
  }

  end(): void {
    this.#ended = true;
    this.#waiting?.({ done: true, value: undefined });
    this.#waiting = undefined;
  }

  next(): Promise<IteratorResult<string | Uint8Array>> {
    const item = this.#items.shift();
    if (item !== undefined) {
      if (this.#socket?.isPaused && this.#items.length < WAITING / 2) this.#socket.resume();
      return Promise.resolve({ done: false, value: item });
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  /** Its reader has left: so has the worker's side of the socket. */
  async return(): Promise<IteratorResult<string | Uint8Array>> {
    this.end();
    this.#socket?.close(1000);
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/**
 * Has a WebSocket served: `call` is given the client's messages and gives the answer. Resolves with an answer that opened
 * no socket, which is the caller's to write; with undefined when the socket has ended. Rejects as `call` does.
 */
export async function callWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  call: (messages: Body) => Promise<Answer>,
): Promise<Answer | undefined> {
  const incoming = new Incoming();
  const left = () => incoming.end();
  socket.once('close', left);
  const answer = await call(incoming as unknown as Body);
  const [status, , outgoing] = answer;
  if (status !== 101 || outgoing === null || typeof outgoing === 'string' || outgoing instanceof Uint8Array) {
    incoming.end();
    return answer;
  }
  const server = await handshakes();
  const client = await new Promise<WebSocket>((resolve) => server.handleUpgrade(request, socket, head, resolve));
  client.on('error', () => client.terminate());
  incoming.open(client);
  try {
    for await (const message of outgoing as AsyncIterable<string | Uint8Array>) {
      if (client.readyState !== client.OPEN) break;
      // The next is asked for when this one has left.
      await new Promise<void>((resolve) => client.send(message, () => resolve()));
    }
    client.close(1000);
  } catch {
    client.close(1011);
  }
  return undefined;
}
