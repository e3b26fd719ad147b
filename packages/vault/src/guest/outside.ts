/**
 * What a guest asks of the world outside, over one session or several in a row (guest, shell, agent): the same on each,
 * so that a call that is given up is given up all the way, and what is held for a guest is bounded wherever it is held.
 */
import { type Dispatch, remote, type Session, serve } from '@hauki/rpc';
import type { Outside } from './guest.ts';

/** For sessions with a guest: it sends and gets values and streams; whatever else it wants held, others would hold. */
export const GUEST_BOUNDS = { kept: 0, references: 64 } as const;

/** Answers for `outside`. */
export function serveOutside(outside: Outside): Dispatch {
  const others = serve(outside, ['heartbeat', 'destruct']);
  return (method, params, session, call) =>
    method === 'effect' && Array.isArray(params)
      ? outside.effect(params[0], params[1], call)
      : others(method, params, session, call);
}

/** The other end of a session as an `Outside`. */
export function outsideOver(session: Session): Outside {
  const others = remote<Outside>(session);
  return {
    async effect(name, args, call) {
      if (name !== 'log') {
        const { signal, timeout_ms } = call ?? {};
        const given = { ...(signal ? { signal } : {}), ...(timeout_ms === undefined ? {} : { timeout_ms }) };
        return session.call('effect', [name, args], given);
      }
      // Log lines want no answer; where there is no room for them they are dropped.
      session.notify('effect', [name, args]);
    },
    heartbeat: (challenge, mac) => others.heartbeat(challenge, mac),
    destruct: (mac) => others.destruct(mac),
  };
}
