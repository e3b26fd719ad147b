/**
 * The HTTP server of a core or a kernel: what both refuse, bound and let pass before any of their own rules.
 *
 * What always holds: an answer that nobody reads ends, one that has nothing to say goes on; connections leave some of the
 * process's descriptors free, and where there are too many those on which nothing is under way make room; an upgrade is
 * never served while another answer is under way on its connection (RFC 9112, 9.3.2); what is offered and not known here is
 * ignored (RFC 9110, 7.8); a coding of a body that is not known is refused; what is no request is refused in the same words
 * as what is one.
 */
import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import {
  createServer,
  type IncomingMessage,
  maxHeaderSize,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import { BadInput, Forbidden, MeshError, toWire } from '@hauki/protocol';
import { writeError } from './http.ts';
import { type Asked, onceForHeaders } from './http-direct.ts';
import { answerUpgrade } from './http-websocket.ts';
import { SERVER_LIMITS } from './limits.ts';
import { whenFull } from './room.ts';
import { UPGRADE_PROTOCOL } from './upgrade.ts';

/** What a server does with what it lets pass. */
export interface ServerPowers {
  serve(request: IncomingMessage, response: ServerResponse): void;
  upgrade(request: IncomingMessage, socket: Socket, head: Buffer): void;
}

/** Makes a server. `stalled_ms`: after which an answer that is not read ends. */
export function createHttpServer(
  options: ServerOptions & { stalled_ms?: number },
  { serve, upgrade }: ServerPowers,
): Server {
  const { stalled_ms = SERVER_LIMITS.stalled_ms, ...own } = options;
  /** The last answer that was begun on a connection: when it is over, all are. */
  const last = new WeakMap<Socket, ServerResponse>();
  const underWay = (socket: Socket) => {
    const response = last.get(socket);
    return response?.closed ? undefined : response;
  };
  const shouldUpgradeCallback = ({ headers }: IncomingMessage) =>
    ['websocket', UPGRADE_PROTOCOL].includes(headers.upgrade?.toLowerCase() ?? '');
  /** Those that Node's parser reads, the oldest first. */
  const read = new Set<Socket>();
  const server = createServer({ ...own, shouldUpgradeCallback } as ServerOptions, (request, response) => {
    last.set(request.socket, response);
    const coding = request.headers['transfer-encoding'];
    if (coding === undefined || coding.toLowerCase() === 'chunked') serve(request, response);
    else {
      response.shouldKeepAlive = false;
      writeError(response, unknownCoding(coding));
      request.resume();
    }
  });
  server.on('connection', (socket: Socket) => {
    read.add(socket);
    socket.once('close', () => read.delete(socket));
  });
  whenFull(server, () => [...read].filter((socket) => !underWay(socket)));
  server.on('upgrade', (request, stream, head) => {
    const socket = stream as Socket;
    read.delete(socket);
    socket.on('error', () => socket.destroy());
    const before = underWay(socket);
    if (!before) return upgrade(request, socket, head);
    const why = 'another request of this connection is not answered yet: wait for its answer, or use a new connection';
    before.once('close', () => {
      if (socket.writable) writeError(answerUpgrade(request, socket), new BadInput({ what: 'upgrade', why }));
    });
  });
  server.on('clientError', (error: NodeJS.ErrnoException, stream) => {
    const socket = stream as Socket;
    // Behind half an answer another would be taken for the rest of that.
    if (!socket.writable || error.code === 'ECONNRESET' || underWay(socket)?.headersSent) return void socket.destroy();
    const [status, why] = BROKEN[error.code ?? ''] ?? [BadInput.row.status, 'it is no HTTP'];
    refuse(socket, badInput('the request', why, status));
  });
  // Node calls it where nothing moves: between two requests, before an answer, or behind one that is not taken.
  server.timeout = stalled_ms;
  server.on('timeout', (socket) => {
    if (!underWay(socket) || socket.writableLength > 0) socket.destroy();
  });
  const descriptors = descriptorLimit();
  if (descriptors !== undefined) server.maxConnections = Math.floor(descriptors * SERVER_LIMITS.connections_share);
  return server;
}

/** How many files and connections this process may have open; undefined where the system does not say. */
function descriptorLimit(): number | undefined {
  try {
    const [, limit] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
    return limit === undefined ? undefined : Number(limit);
  } catch {
    return undefined;
  }
}

const unknownCoding = (coding: string) =>
  badInput('the header transfer-encoding', `${JSON.stringify(coding.slice(0, 100))}: only chunked is known here`, 501);

/** HTTP's own statuses of what never becomes a request. */
const BROKEN: Record<string, [status: number, why: string]> = {
  HPE_HEADER_OVERFLOW: [431, `its first line and its headers have more than ${maxHeaderSize} bytes`],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'it did not come in time'],
};

