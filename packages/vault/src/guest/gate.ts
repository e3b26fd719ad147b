/**
 * The gate: every connection to a worker comes through here and gets no further without redeeming a ticket. It tells by
 * the first byte what a connection speaks, lets a bounded number wait for a bounded time, and hands what is redeemed to
 * the guest. The handshake is the same two JSON-RPC calls, `rpc.hello` and `rpc.redeem`, in every speech.
 */
import type { Server, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  ConnectionLost,
  describe,
  type ExpectedTicket,
  InvalidRequest,
  LIMITS,
  NoSuchMethod,
  Overloaded,
  ParseError,
  type TicketRole,
  toWire,
  Unauthorised,
} from '@hauki/protocol';
import {
  type FrameTransport,
  type Hello,
  type Redeemed,
  type Redemption,
  type Resumed,
  type Resumption,
  randomText,
} from '@hauki/rpc';
import { askIfSilent, securedServerStream, serveLines, sniff, streamTransport } from '@hauki/rpc/node';
import type { Inside } from './guest.ts';
import type { Redeemer } from './redeemer.ts';
import { CallerSessions } from './sessions.ts';

export interface GateOptions {
  server: Server;
  worker: string;
  redeemer: Redeemer;
  inside: Inside;
  /** What the worker has, once it is loaded: nobody is let in before. Rejects where it could not be. */
  methods: () => string[] | Promise<string[]>;
  /** Refuse connections that do not come in TLS. */
  tls: boolean;
  /** Connections that were there before the gate. */
  early?: Iterable<Socket>;
}

/** Lets a connection stay; throws Overloaded where there is no place for one of its kind. */
type Admit = (role: TicketRole, resumed: boolean) => void;

interface Step {
  answer: Hello | Redeemed | Resumed;
  ticket?: ExpectedTicket;
  /** With a ticket: how long its owner's lease is. */
  lease_ms?: number;
  go?(link: FrameTransport, peer: string): void;
}

/**
 * How many of the worker's messages a caller has already who asks for a session with whole values, references and resume;
 * undefined for any other message.
 */
function opening(text: string): number | undefined {
  if (!text.includes('"rpc.open"')) return undefined;
  const { id, method, params } = JSON.parse(text);
  if (method !== 'rpc.open' || id !== undefined) return undefined;
  return params?.[0]?.received ?? 0;
}

/** A transport whose first message has been heard already. */
function withFirst(link: FrameTransport, text: string, bytes: Uint8Array | undefined): FrameTransport {
  const { start } = link;
  link.start = (events) => {
    link.start = start;
    events.message(text, bytes);
    start.call(link, events);
  };
  return link;
}

/** A stranger's call. Throws ParseError and InvalidRequest. */
function requestOf(text: string): { id?: unknown; method?: unknown; params?: unknown } {
  let request: unknown;
  try {
    request = JSON.parse(text);
  } catch (error) {
    throw new ParseError({ why: describe(error) });
  }
  if (typeof request === 'object' && request !== null) return request;
  throw new InvalidRequest({ why: 'a request is an object' });
}

