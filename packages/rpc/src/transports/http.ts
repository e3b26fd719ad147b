/**
 * HTTP requests as calls: a request of `node:http` as method, flat headers and body, and an answer as its response.
 *
 * What always holds: what speaks of one connection stays on it (RFC 9110, 7.6.1); an answer's length is what its body
 * has, whatever its headers say, so that none can pass for the beginning of the next; bodies are bounded in memory.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Answer, type Body, type FlatHeaders, type MeshError, toWire } from '@hauki/protocol';
import type { Served } from '../served.ts';
import type { CallSignal } from '../session.ts';
import { type Asked, Direct } from './http-direct.ts';
import { isHop, kindOfName } from './http-names.ts';

/** A body up to this is gathered before the call; a larger one, or one of unknown size, is a stream. */
const WHOLE_BYTES = 64 * 1024;

/** Whether a body is there at once. */
export const isWhole = (body: Body): body is null | string | Uint8Array =>
  body === null || typeof body === 'string' || body instanceof Uint8Array;

/** What callers may say to a gateway, a kernel or a module; all else of that name they and what is between them say. */
const OWN = 'x-hauki-';
const OF_CALLERS = new Set(['x-hauki-key', 'x-hauki-version']);

/** The headers of a request that go along, but for those that `without` names. */
export function headersOf({ rawHeaders }: Pick<Asked, 'rawHeaders'>, without: ReadonlySet<string>): FlatHeaders {
  const headers: string[] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase();
    if (isHop(name) || without.has(name) || (name.startsWith(OWN) && !OF_CALLERS.has(name))) continue;
    headers.push(name, rawHeaders[i + 1]!);
  }
  return headers;
}

/** Whether a request says that it has a body. */
export const hasBody = ({ headers }: Pick<Asked, 'headers'>): boolean =>
  (headers['content-length'] ?? '0') !== '0' || headers['transfer-encoding'] !== undefined;

/**
 * The body of a request: bytes where it is small, else a stream of them. What is not read of it is dropped when its reader
 * leaves: the next request of the same connection stands behind it.
 */
export async function bodyOf(request: IncomingMessage): Promise<Body> {
  if (!hasBody(request)) return null;
  const length = request.headers['content-length'];
  const stream = (async function* () {
    try {
      for await (const chunk of request.iterator({ destroyOnReturn: false })) yield new Uint8Array(chunk as Buffer);
    } finally {
      request.resume();
    }
  })();
  if (length === undefined || !(Number(length) <= WHOLE_BYTES)) return stream;
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}

/** One is listened to at each request, for which Node's AbortSignal is too slow. */
class Departure implements CallSignal {
  aborted = false;
  reason: unknown;
  #listeners: Set<() => void> | undefined;

  addEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners ??= new Set();
    this.#listeners.add(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners?.delete(listener);
  }

  tell(reason: unknown): void {
    this.aborted = true;
    this.reason = reason;
    if (!this.#listeners) return;
    for (const listener of this.#listeners) listener();
    this.#listeners = undefined;
  }
}

/** Aborted when the connection of the request ends; one for each connection. */
const connections = new WeakMap<object, Departure>();

export function leaving({ socket }: Pick<Asked, 'socket'>): CallSignal {
  const known = connections.get(socket);
  if (known) return known;
  const departure = new Departure();
  socket.once('close', () => departure.tell(new Error('the client has gone')));
  connections.set(socket, departure);
  return departure;
}

/** Aborted when the call is: the client that it was made for has gone. */
export function leavingOf(call: Served): CallSignal {
  const departure = new Departure();
  call.onabort = (reason) => departure.tell(reason);
  return departure;
}

/** What a request is answered by. */
export type Answering = ServerResponse | Direct;

/** Answers without content, whatever body they were given (RFC 9110, 6.4.1). */
const isBare = (to: Answering, status: number): boolean =>
  status === 204 || status === 304 || (!(to instanceof Direct) && to.req.method === 'HEAD');

/**
 * Writes an answer, with `more` headers. Rejects, with nothing written, where its headers cannot be sent. One without
 * content says how long it would be where it knows (RFC 9110, 8.6): by its body, or by what it says itself.
 */
export function writeAnswer(
  to: Answering,
  [status, headers, body]: Answer,
  more: FlatHeaders = [],
): void | Promise<void> {
  const bare = isBare(to, status);
  const direct = to instanceof Direct;
  if (direct && isWhole(body) && !bare && to.answer(status, headers, more, body ?? '')) return undefined;
  const sent: string[] = [];
  let length: string | undefined;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const kind = kindOfName(headers[i]!);
    if (kind === 'length') length ??= headers[i + 1]!;
    else if (kind !== 'hop') sent.push(headers[i]!, headers[i + 1]!);
  }
  for (const text of more) sent.push(text);
  return writeResponse(direct ? to.response() : to, status, sent, body, length, bare);
}