/** BadInput with a status of HTTP's own. */
const badInput = (what: string, why: string, status: number) =>
  new MeshError({ ...BadInput.row, status }, { what, why }, `${what}: ${why}`);

/** An HTTP answer on a raw connection, which ends with it: for refused upgrades, and for what is no request. */
export function refuse(socket: Socket, error: MeshError): void {
  const body = JSON.stringify({ status: 'error', error: toWire(error) });
  socket.write(
    `HTTP/1.1 ${error.status} Refused\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  socket.destroySoon();
}

/** A body as text. Throws BadInput where it is none: what would stand in the place of broken bytes is not what was sent. */
export function textOf(body: Buffer): string {
  if (isUtf8(body)) return body.toString();
  throw new BadInput({ what: 'the body', why: 'it is no text in UTF-8' });
}

const PORT = /:(\d+)$/;
/** A host as it is named, without a port. */
const named = (text: string): string => text.toLowerCase().replace(PORT, '');
/** The host of a URL; empty where that is none of the web's. */
const hostOf = (text: string): string => {
  const url = URL.parse(text);
  return url && /^https?:$/.test(url.protocol) ? named(url.host) : '';
};

/**
 * What refuses requests that name another host than these, in the header or in their target, or two; and those that come
 * from a page of another origin. `what` refuses: `core` or `kernel`; loopback's names are always among its own. Once for
 * the same headers: what is read without `node:http` has no target but a path. Throws Forbidden or BadInput.
 */
export function originCheck(
  what: string,
  host_names: readonly string[],
): (request: Pick<Asked, 'headers' | 'rawHeaders' | 'url'>) => void {
  const hosts = new Set(['localhost', '127.0.0.1', '[::1]', ...host_names.map((host) => host.toLowerCase())]);
  const checkHost = (host: string) => {
    if (!hosts.has(host))
      throw new Forbidden({
        why: `This ${what} does not answer for the host ${JSON.stringify(host)}; name it with --host-name`,
      });
  };
  return onceForHeaders((request): void => {
    // RFC 9112, 3.2. node:http would take the first of two.
    if (request.rawHeaders.filter((text, i) => i % 2 === 0 && text.toLowerCase() === 'host').length > 1)
      throw new BadInput({ what: 'the Host header', why: 'there is more than one' });
    const { host = '' } = request.headers;
    checkHost(named(host));
    // No URL can be made of it: whoever reads the request would fail.
    if (Number(PORT.exec(host)?.[1] ?? 0) > 65_535)
      throw new BadInput({
        what: 'the Host header',
        why: `${JSON.stringify(host.slice(0, 100))} has no port up to 65535`,
      });
    const { url = '' } = request;
    // RFC 9112, 3.2.2: there the target says which host is meant.
    if (/^https?:/i.test(url)) checkHost(hostOf(url));
    const { origin } = request.headers;
    if (origin !== undefined && !hosts.has(hostOf(origin)))
      throw new Forbidden({ why: `Requests from pages of ${JSON.stringify(origin)} are not taken` });
  });
}
