/**
 * The short way for most HTTP requests: one whose head is plain, without a body, and there in one piece is read right
 * from its connection and answered on it, for a third of what `node:http` takes. With anything else, the connection goes
 * over to `node:http`, with all that has come and for good.
 *
 * What always holds: what is read here is a part of what RFC 9112 allows, and means the same to `node:http`: any doubt,
 * above all about where a request ends, is left to that. A connection has one request under way at a time, and the next
 * is not read before its answer was taken. An answer's names and values are checked one by one.
 */
import { type IncomingMessage, type Server, ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { type FlatHeaders, NOT_IN_HEADER } from '@hauki/protocol';
import { onceForSame } from '../alike.ts';
import { kindOfName } from './http-names.ts';
import { whenFull } from './room.ts';
import { askIfSilent } from './silent-peer.ts';

/** A head beyond this is left to node:http, whose own limit is the same. */
const HEAD_BYTES = 16 * 1024;

/** What is asked of a request before it is served; node:http's own are like this too. */
export interface Asked extends Pick<IncomingMessage, 'method' | 'url' | 'rawHeaders' | 'socket'> {
  headers: Pick<
    IncomingMessage['headers'],
    'host' | 'authorization' | 'origin' | 'content-length' | 'transfer-encoding' | 'upgrade'
  > & { 'x-hauki-version'?: string | string[] | undefined; 'x-hauki-key'?: string | string[] | undefined };
}

/** What stands behind a request's first line. */
export interface Block {
  text: string;
  /** Names in lower case. */
  rawHeaders: string[];
  headers: Asked['headers'];
}

/** The head of a request. */
export interface Head {
  url: string;
  block: Block;
}

const FIRST_LINE = /^GET (\/[\x21-\x7e]*) HTTP\/1\.1\r\n/;
const LINES = /^(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)+\r\n$/;
const BEYOND_ASCII = /[^\0-\x7f]/;
const OUTER_SPACE = /^[\t ]+|[\t ]+$/g;

/**
 * Reads what has come as one request; undefined where it is anything else than one of the plainest. `before`: the block of
 * the same connection's last one, which is given again where this one's says the same, letter by letter.
 */
export function readHead(text: string, before?: Block): Head | undefined {
  const [line, url] = FIRST_LINE.exec(text) ?? [];
  if (line === undefined || url === undefined) return undefined;
  const is_same = before && text.length === line.length + before.text.length && text.endsWith(before.text);
  const block = is_same ? before : readBlock(text.slice(line.length));
  return block && { url, block };
}

function readBlock(block: string): Block | undefined {
  if (!LINES.test(block)) return undefined;
  const rawHeaders: string[] = [];
  // One shape for all: they are asked for at each request.
  const headers: Asked['headers'] = {
    host: undefined,
    authorization: undefined,
    origin: undefined,
    'x-hauki-version': undefined,
    'x-hauki-key': undefined,
  };
  for (let at = 0; at < block.length - 2; ) {
    const colon = block.indexOf(':', at);
    const end = block.indexOf('\r\n', colon);
    const name = block.slice(at, colon).toLowerCase();
    const value = block
      .slice(block.charCodeAt(colon + 1) === 0x20 ? colon + 2 : colon + 1, end)
      .replace(OUTER_SPACE, '');
    at = end + 2;
    switch (name) {
      case 'host':
      case 'authorization':
      case 'origin':
      case 'x-hauki-version':
      case 'x-hauki-key':
        // Which of two counts, or that none does, is for node:http to say.
        if (headers[name] !== undefined) return undefined;
        headers[name] = value;
        break;
      case 'connection':
        if (value.toLowerCase() !== 'keep-alive') return undefined;
        break;
      case 'content-length':
      case 'transfer-encoding':
      case 'upgrade':
      case 'expect':
      case 'te':
      case 'trailer':
        return undefined;
    }
    rawHeaders.push(name, value);
  }
  return headers.host === undefined ? undefined : { text: block, rawHeaders, headers };
}

/**
 * What `make` gives for a request's headers: made once for as long as a connection that is read here sends the same, which
 * is as a rule as long as it lasts. `made_for`: anew where that is another than the last time. To be changed by nobody.
 */
export function onceForHeaders<T, R extends Pick<Asked, 'headers'>>(
  make: (request: R, made_for: string) => T,
): (request: R, made_for?: string) => T {
  const known = new WeakMap<object, { made: T; made_for: string }>();
  return (request, made_for = '') => {
    const last = known.get(request.headers);
    if (last?.made_for === made_for) return last.made;
    const made = make(request, made_for);
    known.set(request.headers, { made, made_for });
    return made;
  };
}

let date = '';
let date_at = 0;
function dateLine(): string {
  const now = Date.now();
  if (now - date_at >= 1_000 || now < date_at) {
    date = `date: ${new Date(now).toUTCString()}\r\n`;
    date_at = now - (now % 1_000);
  }
  return date;
}

/** An answer's headers as they are written; undefined where they are not to be written here. */
const linesOf = onceForSame((headers: FlatHeaders, more: FlatHeaders) => {
  let text = '';
  let dated = false;
  for (const list of [headers, more])
    for (let i = 0; i + 1 < list.length; i += 2) {
      const kind = kindOfName(list[i]!);
      if (kind === 'hop' || kind === 'length') continue;
      const value = list[i + 1]!;
      if (kind === 'none' || NOT_IN_HEADER.test(value)) return undefined;
      if (kind === 'date') dated = true;
      text += `${list[i]}: ${value}\r\n`;
    }
  return { text, dated, is_ascii: !BEYOND_ASCII.test(text) };
});

/** A connection as long as it is read here: what its one request under way is answered by. */
export class Direct {
  readonly socket: Socket;
  readonly #powers: DirectPowers;
  #busy = false;
  /** What came while a request was under way. */
  #held: Buffer | undefined;
  /** What its last request had behind the first line. */
  #block: Block | undefined;
  /** Of the request under way, where node:http answers it. */
  #response: ServerResponse | undefined;

  constructor(socket: Socket, powers: DirectPowers) {
    this.socket = socket;
    this.#powers = powers;
    socket.setTimeout(powers.idle_ms);
    socket.on('data', this.#data).on('timeout', this.#timeout).on('end', this.#end).on('error', this.#error);
    socket.once('close', this.#close);
  }

  readonly #data = (chunk: Buffer): void => {
    if (this.#busy) {
      // A client that does not wait for its answer.
      this.#held = this.#held ? Buffer.concat([this.#held, chunk]) : chunk;
      this.socket.pause();
      return;
    }
    const head = chunk.length <= HEAD_BYTES ? readHead(chunk.toString('latin1'), this.#block) : undefined;
    if (!head) return this.#handOver(chunk);
    this.#busy = true;
    const { url, block } = head;
    this.#block = block;
    const { rawHeaders, headers } = block;
    const asked: Asked = { method: 'GET', url, rawHeaders, headers, socket: this.socket };
    if (!this.#powers.take(asked, this)) this.#handOver(chunk);
  };

  readonly #timeout = (): void => {
    // Behind an answer that is not taken; one that has nothing to say goes on.
    if (!this.#busy || this.socket.writableLength > 0) this.socket.destroy();
  };
  readonly #end = (): void => void this.socket.end();
  readonly #error = (): void => void this.socket.destroy();
  readonly #close = (): void => {
    this.#held = undefined;
    this.#powers.connections.delete(this);
  };

  #handOver(chunk: Buffer): void {
    const { socket } = this;
    socket.off('data', this.#data).off('timeout', this.#timeout).off('end', this.#end).off('error', this.#error);
    socket.off('close', this.#close);
    this.#close();
    socket.setTimeout(0);
    // Nothing more comes before the other has taken it.
    socket.pause();
    socket.unshift(chunk);
    this.#powers.handOver(socket);
    socket.resume();
  }

  /**
   * Answers the request with all that there is, and `more` headers. False, with nothing written, where that is for
   * node:http to do.
   */
  answer(status: number, headers: FlatHeaders, more: FlatHeaders, body: string | Uint8Array): boolean {
    if (this.#response || !(Number.isInteger(status) && status >= 200 && status <= 599)) return false;
    const lines = linesOf(headers, more);
    if (!lines) return false;
    const line = status === 200 ? 'HTTP/1.1 200 OK\r\n' : `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'unknown'}\r\n`;
    const text = typeof body === 'string';
    const length = text ? Buffer.byteLength(body) : body.length;
    const last = `${lines.dated ? '' : dateLine()}${this.#powers.kept_alive}content-length: ${length}\r\n\r\n`;
    const head = line + lines.text + last;
    const { socket } = this;
    let taken: boolean;
    if (text && lines.is_ascii) {
      // What is ASCII alone is written for less.
      taken = socket.write(head + body, length === body.length ? 'latin1' : 'utf8');
    } else {
      socket.cork();
      socket.write(head, 'latin1');
      taken = length === 0 || socket.write(body);
      socket.uncork();
    }
    this.#next(taken);
    return true;
  }

  /** Whether a request is under way. */
  get busy(): boolean {
    return this.#busy;
  }

  /** The response that `response` gave, if any. */
  get begun(): ServerResponse | undefined {
    return this.#response;
  }

  /** A response of node:http for the request, for all that `answer` does not do: one for each request. */
  response(): ServerResponse {
    if (this.#response) return this.#response;
    const { socket } = this;
    const request = { method: 'GET', httpVersionMajor: 1, httpVersionMinor: 1 };
    const response = new ServerResponse(request as IncomingMessage);
    const drained = () => response.emit('drain');
    socket.on('drain', drained);
    this.#response = response;
    response.once('finish', () => {
      this.#response = undefined;
      socket.off('drain', drained);
      if (socket.destroyed) return;
      response.detachSocket(socket);
      response.emit('close');
      this.#next(!socket.writableNeedDrain);
    });
    response.assignSocket(socket);
    return response;
  }

  /** The answer is written: the next request's turn, once it was `taken`. */
  #next(taken: boolean): void {
    if (!taken) {
      this.socket.pause();
      this.socket.once('drain', () => this.#next(true));
      return;
    }
    this.#busy = false;
    const held = this.#held;
    this.#held = undefined;
    if (held) this.#data(held);
    if (this.socket.isPaused() && !this.#held) this.socket.resume();
  }
}

interface DirectPowers {
  connections: Set<Direct>;
  idle_ms: number;
  /** The line that says so. */
  kept_alive: string;
  take(request: Asked, by: Direct): boolean;
  handOver(socket: Socket): void;
}

/**
 * Reads requests of a server before its own parser does. `take` serves a request, and answers it by what it is given;
 * false: it is for the server. Gives what ends the connections that are read so.
 */
export function readDirectly(server: Server, take: (request: Asked, by: Direct) => boolean): () => void {
  const own = server.listeners('connection') as ((socket: Socket) => void)[];
  const connections = new Set<Direct>();
  const idle_ms = server.keepAliveTimeout;
  const powers: DirectPowers = {
    connections,
    idle_ms,
    kept_alive: `connection: keep-alive\r\nkeep-alive: timeout=${Math.floor(idle_ms / 1_000)}\r\n`,
    take,
    handOver(socket) {
      for (const listener of own) listener.call(server, socket);
    },
  };
  whenFull(server, () => [...connections].filter(({ busy }) => !busy).map(({ socket }) => socket));
  let over = false;
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) => {
    askIfSilent(socket);
    if (over) powers.handOver(socket);
    else connections.add(new Direct(socket, powers));
  });
  return () => {
    over = true;
    for (const { socket } of connections) socket.destroy();
  };
}
