/**
 * The gate: every connection to a worker comes through here and gets no further without redeeming a ticket. It tells by
 * the first byte what a connection speaks, lets a bounded number wait for a bounded time, and hands what is redeemed to
 * the guest. The handshake is the same two JSON-RPC calls, `rpc.hello` and `rpc.redeem`, in every speech.
 *
 * What always holds: whoever redeems has a place, for as long as its session, or as its connection where that is literal;
 * visitors' places are shared, so that nobody takes them all; of connections that carry nobody who has a place, yet or any
 * more, a bounded number is kept.
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
  type Channel,
  type FrameTransport,
  type Hello,
  type Redeemed,
  type Redemption,
  type Resumed,
  type Resumption,
  randomText,
} from '@hauki/rpc';
import { askIfSilent, Shares, securedServerStream, serveLines, sniff, streamTransport } from '@hauki/rpc/node';
import type { Inside } from './guest.ts';
import type { Redeemer } from './redeemer.ts';
import { CallerSessions, type Carrier } from './sessions.ts';

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

interface Step {
  answer: Hello | Redeemed | Resumed;
  redeemed?: {
    ticket: ExpectedTicket;
    /** How long its owner's lease is. */
    lease_ms: number;
    /** Gives its place back. */
    leave(): void;
  };
  go?(link: FrameTransport, carrier: Carrier): void;
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
  /** Places that are taken, visitors' among them. */
  let taken = 0;
  const visitors = new Shares('visitors of this worker', LIMITS.visitors);
  /** Those that have not redeemed a ticket, the oldest first: strangers make room for strangers, never for guests. */
  const strangers = new Set<Socket>();
  /** Those whose session goes on over another, or is over: they are being closed. */
  const leaving = new Set<Socket>();

  const sessions = new CallerSessions();

  /** Takes a place; the result gives it back. Throws Overloaded. */
  const place = ({ role, by }: ExpectedTicket): (() => void) => {
    if (taken >= LIMITS.connections)
      throw new Overloaded({ what: 'connections to this worker', limit: LIMITS.connections });
    const giveBack = role === 'visitor' ? visitorsPlace(by) : () => {};
    taken++;
    return () => {
      taken--;
      giveBack();
    };
  };

  const visitorsPlace = (by: string | undefined): (() => void) => {
    for (;;)
      try {
        return visitors.take(by);
      } catch (error) {
        // Who may never come back makes room for one of its own who is there.
        if (!sessions.makeRoom(by)) throw error;
      }
  };

  /** The calls before a connection is let in. Gives the ticket once, when redeemed, or what goes on, when resumed. */
  const handshake = (stream: Duplex) => {
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
        if (method === 'rpc.resume') return await sessions.resume(given as Resumption, nonce);
        const loaded = await methods();
        // Who did not wait for that burns no ticket.
        if (stream.destroyed) throw new ConnectionLost({ why: 'its connection ended' });
        let leave = () => {};
        const { ticket, proof, lease_ms } = await redeemer.redeem(given as Redemption, nonce, (ticket) => {
          leave = place(ticket);
        });
        return { answer: { worker, proof, methods: loaded }, redeemed: { ticket, lease_ms, leave } };
      } finally {
        busy = false;
      }
    };
  };

  const frames = (stream: Duplex, carrier: Carrier, stay: (leave: () => void) => void) => {
    let ticket: ExpectedTicket | undefined;
    let inside_limit = false;
    const link = streamTransport(stream, () => (inside_limit ? LIMITS.message_bytes : LIMITS.handshake_bytes));
    const step = handshake(stream);
    const answer = (id: unknown, member: 'result' | 'error', value: object) =>
      link.send(JSON.stringify({ jsonrpc: '2.0', id, [member]: value }));
    const receive = async (text: string) => {
      if (!inside_limit && link.carried_bytes > LIMITS.handshake_bytes) return link.close('too much before redemption');
      let id: unknown = null;
      try {
        const request = requestOf(text);
        id = request.id ?? null;
        const { answer: said, redeemed, go } = await step(String(request.method), request.params);
        if (redeemed) {
          const { role, jti } = redeemed.ticket;
          const begin = (channel: Channel) => inside.open(channel, role, true, jti);
          sessions.keep(redeemed.ticket, redeemed.lease_ms, begin, carrier, redeemed.leave);
        }
        if (go || redeemed) inside_limit = true;
        answer(id, 'result', said);
        if (go) return go(link, carrier);
        ticket = redeemed?.ticket;
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
        if (received !== undefined) return sessions.open(ticket.jti, link, carrier, received);
        stay(sessions.forget(ticket.jti));
        inside.open(withFirst(link, text, bytes), ticket.role, false, ticket.jti);
      },
      close: () => {},
    });
  };

  const lines = (stream: Duplex, carrier: Carrier, stay: (leave: () => void) => void) => {
    let role: TicketRole | undefined;
    const step = handshake(stream);
    const call = async (method: string, params: unknown) => {
      if (role) return inside.call(method, params, role);
      if (method === 'rpc.resume') throw new Unauthorised({ why: 'JSON lines cannot resume a session' });
      const { answer, redeemed } = await step(method, params);
      if (redeemed) {
        sessions.forget(redeemed.ticket.jti);
        carrier.taken();
        stay(redeemed.leave);
        role = redeemed.ticket.role;
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

  const accept = async (
    stream: Duplex,
    encrypted: boolean,
    carrier: Carrier,
    stay: (leave: () => void) => void,
  ): Promise<void> => {
    const speech = await sniff(stream, LIMITS.handshake_ms);
    if (speech === 'tls' && !encrypted) {
      const inner = await securedServerStream(stream as Socket, (jti) => redeemer.pskOf(jti) ?? sessions.keyOf(jti));
      inner.on('error', () => stream.destroy());
      return accept(inner, true, carrier, stay);
    }
    if (options.tls && !encrypted) stream.destroy();
    else if (speech === 'frames') frames(stream, carrier, stay);
    else if (speech === 'lines') lines(stream, carrier, stay);
    else if (speech === 'http') http(stream);
    else stream.destroy();
  };

  const addTo = (some: Set<Socket>, socket: Socket) => {
    some.add(socket);
    if (some.size > LIMITS.strangers)
      for (const oldest of some) {
        // It closes later: the next one must not find it again.
        some.delete(oldest);
        oldest.destroy();
        break;
      }
  };

  const enter = (socket: Socket) => {
    socket.on('error', () => socket.destroy());
    addTo(strangers, socket);
    socket.setNoDelay(true);
    askIfSilent(socket);
    const timer = setTimeout(() => socket.destroy(), LIMITS.handshake_ms);
    socket.on('close', () => {
      strangers.delete(socket);
      leaving.delete(socket);
      clearTimeout(timer);
    });
    const carrier: Carrier = {
      peer: `${socket.remoteAddress?.replace('::ffff:', '')}:${socket.remotePort}`,
      get gone() {
        return socket.destroyed;
      },
      taken() {
        clearTimeout(timer);
        strangers.delete(socket);
      },
      left() {
        if (!socket.destroyed) addTo(leaving, socket);
      },
    };
    const stay = (leave: () => void) => {
      if (socket.closed) leave();
      else socket.once('close', leave);
    };
    accept(socket, false, carrier, stay).catch(() => socket.destroy());
  };
  server.on('connection', enter);
  for (const socket of options.early ?? []) enter(socket);
  return sessions;
}
