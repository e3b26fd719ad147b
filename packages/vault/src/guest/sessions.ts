/**
 * The sessions of a worker's callers: each outlives its connections (`rpc/channel.ts`), so that a caller whose
 * connection was cut goes on over another one, on either route.
 *
 * What always holds: only who proves the session's resume key takes it over, and then the older connection counts no
 * more, nor does an older attempt that comes late; a session waits for its caller as long as that tries: an owner for
 * its lease, a visitor for a bounded time; of visitors' sessions that wait only so many are kept, the oldest goes first. What
 * an owner says with its request for the worker begins its session; only who redeems the ticket goes on with it.
 */
import {
  ConnectionLost,
  type ExpectedTicket,
  type FirstMessage,
  LEASE,
  LIMITS,
  type SessionInfo,
  SessionLost,
} from '@hauki/protocol';
import {
  Channel,
  type FrameTransport,
  mac,
  macHolds,
  type Resumed,
  type Resumption,
  resumeTranscript,
} from '@hauki/rpc';
import { Ride } from '@hauki/rpc/node';

interface Held {
  ticket: ExpectedTicket;
  channel: Channel;
  /** Makes the guest's side of it; called once. */
  begin(): void;
  /** Lets it wait for its caller, from now on. */
  wait(): void;
  waits_ms: number;
  /** Its first messages came before its caller. */
  rode: boolean;
  redeemed: boolean;
  timer: ReturnType<typeof setTimeout> | undefined;
  /** Counts those who took it over: the latest wins. */
  turn: number;
  opened_at: number;
  /** Where its connection comes from, by which the node knows its own: `address:port`. */
  peer: string | undefined;
}

export class CallerSessions {
  readonly #held = new Map<string, Held>();

  /**
   * Keeps the session of a ticket that has been redeemed: from now on it may be resumed, also when its first connection
   * is cut before `open`. `begin` is called once: when it goes over its first connection, or as soon as there is nothing
   * else to do, which is while the answer to its caller travels. `lease_ms`: for how long an owner tries to come back.
   */
  keep(ticket: ExpectedTicket, lease_ms: number, begin: (channel: Channel) => void): void {
    const held = this.#held.get(ticket.jti) ?? this.#make(ticket, begin);
    held.redeemed = true;
    held.waits_ms = Math.max(LIMITS.resume_ms, ticket.role === 'owner' ? lease_ms : 0);
    held.wait();
  }

  /**
   * Begins the session of a ticket that nobody has redeemed yet with what its owner says first. Resolves with what is
   * answered at once.
   */
  async ride(
    ticket: ExpectedTicket,
    messages: readonly FirstMessage[],
    begin: (channel: Channel) => void,
  ): Promise<FirstMessage[]> {
    const held = this.#make(ticket, begin);
    held.rode = true;
    held.wait();
    held.begin();
    const ride = new Ride(held.channel);
    ride.deliver(messages);
    // What the worker's methods give at once has settled by then, also where they are asynchronous.
    await new Promise((resolve) => setImmediate(resolve));
    ride.end();
    return ride.take();
  }

