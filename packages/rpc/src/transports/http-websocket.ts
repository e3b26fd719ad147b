/**
 * WebSockets as calls: the messages of a client are the call's streamed body, those for it the answer's. The handshake
 * waits for the answer: only one of status 101 opens the socket, any other is an ordinary HTTP answer.
 *
 * What always holds: both ways a slow reader bounds what waits (a client that is not read is not read from); the end of
 * either side is the end of both, and whatever the client's side does, the answer's stream is read to its end or left; a
 * client that is gone without a word is found by asking.
 */
import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type Answer, BadInput, type Body, type FlatHeaders } from '@hauki/protocol';
import type { WebSocket, WebSocketServer } from 'ws';

/** One message of a plugin's WebSocket. */
const MESSAGE_BYTES = 4 * 1024 * 1024;
/** Messages of a client that wait for their reader, and their size; beyond it the socket is paused. */
const [WAITING, WAITING_BYTES] = [64, 1024 * 1024];
/** How often a client is asked whether it is there; one that has not said so twice is gone. */
const PING_MS = 30_000;
/** For the other side's answer to a close. */
const CLOSE_MS = 2_000;
/** What a module may still do with its answer when its client has gone. */
const LINGER_MS = 10_000;
/** From the end of a module's reading to the end of its socket, unless it says itself how it ends. */
const LEAVE_MS = 1_000;
/** Close codes (RFC 6455, 7.4.1): this side goes away; something here failed. */
const [GOING_AWAY, FAILED] = [1001, 1011];

let servers: Promise<WebSocketServer> | undefined;
/** Loaded at the first use. */
const handshakes = () => {
  servers ??= import('ws').then(
    ({ WebSocketServer }) =>
      new WebSocketServer({
        noServer: true,
        clientTracking: false,
        perMessageDeflate: false,
        maxPayload: MESSAGE_BYTES,
        closeTimeout: CLOSE_MS,
      } as ConstructorParameters<typeof WebSocketServer>[0]),
  );
  return servers;
};

export const wantsWebSocket = ({ headers }: IncomingMessage): boolean => headers.upgrade?.toLowerCase() === 'websocket';

/** Throws BadInput where it is no handshake (RFC 6455, 4.2.1): nobody is to be asked for one that cannot be answered. */
function checkHandshake({ method, headers }: IncomingMessage): void {
  const key = headers['sec-websocket-key'];
  if (method !== 'GET' || !/^[+/0-9A-Za-z]{22}==$/.test(key ?? '') || headers['sec-websocket-version'] !== '13')
    throw new BadInput({ what: 'upgrade', why: 'no handshake of a WebSocket: GET, with its key, and version 13' });
}

/** By which an ordinary answer to a request to upgrade is written; the connection ends with it. */
export function answerUpgrade(request: IncomingMessage, socket: Duplex): ServerResponse {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  // The server has let go of the connection: nobody else tells the response of it.
  socket.on('drain', () => response.emit('drain'));
  response.once('finish', () => socket.end());
  response.assignSocket(socket as Socket);
  return response;
}

/** A client's messages before there is a client: what reads them waits. */
class Incoming implements AsyncIterableIterator<string | Uint8Array> {
  readonly #items: (string | Uint8Array)[] = [];
  #waiting: ((result: IteratorResult<string | Uint8Array>) => void) | undefined;
  #bytes = 0;
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
    this.#bytes += item.length;
    if (this.#items.length >= WAITING || this.#bytes >= WAITING_BYTES) this.#socket?.pause();
  }

  end(): void {
    this.#ended = true;
    this.#waiting?.({ done: true, value: undefined });
    this.#waiting = undefined;
  }

