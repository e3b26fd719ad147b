/**
 * The SDK's powers in a browser: HTTP by `fetch`, and workers over the core's relay by WebSocket. There is no TCP there,
 * so no direct route, and no TLS keyed by a ticket.
 */
import { BadInput, ConnectionLost, fromWire, type MeshError } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { type FrameTransport, WEBSOCKET_PROTOCOL, type WebSocketLike, webSocketTransport } from '@hauki/rpc/client';
import type { Powers } from './powers.ts';

export const powers: Powers = {
  async http(method, url, headers, body, timeout_ms) {
    const signal = AbortSignal.timeout(timeout_ms);
    const answer = await fetch(url, { method, headers, body: body ?? null, signal, redirect: 'error' });
    return { status: answer.status, body: await answer.json() };
  },

  defaults: () => ({ core: globalThis.location?.origin ?? 'http://127.0.0.1:8000' }),

  direct: false,

  async dial(core, _ticket, { routes: { direct, relay } }, routing) {
    if (routing === 'p2p_only') throw new ConnectionLost({ why: 'a browser has no direct route' });
    if (direct.tls)
      throw new BadInput({
        what: 'the worker',
        why: 'its node asks for TLS by the ticket, which browsers cannot do: use one on loopback or a VPN',
      });
    const url = new URL(relay.path, core.base.replace(/^http/, 'ws'));
    return { link: await dial(url, core.token, LIMITS.handshake_ms), route: 'relay' };
  },

  bundle: async () => {
    throw new BadInput({ what: 'file', why: 'a browser cannot bundle: give a pointer or the source' });
  },
  onIdle: () => () => {},
};

/** The token goes in the first message, because a browser's WebSocket sends no header and a URL is no place for it. */
function dial(url: URL, token: string, timeout_ms: number): Promise<FrameTransport> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, WEBSOCKET_PROTOCOL);
    const fail = (why: string) => refuse(new ConnectionLost({ why }));
    const refuse = (error: MeshError<any>) => {
      clearTimeout(timer);
      reject(error);
      socket.close();
    };
    const timer = setTimeout(() => fail(`the core's relay did not answer within ${timeout_ms} ms`), timeout_ms);
    socket.onopen = () => socket.send(JSON.stringify({ token }));
    socket.onclose = ({ code }) => fail(`the core's relay closed the connection (${code})`);
    socket.onmessage = ({ data }) => {
      try {
        const { status, error } = JSON.parse(data);
        if (status !== 'success') return refuse(fromWire(error));
      } catch {
        return fail('whoever answers is no core');
      }
      clearTimeout(timer);
      socket.onclose = socket.onmessage = null;
      resolve(webSocketTransport(socket as unknown as WebSocketLike));
    };
  });
}
