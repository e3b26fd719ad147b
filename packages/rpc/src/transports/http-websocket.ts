/**
 * WebSockets as calls: the messages of a client are the call's streamed body, those for it the answer's. The handshake
 * waits for the answer: only one of status 101 opens the socket, any other is an ordinary HTTP answer. A client that can
 * send no header, as a page's, is let in first and says by its first message who it is (`admit`).
 *
 * Either side's stream ends with how the socket was closed, a list of code and reason, where that is known.
 *
 * What always holds: both ways a slow reader bounds what waits (a client that is not read is not read from); the end of
 * either side is the end of both, and whatever the client's side does, the answer's stream is read to its end or left; a
 * client that is gone without a word is found by asking.
 */
import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  type Answer,
  BadInput,
  type Body,
  type FlatHeaders,
  InternalError,
  isSocketClose,
  LIMITS,
  MeshError,
  RemoteError,
  type SocketMessage,
  toWire,
} from '@hauki/protocol';
import type { WebSocket, WebSocketServer } from 'ws';
import { firstText } from './websocket-server.ts';

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

/** The subprotocol with which a handshake is answered. */
const spoken = new WeakMap<IncomingMessage, string>();

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
        handleProtocols: (_offered: unknown, request: IncomingMessage) => spoken.get(request) ?? false,
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
class Incoming implements AsyncIterableIterator<SocketMessage> {
  readonly #items: SocketMessage[] = [];
  #waiting: ((result: IteratorResult<SocketMessage>) => void) | undefined;
  #bytes = 0;
  #ended = false;
  #socket: WebSocket | undefined;

