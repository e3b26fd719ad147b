/**
 * Route B for WebSockets: `GET /api/v2/ephemeral/<worker>` upgraded to `websocket`, subprotocol `hauki.v1`.
 *
 * A browser's WebSocket sends no header of its own, and a token has no place in a URL, where logs would keep it. So the
 * first message is text, `{"token": "…"}`; it is answered with text, `{"status": "success"}` or an error and a close
 * with 4000 + its HTTP status. Programs that can send an Authorization header do that instead, and are answered in
 * HTTP. From then on binary messages are bytes for the worker, which the core does not read. Nothing is dialled for
 * those who have not said who they are; they are bounded in number, bytes and time.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { InternalError, LIMITS, MeshError, toWire } from '@hauki/protocol';
import { acceptWebSocket, type Strangers } from '@hauki/rpc/node';
import type { Relay } from './relay.ts';

export interface WebSocketPowers {
  relay: Relay;
  strangers: Strangers;
  /**
   * Throws a typed error unless this token, or this request's header, may call the worker, and there is one. The
   * connection ends with the token.
   */
  admit(worker: string, by: string | IncomingMessage, socket: Duplex): void;
}

export class WebSocketDoor {
  readonly #powers: WebSocketPowers;

  constructor(powers: WebSocketPowers) {
    this.#powers = powers;
  }

  /** Serves one upgrade to its end. Rejects when it is to be refused in HTTP. */
  async serve(worker: string, request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const { relay, strangers, admit } = this.#powers;
    if (request.headers.authorization !== undefined) {
      admit(worker, request, socket);
      return relay.splice(worker, async () => (await acceptWebSocket(request, socket, head)).stream());
    }
    const client = await acceptWebSocket(request, socket, head);
    const first = () => client.firstText(LIMITS.handshake_bytes, LIMITS.handshake_ms);
    try {
      admit(worker, await strangers.token(client, first), socket);
      await relay.splice(worker, () => {
        client.say('{"status":"success"}');
        return client.stream();
      });
    } catch (error) {
      const wire = error instanceof MeshError ? error : new InternalError({ why: 'the upgrade failed' });
      client.say(JSON.stringify({ status: 'error', error: toWire(wire) }));
      client.close(4000 + wire.status, wire.name);
    }
  }
}
