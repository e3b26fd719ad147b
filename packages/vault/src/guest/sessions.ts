/**
 * The sessions of a worker's callers: each outlives its connections (`rpc/channel.ts`), so that a caller whose
 * connection was cut goes on over another one, on either route.
 *
 * What always holds: only who proves the session's resume key takes it over, and then the older connection counts no
 * more; an owner's session waits for it as long as the worker lives (its lease decides that), a visitor's for a bounded
 * time; of sessions that wait only so many are kept, the oldest goes first.
 */
import { type ExpectedTicket, LIMITS, type SessionInfo, SessionLost } from '@hauki/protocol';
import {
  Channel,
  type FrameTransport,
  mac,
  macHolds,
  type Resumed,
  type Resumption,
  resumeTranscript,
} from '@hauki/rpc';

interface Held {
  ticket: ExpectedTicket;
  channel: Channel;
  timer: ReturnType<typeof setTimeout> | undefined;
  opened_at: number;
}

export class CallerSessions {
  readonly #held = new Map<string, Held>();

  /** Opens the session of a ticket that has been redeemed, over its first connection. */
  open(ticket: ExpectedTicket, link: FrameTransport): Channel {
    const { jti, role } = ticket;
    const channel = new Channel(() => {
      if (channel.ended) return void this.#held.delete(jti);
      if (role === 'owner') return;
      held.timer = setTimeout(() => this.#lose(jti, 'its caller did not come back'), LIMITS.resume_ms);
      held.timer.unref?.();
      this.#makeRoom();
    });
    const held: Held = { ticket, channel, timer: undefined, opened_at: Date.now() };
    this.#held.set(jti, held);
    channel.onEnd(() => {
      clearTimeout(held.timer);
      this.#held.delete(jti);
    });
    channel.attach(link);
    return channel;
  }

  /** What there is, by the ids of the sessions. */
  list(): Record<string, Omit<SessionInfo, 'worker' | 'session' | 'stats'>> {
    return Object.fromEntries(
      [...this.#held].map(([jti, { channel, ticket, opened_at }]) => [
        jti,
        {
          role: ticket.role,
          opened_at,
          connected: channel.attached,
          connections: channel.connections,
          carried_bytes: channel.carried_bytes,
          unconfirmed_bytes: channel.buffered_bytes,
        },
      ]),
    );
  }

  /** The session key of a session that may be resumed, for TLS with pre-shared keys. */
  keyOf(jti: string): string | undefined {
    return this.#held.get(jti)?.ticket.key;
  }

  /**
   * Checks who wants to go on, and lets go of the older connection. Gives the answer, and what goes on over `link` once
   * that has been sent. Rejects with SessionLost.
   */
  async resume(wanted: Resumption, nonce: string): Promise<{ answer: Resumed; go(link: FrameTransport): void }> {
    const { session, received } = wanted ?? {};
    const held = this.#held.get(String(session));
    if (!held) throw new SessionLost({ why: 'it is not known here: it has ended, or waited too long' });
    const { channel, ticket, timer } = held;
    const said = (side: 'caller' | 'worker', count: number) =>
      resumeTranscript(side, ticket.jti, nonce, String(wanted.nonce), count);
    if (!(await macHolds(ticket.resume_key, said('caller', received), wanted.proof)))
      throw new SessionLost({ why: 'the proof does not hold' });
    if (!channel.canResume(received)) throw new SessionLost({ why: 'its count of messages cannot be' });
    clearTimeout(timer);
    channel.detach();
    const told = channel.received;
    const proof = await mac(ticket.resume_key, said('worker', told));
    return { answer: { received: told, proof }, go: (link) => channel.attach(link, received, told) };
  }

  #lose(jti: string, why: string): void {
    this.#held.get(jti)?.channel.fail(why);
  }

  #makeRoom(): void {
    let waiting = 0;
    for (const { channel } of this.#held.values()) if (!channel.attached) waiting++;
    if (waiting <= LIMITS.sessions_waiting) return;
    for (const [jti, { channel, ticket }] of this.#held)
      if (!channel.attached && ticket.role !== 'owner')
        return this.#lose(jti, 'too many sessions wait for their callers');
  }
}