  /** `early`: what has come already. */
  open(socket: WebSocket, early: readonly SocketMessage[] = []): void {
    this.#socket = socket;
    for (const message of early) this.#take(message);
    socket.on('message', (data: Buffer, is_binary) => this.#take(messageOf(data, is_binary)));
    socket.on('close', (code, reason) => {
      if (!this.#ended) this.#take([code, reason.toString()]);
      this.end();
    });
  }

  #take(item: SocketMessage): void {
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

  /** The connection is gone: a client that is open says how. */
  cut(): void {
    if (!this.#socket) this.end();
  }

  next(): Promise<IteratorResult<SocketMessage>> {
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
  async return(): Promise<IteratorResult<SocketMessage>> {
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

const messageOf = (data: Buffer, is_binary: boolean): SocketMessage =>
  is_binary ? new Uint8Array(data) : data.toString();

/** The subprotocols that a client offers. */
const offeredBy = ({ headers }: IncomingMessage): string[] =>
  (headers['sec-websocket-protocol'] ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');

const PROTOCOL = 'sec-websocket-protocol';
const protocolOf = (headers: FlatHeaders): string | undefined => {
  const at = headers.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === PROTOCOL);
  return at < 0 ? undefined : headers[at + 1];
};

/** Of the subprotocols that headers offer leaves the first: that with which a handshake was answered already. */
export function offerFirst(headers: FlatHeaders): FlatHeaders {
  const [first] = (protocolOf(headers) ?? '').split(',', 1);
  const others = headers.filter((_, i) => headers[i - (i % 2)]!.toLowerCase() !== PROTOCOL);
  return first ? [...others, PROTOCOL, first.trim()] : others;
}

export interface WebSocketCall {
  /**
   * Lets the client in before the call, by the token in its first message; rejects where that does not open this door. A
   * client that is let in reads `{"status":"success", …}`, before any message; any other an error, and is closed with 4000
   * and the error's status. The handshake is answered with the first of the subprotocols that it offers.
   */
  admit?(socket: WebSocket, first: Promise<string>): Promise<void>;
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
 * those go along that begin with `x-hauki-`, and the subprotocol where the client offered it.
 */
export async function callWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  call: (messages: () => Body) => Promise<Answer>,
  options: WebSocketCall = {},
): Promise<Answer | undefined> {
  checkHandshake(request);
  const server = await handshakes();
  let incoming = new Incoming();
  socket.once('close', () => incoming.cut());
  const ask = () =>
    call(() => {
      incoming = new Incoming();
      if (socket.destroyed) incoming.end();
      return incoming as unknown as Body;
    });
  if (options.admit) {
    const early: SocketMessage[] = [];
    const client = open(server, request, socket, head, [], offeredBy(request)[0]);
    const outgoing = client && (await introduce(client, socket, early, ask, options));
    if (client && outgoing) {
      incoming.open(client, early);
      await exchange(client, incoming, outgoing, options);
    } else incoming.end();
    return undefined;
  }
  const answer = await ask();
  const outgoing = messagesOf(answer);
  if (!outgoing) {
    incoming.end();
    return answer;
  }
  const client = open(server, request, socket, head, answer[1], protocolOf(answer[1]));
  if (!client) {
    incoming.end();
    leave(outgoing);
    return undefined;
  }
  incoming.open(client);
  await exchange(client, incoming, outgoing, options);
  return undefined;
}

type Outgoing = AsyncIterator<SocketMessage>;

/** The messages of an answer that opens a socket. */
function messagesOf([status, , body]: Answer): Outgoing | undefined {
  if (status !== 101 || body === null || typeof body === 'string' || body instanceof Uint8Array) return undefined;
  return (body as AsyncIterable<SocketMessage>)[Symbol.asyncIterator]();
}

const leave = (messages: Outgoing) => void messages.return?.().catch(() => {});

/** Lets a client in by its first message, and asks. What comes meanwhile is kept: no more than was on its way. */
async function introduce(
  client: WebSocket,
  socket: Duplex,
  early: SocketMessage[],
  ask: () => Promise<Answer>,
  { admit, ending }: WebSocketCall,
): Promise<Outgoing | undefined> {
  const go = () => client.close(GOING_AWAY);
  const keep = (data: Buffer, is_binary: boolean) => void early.push(messageOf(data, is_binary));
  let outgoing: Outgoing | undefined;
  try {
    if (ending?.aborted) go();
    else ending?.addEventListener('abort', go);
    client.pause();
    const first = firstText(client, socket, LIMITS.handshake_bytes, LIMITS.handshake_ms, () => {
      client.pause();
      client.on('message', keep);
    });
    await admit?.(client, first);
    const answer = await ask();
    outgoing = messagesOf(answer);
    if (!outgoing) {
      const said = `the module answered ${answer[0]}, and opened no WebSocket`;
      throw Object.assign(new RemoteError({ error_name: 'Response' }, said), { answered: answer[0] });
    }
    if (client.protocol !== (protocolOf(answer[1]) ?? ''))
      throw new BadInput({ what: 'the subprotocol', why: `the module does not speak ${client.protocol}` });
    const ours = answer[1].flatMap((name, i) => (i % 2 === 0 && OURS.test(name) ? [[name, answer[1][i + 1]]] : []));
    client.send(JSON.stringify({ status: 'success', ...Object.fromEntries(ours) }));
    client.off('message', keep);
    client.resume();
    return outgoing;
  } catch (error) {
    if (outgoing) leave(outgoing);
    const wire = error instanceof MeshError ? error : new InternalError({ why: 'the upgrade failed' });
    if (client.readyState === client.OPEN) client.send(JSON.stringify({ status: 'error', error: toWire(wire) }));
    const { answered = wire.status } = error as { answered?: number };
    client.close(4000 + answered, wire.name);
    client.resume();
    return undefined;
  } finally {
    ending?.removeEventListener('abort', go);
  }
}

/** Carries messages both ways until the socket has ended. */
async function exchange(
  client: WebSocket,
  incoming: Incoming,
  messages: Outgoing,
  { ending, failed = () => [FAILED, ''], ping_ms = PING_MS }: WebSocketCall,
): Promise<void> {
  const unwatched = watch(client, ping_ms);
  const go = () => client.close(GOING_AWAY);
  let lingering: NodeJS.Timeout | undefined;
  const left = () => {
    unwatched();
    // The module learns of it as the end of the messages; its own last words go nowhere.
    lingering = setTimeout(() => leave(messages), LINGER_MS);
  };
  if (client.readyState === client.CLOSED) left();
  else client.once('close', left);
  if (ending?.aborted) go();
  else ending?.addEventListener('abort', go);
  try {
    let end: [code: number, reason?: string] = [1000];
    for await (const message of { [Symbol.asyncIterator]: () => messages }) {
      // One that has closed hears nothing more; the module still reads what came before that, and ends by itself.
      if (client.readyState !== client.OPEN) continue;
      if (isSocketClose(message)) {
        end = message;
        break;
      }
      if (Array.isArray(message)) throw new TypeError('no code and reason with which a WebSocket may be closed');
      // The next is asked for when this one has left.
      await new Promise<void>((resolve) => client.send(message as string | Uint8Array, () => resolve()));
    }
    client.close(...end);
  } catch (error) {
    client.close(...failed(error));
  } finally {
    ending?.removeEventListener('abort', go);
    incoming.end();
    if (client.readyState !== client.CLOSED) await new Promise((resolve) => client.once('close', resolve));
    clearTimeout(lingering);
  }
}

/** Headers of an answer that are the kernel's. */
const OURS = /^x-hauki-[a-z]+$/;

/** Answers the handshake, with those headers that are ours; undefined where the client has gone. */
function open(
  server: WebSocketServer,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  headers: FlatHeaders,
  protocol: string | undefined,
) {
  let client: WebSocket | undefined;
  if (protocol !== undefined && offeredBy(request).includes(protocol)) spoken.set(request, protocol);
  const add = (lines: string[]) => {
    for (let i = 0; i + 1 < headers.length; i += 2)
      if (OURS.test(headers[i]!) && /^[\x21-\x7e]+$/.test(headers[i + 1]!))
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
