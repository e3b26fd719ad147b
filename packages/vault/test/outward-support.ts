/** What tests of a guest's ways out share: servers on loopback, and a guest with its host beside it, over a session. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcp, type Socket, type Server as TcpServer } from 'node:net';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ErrorClass,
  type GrantRequest,
  isError,
  normaliseGrants,
  type SecretRequests,
  secretValues,
} from '@hauki/protocol';
import { memoryPair, Session } from '@hauki/rpc';
import type { EffectPowers } from '../src/effects/effect.ts';
import { createEffects } from '../src/effects/effects.ts';
import { createNetwork } from '../src/effects/network.ts';
import { GUEST_BOUNDS, outsideOver, serveOutside } from '../src/guest/outside.ts';
import { connectFor, fetchFor } from '../src/guest/outward.ts';
import { useText } from '../src/guest/platform/body.ts';
import * as platform from '../src/guest/platform/http.ts';
import { nodePlatform } from '../src/guest/respond-node.ts';
import type { Streams } from '../src/guest/vm-streams.ts';

/** Is refused with this error, in these words. */
export const refuses = (promise: Promise<unknown>, kind: ErrorClass<any>, pattern: RegExp = /./) =>
  assert.rejects(promise, (error: Error) => {
    assert.ok(isError(error, kind), `${error?.name}: ${error?.message}`);
    assert.match(error.message, pattern);
    return true;
  });

const servers = new Set<Server | TcpServer>();
/** Of all servers, those that are open. */
export const sockets = new Set<Socket>();
const sessions = new Set<Session>();
after(() => {
  for (const session of sessions) session.close();
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
});

/** Listens until the tests are over; gives its port. */
export async function listening(server: Server | TcpServer, host = '127.0.0.1', port = 0): Promise<number> {
  servers.add(server);
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  server.listen(port, host);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}
export const http = (handler: RequestListener, host?: string, port?: number) =>
  listening(createServer(handler), host, port);
export const tcp = (handler: (socket: Socket) => void) => listening(createTcp(handler));

export async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

/** A guest with these grants, and the host that performs for it. */
export function guest(
  request: GrantRequest,
  more: { secrets?: SecretRequests; lookup?: (host: string) => Promise<string[]> } & Partial<
    Omit<EffectPowers, 'secrets'>
  > = {},
) {
  const { secrets, lookup = async (host: string) => assert.fail(`nobody looks up ${host}`), ...powers } = more;
  const network = createNetwork({ lookup });
  const effects = createEffects({
    owner: 'test',
    grants: normaliseGrants(request, secrets),
    secrets: secretValues(secrets),
    meshfs: { resolve: () => assert.fail(), write: () => assert.fail() },
    network,
    log: () => {},
    ...powers,
  });
  const [inner, outer] = memoryPair();
  const outside = {
    effect: effects.perform,
    heartbeat: async () => assert.fail(),
    destruct: async () => assert.fail(),
  };
  const host = new Session({ transport: outer, dispatch: serveOutside(outside), bounds: GUEST_BOUNDS });
  const session = new Session({ transport: inner, timeout_ms: 20_000 });
  sessions.add(host).add(session);
  const way = outsideOver(session, inner);
  return {
    effects,
    host,
    session,
    fetch: fetchFor(way, nodePlatform) as (url: any, init?: any) => Promise<Response>,
    vmFetch: fetchFor(way, { respond: platform.fetched, pack: platform.pack, sent: platform.sent }) as (
      url: any,
      init?: any,
    ) => Promise<platform.Response>,
    connect: connectFor(way),
  };
}

useText({
  encode: (text) => new TextEncoder().encode(text).slice().buffer,
  decode: (bytes, encoding) => new TextDecoder(encoding).decode(bytes),
  forms: () => assert.fail('nothing here takes forms'),
  streams: () => ({ ReadableStream }) as unknown as Streams,
});

export const until = async (what: string, check: () => boolean) => {
  for (let i = 0; i < 1500 && !check(); i++) await sleep(10);
  assert.ok(check(), what);
};