  next(): Promise<IteratorResult<string | Uint8Array>> {
    const item = this.#items.shift();
    if (item !== undefined) {
      this.#bytes -= item.length;
      const room = this.#items.length < WAITING / 2 && this.#bytes < WAITING_BYTES / 2;
      if (room && this.#socket?.isPaused) this.#socket.resume();
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
    const socket = this.#socket;
    // The end of the answer follows as a rule, and says with which code.
    setTimeout(() => socket?.close(1000), LEAVE_MS).unref();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

export interface WebSocketCall {
  /** Aborted: the client is told that this side goes away. */
  ending?: AbortSignal;
  /** The close code, and its reason, by which a client is told that its answer broke off. */
  failed?(error: unknown): [code: number, reason: string];
  ping_ms?: number;
}

/**
 * Has a WebSocket served: `call` gives the answer to the client's messages, which `messages()` gives, each time anew: only
 * the last that were asked for come. Resolves with an answer that opened no socket, which is the caller's to write; with
 * undefined when the socket has ended. Rejects with BadInput, before `call`, and as `call` does. Of an answer's headers
 * those go along that begin with `x-hauki-`.
 */
export async function callWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  call: (messages: () => Body) => Promise<Answer>,
  { ending, failed = () => [FAILED, ''], ping_ms = PING_MS }: WebSocketCall = {},
): Promise<Answer | undefined> {
  checkHandshake(request);
  const server = await handshakes();
  let incoming = new Incoming();
  socket.once('close', () => incoming.end());
  const answer = await call(() => {
    incoming = new Incoming();
    if (socket.destroyed) incoming.end();
    return incoming as unknown as Body;
  });
  const [status, headers, outgoing] = answer;
  if (status !== 101 || outgoing === null || typeof outgoing === 'string' || outgoing instanceof Uint8Array) {
    incoming.end();
    return answer;
  }
  const messages = (outgoing as AsyncIterable<string | Uint8Array>)[Symbol.asyncIterator]();
  const leave = () => void messages.return?.().catch(() => {});
  const client = open(server, request, socket, head, headers);
  if (!client) {
    incoming.end();
    leave();
    return undefined;
  }
  incoming.open(client);
  const unwatched = watch(client, ping_ms);
  const go = () => client.close(GOING_AWAY);
  let lingering: NodeJS.Timeout | undefined;
  client.once('close', () => {
    unwatched();
    // The module learns of it as the end of the messages; its own last words go nowhere.
    lingering = setTimeout(leave, LINGER_MS);
  });
  if (ending?.aborted) go();
  else ending?.addEventListener('abort', go);
  try {
    for await (const message of { [Symbol.asyncIterator]: () => messages }) {
      if (client.readyState !== client.OPEN) break;
      // The next is asked for when this one has left.
      await new Promise<void>((resolve) => client.send(message, () => resolve()));
    }
    client.close(1000);
  } catch (error) {
    client.close(...failed(error));
  } finally {
    ending?.removeEventListener('abort', go);
    incoming.end();
    if (client.readyState !== client.CLOSED) await new Promise((resolve) => client.once('close', resolve));
    clearTimeout(lingering);
  }
  return undefined;
}

/** Answers the handshake, with those headers that are ours; undefined where the client has gone. */
function open(server: WebSocketServer, request: IncomingMessage, socket: Duplex, head: Buffer, headers: FlatHeaders) {
  let client: WebSocket | undefined;
  const add = (lines: string[]) => {
    for (let i = 0; i + 1 < headers.length; i += 2)
      if (/^x-hauki-[a-z]+$/.test(headers[i]!) && /^[\x21-\x7e]+$/.test(headers[i + 1]!))
        lines.push(`${headers[i]}: ${headers[i + 1]}`);
  };
  // It calls back before it returns, or not at all.
  server.once('headers', add);
  server.handleUpgrade(request, socket, head, (opened) => {
    client = opened;
  });
  server.off('headers', add);
  // A close follows, with the code that says what was wrong.
  client?.on('error', () => {});
  return client;
}

/** Ends a client that answers nothing any more. Gives what ends the watch. */
function watch(client: WebSocket, ping_ms: number): () => void {
  let unanswered = 0;
  const heard = () => {
    unanswered = 0;
  };
  client.on('pong', heard).on('message', heard);
  const timer = setInterval(() => {
    // One that nobody reads cannot be heard.
    if (client.isPaused) return;
    if (unanswered++ >= 2) client.terminate();
    else if (client.readyState === client.OPEN) client.ping();
  }, ping_ms);
  return () => clearInterval(timer);
}
