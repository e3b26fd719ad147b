/**
 * Mesh-RPC by itself, without a mesh: one process offers an object, another dials it and calls its methods.
 *
 *     const listener = await listen(new Calculator());               // tcp://127.0.0.1:40123
 *     await using calculator = await dial<Calculator>(listener.url); // a ghost
 *     await calculator.add(1, 2);
 *
 * Made for links that both sides trust: nothing is encrypted, and a cut ends the session. So only loopback is listened
 * on and dialled unless `allow_remote` says otherwise, and then both sides need a `secret`, which each proves to the
 * other before anything else is said. Across networks of others use a mesh: its tickets bring TLS, leases and resume.
 */
import { once } from 'node:events';
import { connect, createServer, isIP, type Socket } from 'node:net';
import {
  BadInput,
  ConnectionLost,
  DeadlineExceeded,
  describe,
  LIMITS,
  NoSuchMethod,
  ProtocolViolation,
  Unauthorised,
} from '@hauki/protocol';
import { type Ghost, ghost, sourceOf } from './ghost.ts';
import { mac, macHolds, randomText, sessionKey, toBase64url, transcript } from './handshake.ts';
import { isClass } from './lineage.ts';
import { disposeOf, methodsOf } from './methods.ts';
import { type Dispatch, Session } from './session.ts';
import type { FrameTransport } from './transport.ts';
import { askIfSilent } from './transports/silent-peer.ts';
import { bufferUtf8, streamTransport } from './transports/stream.ts';
import { WEBSOCKET_PROTOCOL, type WebSocketLike, webSocketTransport } from './transports/websocket.ts';
import { serveWebSocket } from './transports/websocket-server.ts';
import { encode } from './values.ts';

/** A shorter secret could be guessed from a proof. */
const SECRET_CHARS = 16;
/** Stands in transcripts where a ticket's id would. */
const LINK = 'link';

interface Proof {
  nonce: string;
  proof: string;
}

interface LinkOptions {
  /** What both sides must know, at least 16 characters; needed with `allow_remote`. It is never sent. */
  secret?: string;
  /** Allows hosts other than loopback. What is sent there can be read on the way. */
  allow_remote?: boolean;
}

export interface ListenOptions extends LinkOptions {
  /** 127.0.0.1 when left out. */
  host?: string;
  /** 0, or left out: a free one. */
  port?: number;
  /** Speaks WebSocket instead of plain TCP. */
  websocket?: boolean;
  /** Origins whose pages may connect by WebSocket, such as `https://example.org`. Others may not. */
  origins?: readonly string[];
}

export interface DialOptions extends LinkOptions {
  /** For connecting, both proofs included; 10 seconds when left out. */
  timeout_ms?: number;
}

export interface Listener extends AsyncDisposable {
  /** `tcp://host:port` or `ws://host:port`, as `dial` takes it. */
  readonly url: string;
  /** The sessions that are open now. */
  readonly sessions: ReadonlySet<Session>;
  /** Ends all sessions and stops listening. */
  close(): Promise<void>;
}

/**
 * Serves an object's methods (`methodsOf`; names with `_` are private) to whoever dials. With a function every session
 * gets the object that it returns, which is disposed of at the session's end where it can be. Rejects with BadInput, or
 * with the platform's error when the port cannot be had.
 */