const NO_BYTES = new Uint8Array(0);
const lengthOf = (body: string | Uint8Array): string =>
  String(typeof body === 'string' ? Buffer.byteLength(body) : body.length);

async function writeResponse(
  response: ServerResponse,
  status: number,
  sent: string[],
  body: Body,
  said: string | undefined,
  bare: boolean,
): Promise<void> {
  const whole = isWhole(body);
  // That of a whole body is counted here; a streamed one is held to what it says.
  const counted = whole && (body?.length || !bare) ? lengthOf(body ?? '') : undefined;
  const length = counted ?? (said !== undefined && /^\d{1,15}$/.test(said) ? said : undefined);
  if (length !== undefined && status !== 204) sent.push('content-length', length);
  // What is no body is found out before anything is written.
  const chunks = whole ? undefined : body[Symbol.asyncIterator]();
  try {
    if (chunks) response.strictContentLength = true;
    response.writeHead(status, sent);
  } catch (error) {
    await chunks?.return?.();
    throw error;
  }
  // Always with bytes: before a text, Node encodes the headers as it encodes that.
  if (!chunks)
    return void response.end(bare ? undefined : typeof body === 'string' ? Buffer.from(body) : (body ?? undefined));
  if (bare) {
    // Nobody will read it, and it may have no end.
    void chunks.return?.().catch(() => {});
    return void response.end();
  }
  response.write(NO_BYTES);
  // A client that leaves is told at once: the next chunk, by which it would be noticed, may never come.
  response.once('close', () => void chunks.return?.().catch(() => {}));
  try {
    for await (const chunk of { [Symbol.asyncIterator]: () => chunks }) {
      if (response.destroyed) break;
      if (!response.write(chunk)) await drained(response);
    }
    response.end();
  } catch {
    breakOff(response);
  }
}

/**
 * Of an answer that has begun all that can be said is that it is not whole: its connection ends without the end of its
 * body. What was written before is sent first: Node holds it back until the next tick.
 */
function breakOff(response: ServerResponse): void {
  process.nextTick(() => {
    if (response.socket) response.socket.destroySoon();
    else response.destroy();
  });
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const tell = () => {
      response.off('drain', tell);
      response.off('close', tell);
      resolve();
    };
    response.on('drain', tell);
    response.on('close', tell);
  });
}

/** An error as an answer, with `more` headers. */
export const errorAnswer = (error: MeshError, more: FlatHeaders = []): Answer => [
  error.status,
  ['content-type', 'application/json', ...more],
  JSON.stringify({ status: 'error', error: toWire(error) }),
];

/** Answers with an error, or cuts an answer that has begun. */
export function writeError(to: Answering, error: MeshError, more: FlatHeaders = []): void {
  const begun = to instanceof Direct ? to.begun : to;
  if (begun?.headersSent || begun?.destroyed) return void begun.destroy();
  void writeAnswer(to, errorAnswer(error, more));
}