/** Gives the sessions that have been opened through it. */
export function openGate(options: GateOptions): CallerSessions {
  const { server, worker, redeemer, inside, methods } = options;
  /** Those that are let in, and how many of them are visitors'. */
  let connections = 0;
  let visitors = 0;
  /** Those that have not redeemed a ticket, the oldest first: strangers make room for strangers, never for guests. */
  const strangers = new Set<Socket>();

  const sessions = new CallerSessions();

  /** The calls before a connection is let in. Gives the ticket once, when redeemed, or what goes on, when resumed. */
  const handshake = (stream: Duplex, admit: Admit) => {
    const nonce = randomText(16);
    let busy = false;
    return async (method: string, params: unknown): Promise<Step> => {
      if (method === 'rpc.hello') return { answer: { nonce } };
      if (method !== 'rpc.redeem' && method !== 'rpc.resume')
        throw new Unauthorised({ why: 'Redeem a ticket first: rpc.hello, then rpc.redeem' });
      if (busy) throw new Unauthorised({ why: 'One redemption at a time' });
      busy = true;
      try {
        const given = Array.isArray(params) ? params[0] : params;
        if (method === 'rpc.resume') {
          const going_on = await sessions.resume(given as Resumption, nonce);
          admit(going_on.resumed, true);
          return going_on;
        }
        const loaded = await methods();
        // Who did not wait for that burns no ticket.
        if (stream.destroyed) throw new ConnectionLost({ why: 'its connection ended' });
        const { ticket, proof, lease_ms } = await redeemer.redeem(given as Redemption, nonce, (role) =>
          admit(role, false),
        );
        return { answer: { worker, proof, methods: loaded }, ticket, lease_ms };
      } finally {
        busy = false;
      }
    };
  };

  const frames = (stream: Duplex, peer: string, admit: Admit) => {
    let ticket: ExpectedTicket | undefined;
    let inside_limit = false;
    const link = streamTransport(stream, () => (inside_limit ? LIMITS.message_bytes : LIMITS.handshake_bytes));
    const step = handshake(stream, admit);
    const answer = (id: unknown, member: 'result' | 'error', value: object) =>
      link.send(JSON.stringify({ jsonrpc: '2.0', id, [member]: value }));
    const receive = async (text: string) => {
      if (!inside_limit && link.carried_bytes > LIMITS.handshake_bytes) return link.close('too much before redemption');
      let id: unknown = null;
      try {
        const request = requestOf(text);
        id = request.id ?? null;
        const done = await step(String(request.method), request.params);
        if (done.go || done.ticket) inside_limit = true;
        answer(id, 'result', done.answer);
        if (done.go) return done.go(link, peer);
        if (!done.ticket) return;
        const { role, jti } = done.ticket;
        sessions.keep(done.ticket, done.lease_ms!, (channel) => inside.open(channel, role, true, jti));
        ticket = done.ticket;
      } catch (error) {
        answer(id, 'error', toWire(error));
        if (!(error instanceof NoSuchMethod)) link.close(describe(error));
      }
    };
    link.start({
      message(text, bytes) {
        if (!ticket) return bytes ? link.close('tagged values before redemption') : void receive(text);
        // The first message after redemption decides: a whole session, or literal JSON for as long as this connection.
        const received = bytes ? undefined : opening(text);
        if (received !== undefined) return sessions.open(ticket.jti, link, peer, received);
        sessions.forget(ticket.jti);
        inside.open(withFirst(link, text, bytes), ticket.role, false, ticket.jti);
      },
      close: () => {},
    });
  };

  const lines = (stream: Duplex, admit: Admit) => {
    let role: TicketRole | undefined;
    const step = handshake(stream, admit);
    const call = async (method: string, params: unknown) => {
      if (role) return inside.call(method, params, role);
      if (method === 'rpc.resume') throw new Unauthorised({ why: 'JSON lines cannot resume a session' });
      const { answer, ticket } = await step(method, params);
      if (ticket) {
        sessions.forget(ticket.jti);
        role = ticket.role;
      }
      return answer;
    };
    serveLines(stream, call, () => (role ? LIMITS.message_bytes : LIMITS.handshake_bytes));
  };

  const http = (stream: Duplex) => {
    const body = 'This port speaks Mesh-RPC. Over HTTP, POST to the relay: /api/v2/ephemeral/<worker> on the core.\n';
    // Read on, or the client's own end would never be noticed.
    stream.resume();
    stream.end(
      `HTTP/1.1 426 Upgrade Required\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
  };

  const accept = async (stream: Duplex, encrypted: boolean, peer: string, admit: Admit): Promise<void> => {
    const speech = await sniff(stream, LIMITS.handshake_ms);
    if (speech === 'tls' && !encrypted) {
      const inner = await securedServerStream(stream as Socket, (jti) => redeemer.pskOf(jti) ?? sessions.keyOf(jti));
      inner.on('error', () => stream.destroy());
      return accept(inner, true, peer, admit);
    }
    if (options.tls && !encrypted) stream.destroy();
    else if (speech === 'frames') frames(stream, peer, admit);
    else if (speech === 'lines') lines(stream, admit);
    else if (speech === 'http') http(stream);
    else stream.destroy();
  };

  const enter = (socket: Socket) => {
    socket.on('error', () => socket.destroy());
    strangers.add(socket);
    if (strangers.size > LIMITS.strangers)
      for (const oldest of strangers) {
        // It closes later: the next one must not find it again.
        strangers.delete(oldest);
        oldest.destroy();
        break;
      }
    socket.setNoDelay(true);
    askIfSilent(socket);
    const timer = setTimeout(() => socket.destroy(), LIMITS.handshake_ms);
    socket.on('close', () => {
      strangers.delete(socket);
      clearTimeout(timer);
    });
    const admit: Admit = (role, resumed) => {
      // Its session may go on over another connection.
      if (socket.destroyed) return;
      const is_visitor = role === 'visitor';
      // However many visitors there are, each kind has room left: who goes on with a session, and the owner.
      const rest = LIMITS.connections - LIMITS.visitors;
      const limit = LIMITS.visitors + (is_visitor ? (resumed ? rest / 2 : 0) : rest);
      if ((is_visitor ? visitors : connections) >= limit)
        throw new Overloaded({ what: 'connections to this worker', limit });
      connections++;
      if (is_visitor) visitors++;
      socket.on('close', () => {
        connections--;
        if (is_visitor) visitors--;
      });
      clearTimeout(timer);
      strangers.delete(socket);
    };
    const peer = `${socket.remoteAddress?.replace('::ffff:', '')}:${socket.remotePort}`;
    accept(socket, false, peer, admit).catch(() => socket.destroy());
  };
  server.on('connection', enter);
  for (const socket of options.early ?? []) enter(socket);
  return sessions;
}