export async function listen(offer: object | (() => object), options: ListenOptions = {}): Promise<Listener> {
  const { host = '127.0.0.1', port = 0, websocket = false, origins } = options;
  if (Object(offer) !== offer || isClass(offer))
    throw new BadInput({ what: 'listen()', why: 'it takes an object or a function that makes one' });
  // Any other text would be the path of a Unix socket.
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new BadInput({ what: 'the port', why: `${JSON.stringify(port)} is no whole number from 0 to 65535` });
  const key = await linkKey(options, host);
  const links = new Set<FrameTransport>();
  const sessions = new Set<Session>();
  /** Connections that have proved the secret; before that they may not say much. */
  const known = new WeakSet<object>();
  const limit = (connection: object) => (known.has(connection) ? LIMITS.message_bytes : LIMITS.handshake_bytes);

  const welcome = async (link: FrameTransport, connection: object) => {
    if (links.size >= LIMITS.connections) return link.close('too many connections');
    links.add(link);
    try {
      await admit(link, key, () => known.add(connection));
      const own = typeof offer === 'function';
      const root = own ? (offer as () => object)() : offer;
      const session = new Session({ transport: link, dispatch: dispatchOf(root) });
      sessions.add(session);
      await session.closed;
      sessions.delete(session);
      if (own) await disposeOf(root);
    } catch (error) {
      link.close(describe(error));
    } finally {
      links.delete(link);
    }
  };

  const open = websocket ? serveWebSocket : serveTcp;
  const server = await open({ host, port, ...(origins && { origins }), limit }, (link, connection) => {
    void welcome(link, connection);
  });
  const close = async () => {
    for (const link of links) link.close('the listener was closed');
    await server.close();
  };
  return { url: server.url, sessions, close, [Symbol.asyncDispose]: close };
}

/**
 * Dials a listener and gives a ghost of its object; disposing of the ghost ends the session. `url` is `tcp://host:port`
 * or `ws://host:port`. Rejects with BadInput, ConnectionLost, DeadlineExceeded, Unauthorised, or with ProtocolViolation
 * when whoever listens does not prove the secret.
 */
export async function dial<T>(url: string, options: DialOptions = {}): Promise<Ghost<T>> {
  const { timeout_ms = LIMITS.handshake_ms } = options;
  const { protocol, hostname, port } = URL.parse(url) ?? {};
  if ((protocol !== 'tcp:' && protocol !== 'ws:') || !hostname || (protocol === 'tcp:' && !port))
    throw new BadInput({ what: `the address ${url}`, why: 'it looks like tcp://host:port or ws://host:port' });
  const host = hostname.replace(/^\[|\]$/g, '');
  const key = await linkKey(options, host);
  const link =
    protocol === 'tcp:' ? await dialTcp(host, Number(port), timeout_ms) : await dialWebSocket(url, timeout_ms);
  try {
    await introduce(link, key, timeout_ms);
  } catch (error) {
    link.close();
    throw error;
  }
  const session = new Session({ transport: link });
  const made = ghost<T>({
    label: url,
    call: (method, args, call_options) => session.call(method, args, call_options),
    async dispose() {
      session.close();
      await session.closed;
    },
  });
  dialled.set(sourceOf(made)!, session);
  return made;
}

const dialled = new WeakMap<object, Session>();

/** The session behind a ghost that `dial` gave: its statistics, its end. Undefined for anything else. */
export function sessionOf(thing: object): Session | undefined {
  const source = sourceOf(thing);
  return source && dialled.get(source);
}

// ---- What is served

function dispatchOf(root: object): Dispatch {
  const methods = methodsOf(root);
  return (method, params) => {
    const found = methods.get(method);
    if (!found) throw new NoSuchMethod({ method, has: [...methods.keys()] });
    return Reflect.apply(found, root, Array.isArray(params) ? params : [params]);
  };
}

// ---- The secret: a MAC over both nonces, labelled by side, as tickets are proved. Who dials proves first.

const isLoopback = (host: string) =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));

/** The key of the secret, where there is one. Throws BadInput for a host that may not be used. */
async function linkKey({ secret, allow_remote = false }: LinkOptions, host: string): Promise<string | undefined> {
  const what = `the host ${host}`;
  if (!isLoopback(host) && !allow_remote)
    throw new BadInput({ what, why: 'only loopback is used, unless you say allow_remote: true' });
  if (!isLoopback(host) && secret === undefined)
    throw new BadInput({ what, why: 'beyond loopback both sides need the same secret' });
  if (secret === undefined) return undefined;
  if (secret.length < SECRET_CHARS)
    throw new BadInput({ what: 'the secret', why: `it has fewer than ${SECRET_CHARS} characters` });
  return sessionKey(toBase64url(new TextEncoder().encode(secret)), LINK);
}

