/**
 * Connections that become something else than HTTP: the links of nodes, kernels and callers, splices, and WebSockets for
 * workers and modules.
 *
 * What always holds: who may do what is looked at before a connection is accepted; what is open in a token's name ends
 * with the token; a refusal is an ordinary answer in HTTP, and the log has what its reader is not told.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { BadInput, KERNEL_LINK, type MeshError, NoSuchMethod } from '@hauki/protocol';
import { refuse, Strangers, UPGRADE_PROTOCOL } from '@hauki/rpc/node';
import type { Auth } from './auth.ts';
import { serveCloneLink } from './clone-link.ts';
import { GatewaySockets } from './kernels/gateway-sockets.ts';
import type { Kernels } from './kernels/kernels.ts';
import { serveKernel } from './kernels/link.ts';
import { CLONE_LINK_LIMITS } from './limits.ts';
import { type LinkPowers, serveLink } from './links.ts';
import type { Relay } from './relay.ts';
import { CALL, demand, type Principal } from './rights.ts';
import { Shares } from './shares.ts';
import type { Swarm } from './swarm.ts';
import type { TokenStore } from './tokens.ts';
import { WebSocketDoor } from './websockets.ts';

export interface UpgradePowers extends Omit<LinkPowers, 'principal'> {
  auth: Auth;
  tokens: Pick<TokenStore, 'hold'>;
  swarm: Swarm;
  kernels: Kernels;
  relay: Relay;
  /** What callers share whose connections are relayed. */
  relayed: Shares;
  /** What of a failure is told; what is told to nobody it logs. */
  typed(error: Error): MeshError;
}

function accept(socket: Socket, head: Buffer): Socket {
  socket.setNoDelay(true);
  socket.setTimeout(0);
  if (head.length > 0) socket.unshift(head);
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: ${UPGRADE_PROTOCOL}\r\n\r\n`);
  return socket;
}

/** What serves the upgrades of one core. */
export function createUpgrades(powers: UpgradePowers) {
  const { auth, tokens, registry, swarm, kernels, relay, relayed, core_id, log, typed } = powers;
  /** Connections that HTTP no longer knows of. */
  const upgraded = new Set<Socket>();

  /** What is open in a token's name ends with the token. */
  const heldBy = (principal: Principal, socket: Duplex) => {
    const release = tokens.hold(principal, () => socket.destroy());
    socket.once('close', release);
  };

  /** Lets who may call the worker pass, for as long as the token lasts that says so. */
  const admitCaller = (principal: Principal, worker: string, socket: Duplex) => {
    demand(principal, { scope: CALL });
    demand(principal, { scope: 'call', worker: registry.known(worker) });
    registry.find(worker);
    socket.once('close', relayed.take(principal.name));
    heldBy(principal, socket);
  };

  const cloneLinks = new Shares('links for clones', CLONE_LINK_LIMITS.links);
  const strangers = new Strangers();
  const websockets = new WebSocketDoor({
    relay,
    strangers,
    admit: (worker, by, socket) =>
      admitCaller(typeof by === 'string' ? auth.bearer(by) : auth.authenticate(by), worker, socket),
  });
  const gatewaySockets = new GatewaySockets({ kernels, auth, strangers, hold: heldBy });

  return {
    /** Serves one, or refuses it. Never rejects. */
    async serve(request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
      upgraded.add(socket);
      socket.once('close', () => upgraded.delete(socket));
      try {
        auth.checkOrigin(request);
        const path = (request.url ?? '').split('?')[0]!;
        const worker = /^\/api\/v2\/ephemeral\/([a-z0-9-]{1,64})$/.exec(path)?.[1];
        const wanted = request.headers.upgrade?.toLowerCase();
        if (worker !== undefined && wanted === 'websocket')
          return await websockets.serve(worker, request, socket, head);
        if (wanted === 'websocket' && (await gatewaySockets.take(request, socket, head))) return;
        if (wanted !== UPGRADE_PROTOCOL)
          throw new BadInput({
            what: 'upgrade',
            why: `only to ${UPGRADE_PROTOCOL}; to websocket, for a worker or a module`,
          });
        if (path === '/api/v2/node/link') {
          const principal = auth.principal(request, 'node');
          heldBy(principal, socket);
          accept(socket, head);
          serveLink(socket, { ...powers, principal });
          return;
        }
        if (path === '/api/v2/swarm_link') {
          const asks = () => auth.principal(request, 'spawn.pointer');
          const by = asks();
          socket.once('close', cloneLinks.take(by.name));
          heldBy(by, socket);
          accept(socket, head);
          serveCloneLink(socket, { swarm, principal: asks, typed });
          return;
        }
        if (path === KERNEL_LINK) {
          const principal = auth.principal(request, 'node');
          heldBy(principal, socket);
          accept(socket, head);
          serveKernel(socket, { kernels, principal, core_id, log });
          return;
        }
        const splice = /^\/api\/v2\/node\/splice\/([A-Za-z0-9_-]{1,64})$/.exec(path)?.[1];
        if (splice !== undefined) {
          heldBy(auth.principal(request, 'node'), socket);
          accept(socket, head);
          if (!relay.arrived(splice, socket)) socket.destroy();
          return;
        }
        if (worker === undefined) throw new NoSuchMethod({ method: path }, 'There is nothing to upgrade here');
        admitCaller(auth.authenticate(request), worker, socket);
        await relay.splice(worker, () => accept(socket, head));
      } catch (error) {
        refuse(socket, typed(error as Error));
      }
    },

    /** Ends them all. */
    async close(): Promise<void> {
      await gatewaySockets.close();
      for (const socket of upgraded) socket.destroy();
    },
  };
}
