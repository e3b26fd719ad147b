/**
 * Byte streams through the core's one port: an HTTP/1.1 Upgrade (RFC 9110, section 7.8) to the protocol `hauki`, after
 * which the connection carries our frames. Authorised like any other request, by a bearer token.
 */
import { request } from 'node:http';
import { request as secureRequest } from 'node:https';
import type { Socket } from 'node:net';
import { type Duplex, pipeline } from 'node:stream';
import { ConnectionLost, fromWire, type MeshError } from '@hauki/protocol';
import { askIfSilent } from './silent-peer.ts';

export const UPGRADE_PROTOCOL = 'hauki';

/**
 * Dials `path` at `base` (http: or https:) and gives the raw stream. Rejects with what the core answered, or with
 * ConnectionLost when it cannot be reached within `timeout_ms`.
 */
export function dialUpgrade(base: string, path: string, token: string, timeout_ms: number): Promise<Socket> {
  const url = new URL(path, base);
  return new Promise((resolve, reject) => {
    const lost = (why: string) => reject(new ConnectionLost({ why }));
    const outgoing = (url.protocol === 'https:' ? secureRequest : request)(url, {
      headers: { connection: 'Upgrade', upgrade: UPGRADE_PROTOCOL, authorization: `Bearer ${token}` },
      // A connection of its own, which the caller then owns.
      agent: false,
      signal: AbortSignal.timeout(timeout_ms),
    });
    outgoing.once('upgrade', (_response, socket: Socket, head) => {
      socket.setNoDelay(true);
      socket.setTimeout(0);
      askIfSilent(socket);
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    outgoing.once('response', (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes <= 65536) chunks.push(chunk);
      });
      response.on('error', (error) => lost(error.message));
      response.on('end', () => reject(readRefusal(Buffer.concat(chunks).toString(), response.statusCode ?? 0)));
    });
    outgoing.once('error', (error: NodeJS.ErrnoException) => lost(`${url.host}: ${error.code ?? error.message}`));
    outgoing.end();
  });
}

/** What two pipelines listen for on each of two streams, beside what HTTP left there and their owners' own. */
const LISTENERS = 20;

/** Joins two byte streams until either ends. */
export function joinStreams(one: Duplex, other: Duplex): void {
  const end = () => {
    one.destroy();
    other.destroy();
  };
  for (const stream of [one, other]) stream.setMaxListeners(LISTENERS);
  pipeline(one, other, end);
  pipeline(other, one, end);
}

/** The typed error in an HTTP answer of the core. */
function readRefusal(body: string, status: number): MeshError {
  try {
    return fromWire(JSON.parse(body).error);
  } catch {
    return new ConnectionLost({ why: `the core answered with HTTP ${status}` }) as MeshError;
  }
}