/** The listener's side: resolves when the session may begin. The first message must be `rpc.hello`. */
async function admit(link: FrameTransport, key: string | undefined, proven: () => void): Promise<void> {
  const nonce = randomText(16);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  /** One attempt; its answer leaves before the connection is closed. */
  const refuse = (why: string): never => {
    const error = new Unauthorised({ why });
    setImmediate(reject, error);
    throw error;
  };
  let greeted = false;
  const shaking = new Session({
    transport: link,
    literal: encode,
    async dispatch(method, params) {
      if (method === 'rpc.hello' && !greeted) {
        greeted = true;
        if (key !== undefined) return { nonce };
        proven();
        resolve();
        return {};
      }
      if (key === undefined || !greeted || method !== 'rpc.prove') return refuse('a session begins with rpc.hello');
      // One proof for one nonce.
      greeted = false;
      const given = (Array.isArray(params) ? params[0] : undefined) as Partial<Proof> | undefined;
      const theirs = String(given?.nonce);
      if (!(await macHolds(key, transcript('caller', LINK, nonce, theirs), given?.proof)))
        return refuse('the secret is another here');
      const proof = await mac(key, transcript('worker', LINK, nonce, theirs));
      proven();
      resolve();
      return { proof };
    },
  });
  const late = new DeadlineExceeded({ what: 'rpc.hello', timeout_ms: LIMITS.handshake_ms, may_have_run: false });
  const timer = setTimeout(reject, LIMITS.handshake_ms, late);
  void shaking.closed.then((why) => reject(new ConnectionLost({ why })));
  return promise.finally(() => clearTimeout(timer));
}

/** The other side of `admit`. */
async function introduce(link: FrameTransport, key: string | undefined, timeout_ms: number): Promise<void> {
  const shaking = new Session({ transport: link, literal: encode, timeout_ms });
  const hello = (await shaking.call('rpc.hello')) as { nonce?: unknown } | null;
  const theirs = hello?.nonce;
  if (key === undefined) {
    if (theirs === undefined) return;
    throw new Unauthorised({ why: 'Whoever listens wants a secret: dial(url, { secret })' });
  }
  if (typeof theirs !== 'string') throw new Unauthorised({ why: 'Whoever listens has no secret' });
  const nonce = randomText(16);
  const said: Proof = { nonce, proof: await mac(key, transcript('caller', LINK, theirs, nonce)) };
  const answer = (await shaking.call('rpc.prove', [said])) as Partial<Proof> | null;
  if (!(await macHolds(key, transcript('worker', LINK, theirs, nonce), answer?.proof)))
    throw new ProtocolViolation({ why: 'whoever listens does not know the secret' });
}

// ---- Connections

async function serveTcp(
  { host, port, limit }: { host: string; port: number; limit: (connection: object) => number },
  serve: (link: FrameTransport, connection: object) => void,
): Promise<{ url: string; close(): Promise<void> }> {
  const open = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    askIfSilent(socket);
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    serve(
      streamTransport(socket, () => limit(socket)),
      socket,
    );
  });
  server.listen(port, host);
  await once(server, 'listening');
  const { port: taken } = server.address() as { port: number };
  return {
    url: `tcp://${host.includes(':') ? `[${host}]` : host}:${taken}`,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      // What was said last has left by the next turn.
      setImmediate(() => {
        for (const socket of open) socket.destroy();
      });
      await closed;
    },
  };
}

/** A connection to a worker or a listener on `host:port`. Rejects with ConnectionLost. */
export async function dialTcp(host: string, port: number, timeout_ms: number): Promise<FrameTransport> {
  const socket = connect({ host, port, noDelay: true });
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(timeout_ms) });
  } catch (error) {
    socket.destroy();
    throw new ConnectionLost({ why: describe(error) });
  }
  askIfSilent(socket);
  return streamTransport(socket);
}

async function dialWebSocket(url: string, timeout_ms: number): Promise<FrameTransport> {
  const { WebSocket } = await import('ws');
  const socket = new WebSocket(url, WEBSOCKET_PROTOCOL, {
    perMessageDeflate: false,
    maxPayload: LIMITS.websocket_bytes,
    handshakeTimeout: timeout_ms,
  });
  try {
    await once(socket, 'open');
  } catch (error) {
    throw new ConnectionLost({ why: describe(error) });
  }
  return webSocketTransport(socket as unknown as WebSocketLike, undefined, undefined, bufferUtf8);
}
