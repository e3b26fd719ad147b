/**
 * The gate: every connection to a worker comes through here and gets no further without redeeming a ticket. It tells by
 * the first byte what a connection speaks, lets a bounded number wait for a bounded time, and hands what is redeemed to
 * the guest. The handshake is the same two JSON-RPC calls, `rpc.hello` and `rpc.redeem`, in every speech.
 */
import type { Server, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { describe, LIMITS, NoSuchMethod, type TicketRole, toWire, Unauthorised } from '@hauki/protocol';
import { type Hello, type Redeemed, type Redemption, randomText } from '@hauki/rpc';
import { securedServerStream, serveLines, sniff, streamTransport } from '@hauki/rpc/node';
import type { Inside } from './guest.ts';
import type { Redeemer } from './redeemer.ts';

export interface GateOptions {
  server: Server;
  worker: string;
  redeemer: Redeemer;
  inside: Inside;
  methods: () => string[];
  /** Refuse connections that do not come in TLS. */
  tls: boolean;
}

export function openGate(options: GateOptions): void {
  const { server, worker, redeemer, inside, methods } = options;
  let connections = 0;
  /** Those that have not redeemed a ticket, the oldest first: strangers make room for strangers, never for guests. */
  const strangers = new Set<Socket>();

  /** The two calls before redemption. Gives the role once, when redeemed. */
  const handshake = () => {
    const nonce = randomText(16);
    let busy = false;
    return async (method: string, params: unknown): Promise<{ answer: Hello | Redeemed; role?: TicketRole }> => {
      if (method === 'rpc.hello') return { answer: { nonce } };
      if (method !== 'rpc.redeem') throw new Unauthorised({ why: 'Redeem a ticket first: rpc.hello, then rpc.redeem' });
      if (busy) throw new Unauthorised({ why: 'One redemption at a time' });
      busy = true;
      try {
        const redemption = (Array.isArray(params) ? params[0] : params) as Redemption;
        const { role, proof } = await redeemer.redeem(redemption, nonce);
        return { answer: { worker, proof, methods: methods() }, role };
      } finally {
        busy = false;
      }
    };
  };

  const frames = (stream: Duplex, admitted: () => void) => {
    let role: TicketRole | undefined;
    const transport = streamTransport(stream, () => (role ? LIMITS.message_bytes : LIMITS.handshake_bytes));
    const step = handshake();
    const receive = async (text: string) => {
      if (!role && transport.carried_bytes > LIMITS.handshake_bytes)
        return transport.close('too much before redemption');
      let id: unknown = null;
      try {
        const request = JSON.parse(text);
        id = request.id ?? null;
        const { answer, role: given } = await step(String(request.method), request.params);
        transport.send(JSON.stringify({ jsonrpc: '2.0', id, result: answer }));
        if (!given) return;
        role = given;
        admitted();
        inside.open(transport, given);
      } catch (error) {
        transport.send(JSON.stringify({ jsonrpc: '2.0', id, error: toWire(error) }));
        if (!(error instanceof NoSuchMethod)) transport.close(describe(error));
      }
    };
    transport.start({ message: (text) => void receive(text), close: () => {} });
  };

  const lines = (stream: Duplex, admitted: () => void) => {
    let role: TicketRole | undefined;
    const step = handshake();
    const call = async (method: string, params: unknown) => {
      if (role) return inside.call(method, params, role);
      const { answer, role: given } = await step(method, params);
      if (given) {
        role = given;
        admitted();
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

  const accept = async (stream: Duplex, encrypted: boolean, admitted: () => void): Promise<void> => {
    const speech = await sniff(stream, LIMITS.handshake_ms);
    if (speech === 'tls' && !encrypted) {
      const inner = await securedServerStream(stream as Socket, (jti) => redeemer.pskOf(jti));
      inner.on('error', () => stream.destroy());
      return accept(inner, true, admitted);
    }
    if (options.tls && !encrypted) stream.destroy();
    else if (speech === 'frames') frames(stream, admitted);
    else if (speech === 'lines') lines(stream, admitted);
    else if (speech === 'http') http(stream);
    else stream.destroy();
  };

  server.on('connection', (socket: Socket) => {
    socket.on('error', () => socket.destroy());
    if (connections >= LIMITS.connections) return socket.destroy();
    connections++;
    strangers.add(socket);
    if (strangers.size > LIMITS.strangers)
      for (const oldest of strangers) {
        oldest.destroy();
        break;
      }
    socket.setNoDelay(true);
    const timer = setTimeout(() => socket.destroy(), LIMITS.handshake_ms);
    socket.on('close', () => {
      connections--;
      strangers.delete(socket);
      clearTimeout(timer);
    });
    const admitted = () => {
      clearTimeout(timer);
      strangers.delete(socket);
    };
    accept(socket, false, admitted).catch(() => socket.destroy());
  });
}
