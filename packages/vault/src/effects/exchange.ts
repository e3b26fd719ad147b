/** One HTTP request and its answer, over a connection of its own to the addresses that were checked. */
import { type IncomingMessage, type RequestOptions, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { isIP } from 'node:net';
import { finished, PassThrough, pipeline, type Readable, type Transform } from 'node:stream';
import {
  constants,
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createInflateRaw,
  createZstdDecompress,
} from 'node:zlib';
import { pour } from './bytes.ts';
import type { Route } from './network.ts';

export interface Exchange {
  url: URL;
  route: Route;
  method: string;
  headers: readonly (readonly [string, string])[];
  /** Bytes are sent with their length, pieces as they come; `leave` is called when no more of them is wanted. */
  body: Uint8Array | { pieces: AsyncIterable<Uint8Array>; leave(): void } | undefined;
  signal: AbortSignal;
}

/** Sends the request; resolves with the answer's head. Rejects as `node:http` does, or as the body's pieces do. */
export function exchange({ url, route, method, headers, body, signal }: Exchange): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const secure = url.protocol === 'https:';
  const options: RequestOptions & { servername?: string } = {
    method,
    host: route.host,
    port: route.port,
    path: `${url.pathname}${url.search}`,
    lookup: route.lookup,
    // A connection that stayed open would outlive the check of its address, and perhaps the vault.
    agent: false,
    signal,
    ...(secure && isIP(route.host) === 0 ? { servername: route.host } : {}),
  };
  const request = (secure ? requestHttps : requestHttp)(options);
  request.on('error', reject);
  request.on('response', resolve);
  // Nobody speaks what it would change to; and whatever else happens, whoever waits hears of the end.
  request.on('upgrade', (_answer, socket) => {
    reject(new Error('the server changes to another protocol'));
    socket.destroy();
  });
  request.on('close', () => reject(new Error('the connection ended without an answer')));
  try {
    for (const [name, value] of headers) request.appendHeader(name, value);
    // Said here for every method: Node says nothing of the body of a DELETE or OPTIONS, so that a server would take it for
    // further requests, which nobody has granted.
    if (body instanceof Uint8Array) request.setHeader('Content-Length', body.length);
    else if (body !== undefined) request.setHeader('Transfer-Encoding', 'chunked');
  } catch (error) {
    reject(error);
    request.destroy();
    return promise;
  }
  if (body === undefined || body instanceof Uint8Array) request.end(body);
  else
    pour(body.pieces, request, body.leave).catch((error) => {
      reject(error);
      request.destroy();
    });
  return promise;
}

/** What the standard of this coding lets servers expect (RFC 9659); Node would take 128 MiB for one answer. */
const ZSTD = { params: { [constants.ZSTD_d_windowLogMax]: 23 } };
/** By what a body begins with: `deflate` is called what zlib wraps, and by some servers what it does not. */
const DECODERS: Record<string, (first: number) => Transform> = {
  gzip: () => createGunzip(),
  'x-gzip': () => createGunzip(),
  deflate: (first) => ((first & 0x0f) === 8 ? createInflate() : createInflateRaw()),
  br: () => createBrotliDecompress(),
  zstd: () => createZstdDecompress(ZSTD),
};
export const ACCEPT_ENCODING = 'gzip, deflate, br, zstd';
/** One is more than most use, and each takes memory. */
const CODINGS = 2;

/** An answer's body without its content codings; piece by piece, so that one that swells takes no memory. */
export function decoded(answer: IncomingMessage, method: string): Readable {
  // Its head tells how a body would be packed that does not come.
  if (method === 'HEAD') return answer;
  const codings = (answer.headers['content-encoding'] ?? '').split(',').map((name) => name.trim().toLowerCase());
  let body: Readable = answer;
  for (const coding of codings.slice(-CODINGS).reverse()) {
    const decoder = Object.hasOwn(DECODERS, coding) ? DECODERS[coding]! : undefined;
    if (!decoder) break;
    body = unpacked(body, decoder);
  }
  return body;
}

/** Unpacks from the first byte on: where none comes, as with many an answer that has no body, nothing is packed. */
function unpacked(body: Readable, decoder: (first: number) => Transform): Readable {
  const out = new PassThrough();
  const begin = () => {
    const first: Buffer | null = body.read();
    if (!first) return;
    stopWaiting();
    body.unshift(first);
    // The one that is read tells of failures.
    pipeline(body, decoder(first[0]!), out, () => {});
  };
  const stopWaiting = () => {
    body.off('readable', begin);
    unfinished();
  };
  const unfinished = finished(body, (error) => (error ? out.destroy(error) : out.end()));
  out.once('close', () => body.destroy());
  body.on('readable', begin);
  return out;
}