  #make(ticket: ExpectedTicket, begin: (channel: Channel) => void): Held {
    const wait = () => {
      clearTimeout(held.timer);
      held.timer = setTimeout(() => {
        if (!channel.attached) channel.fail('its caller did not come back');
      }, held.waits_ms);
      held.timer.unref?.();
      this.#makeRoom();
    };
    const channel = new Channel(wait);
    let begun = false;
    const beginOnce = () => {
      if (!begun) begin(channel);
      begun = true;
    };
    const held: Held = {
      ticket,
      channel,
      begin: beginOnce,
      wait,
      // As long as its ticket is remembered.
      waits_ms: 2 * LEASE.ticket_ms,
      rode: false,
      redeemed: false,
      timer: undefined,
      turn: 0,
      opened_at: Date.now(),
      peer: undefined,
    };
    this.#held.set(ticket.jti, held);
    const soon = setImmediate(beginOnce);
    channel.onEnd(() => {
      clearImmediate(soon);
      clearTimeout(held.timer);
      this.#held.delete(ticket.jti);
    });
    return held;
  }

  /**
   * Opens it over its first connection, unless it has gone on over another by now. `received`: how many messages its
   * caller has already.
   */
  open(jti: string, link: FrameTransport, peer?: string, received = 0): void {
    const held = this.#held.get(jti);
    if (!held || connectionsOf(held) > 0 || held.turn > 0) return link.close('the session goes on elsewhere');
    if (held.channel.canResume(received)) return this.#go(held, link, received, held.channel.received, peer);
    held.channel.fail('its caller counts messages never sent');
    link.close('it counts messages never sent');
  }

  /** Its caller wants no session, but literal JSON for as long as its connection. */
  forget(jti: string): void {
    this.#held.get(jti)?.channel.fail('its caller wants no session');
  }

  #go(held: Held, link: FrameTransport, received: number, told: number, peer: string | undefined): void {
    const { channel } = held;
    held.peer = peer;
    clearTimeout(held.timer);
    held.begin();
    channel.attach(link, received, told);
  }

  /** What there is, by the ids of the sessions. */
  list(): Record<string, Omit<SessionInfo, 'worker' | 'session' | 'stats'> & { peer: string | undefined }> {
    return Object.fromEntries(
      [...this.#held].map(([jti, held]) => {
        const { channel, ticket, opened_at, peer } = held;
        const connections = connectionsOf(held);
        const { carried_bytes, buffered_bytes: unconfirmed_bytes } = channel;
        const connected = connections > 0 && channel.attached;
        return [jti, { role: ticket.role, opened_at, peer, connected, connections, carried_bytes, unconfirmed_bytes }];
      }),
    );
  }

  /** The session key of a session that may be resumed, for TLS with pre-shared keys. */
  keyOf(jti: string): string | undefined {
    return this.#held.get(jti)?.ticket.key;
  }

  /**
   * Checks who wants to go on, and lets go of the older connection. Gives the answer, and what goes on over `link` once
   * that has been sent. Rejects with SessionLost, or with ConnectionLost where it was overtaken by another.
   */
  async resume(
    wanted: Resumption,
    nonce: string,
  ): Promise<{ answer: Resumed; resumed: ExpectedTicket['role']; go(link: FrameTransport, peer?: string): void }> {
    const { session, received } = wanted ?? {};
    const held = this.#held.get(String(session));
    // The ticket alone is not enough: who redeems it also shows the key that it was made for.
    if (!held?.redeemed) throw new SessionLost({ why: 'it is not known here: it has ended, or waited too long' });
    const { channel, ticket } = held;
    const said = (side: 'caller' | 'worker', count: number) =>
      resumeTranscript(side, ticket.jti, nonce, String(wanted.nonce), count);
    if (!(await macHolds(ticket.resume_key, said('caller', received), wanted.proof)))
      throw new SessionLost({ why: 'the proof does not hold' });
    if (channel.isOvertaken(received)) throw new ConnectionLost({ why: 'another connection took over' });
    if (channel.ended || !channel.canResume(received))
      throw new SessionLost({ why: channel.ended ? 'it has just ended' : 'its count of messages cannot be' });
    const turn = ++held.turn;
    channel.detach();
    const told = channel.received;
    const proof = await mac(ticket.resume_key, said('worker', told));
    return {
      answer: { received: told, proof },
      resumed: ticket.role,
      go: (link, peer) =>
        held.turn === turn ? this.#go(held, link, received, told, peer) : link.close('another connection took over'),
    };
  }

  #makeRoom(): void {
    let waiting = 0;
    // One that was never opened is about to be, or soon forgotten.
    const away = (channel: Channel) => !channel.attached && channel.connections > 0;
    for (const { channel } of this.#held.values()) if (away(channel)) waiting++;
    if (waiting <= LIMITS.sessions_waiting) return;
    for (const { channel, ticket } of this.#held.values())
      if (away(channel) && ticket.role !== 'owner') return channel.fail('too many sessions wait for their callers');
  }
}

/** Connections of its own that it has had. */
const connectionsOf = ({ channel, rode }: Held): number => channel.connections - (rode ? 1 : 0);
