/**
 * What a guest asks of the world outside, over one session or several in a row (guest, shell, agent): the same on each,
 * so that a call that is given up is given up all the way, and what is held for a guest is bounded wherever it is held.
 */
import { LIMITS } from '@hauki/protocol';
import { type Dispatch, remote, type Session, serve, type Transport } from '@hauki/rpc';
import type { Outside } from './guest.ts';

/** For sessions with a guest: it sends and gets values and streams; whatever else it wants held, others would hold. */
export const GUEST_BOUNDS = { kept: 0, references: 64 } as const;

// Taken before the worker's code runs, which may replace it.
const { stringify } = JSON;

/** Answers for `outside`. */
export function serveOutside(outside: Outside): Dispatch {
  const others = serve(outside, ['heartbeat', 'destruct']);
  return (method, params, session, call) =>
    method === 'effect' && Array.isArray(params)
      ? outside.effect(params[0], params[1], call)
      : others(method, params, session, call);
}

/** The other end of a session as an `Outside`. `transport`: that session's. */
export function outsideOver(session: Session, transport: Transport): Outside {
  const others = remote<Outside>(session);
  return {
    async effect(name, args, call) {
      if (name !== 'log') {
        const { signal, timeout_ms } = call ?? {};
        const given = { ...(signal ? { signal } : {}), ...(timeout_ms === undefined ? {} : { timeout_ms }) };
        return session.call('effect', [name, args], given);
      }
      // Log lines want no answer; where there is no room for them they are dropped.
      if (!call?.at_once) return session.notify('effect', [name, args]);
      // Past the calls of this turn and the end of it: the worker's next word may end the process, or never return.
      if (transport.buffered_bytes > LIMITS.unsent_bytes) return;
      transport.send(stringify({ jsonrpc: '2.0', method: 'effect', params: [name, args] }));
      transport.flush?.();
    },
    heartbeat: (challenge, mac) => others.heartbeat(challenge, mac),
    destruct: (mac) => others.destruct(mac),
  };
}
