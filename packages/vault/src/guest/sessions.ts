/**
 * The sessions of a worker's callers: each outlives its connections (`rpc/channel.ts`), so that a caller whose
 * connection was cut goes on over another one, on either route.
 *
 * What always holds: only who proves the session's resume key takes it over, and then the older connection counts no
 * more, nor does an older attempt that comes late; a session waits for its caller as long as that tries: an owner for
 * its lease, a visitor for a bounded time; of visitors' sessions that wait only so many are kept, of whoever has most of
 * them the oldest goes first. A session has its place at the worker from its redemption to its end, whatever connection it
 * goes over. What an owner says with its request for the worker begins its session; only who redeems the ticket goes on
 * with it.
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

/** A connection, as its session knows it. */
export interface Carrier {
  /** Where it comes from, by which the node knows its own: `address:port`. */
  readonly peer: string;
  /** It is over. */
  readonly gone: boolean;
  /** It carries a session from now on. */
  taken(): void;
  /** It carries none any more: that goes on over another, or is over. */
  left(): void;
}

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
  carrier: Carrier | undefined;
  /** Gives its place back. */
  leave(): void;
}

/** Of one that has no place: what rode is not redeemed yet, and what is literal has its connection's. */
const NO_PLACE = () => {};

export class CallerSessions {
  readonly #held = new Map<string, Held>();

  /**
   * Keeps the session of a ticket that has been redeemed: from now on it may be resumed, also when its first connection
   * is cut before `open`. `begin` is called once: when it goes over its first connection, or as soon as there is nothing
   * else to do, which is while the answer to its caller travels. `lease_ms`: for how long an owner tries to come back.
   * `leave`: gives its place back, at its end.
   */
  keep(
    ticket: ExpectedTicket,
    lease_ms: number,
    begin: (channel: Channel) => void,
    carrier?: Carrier,
    leave: () => void = NO_PLACE,
  ): void {
    const held = this.#held.get(ticket.jti) ?? this.#make(ticket, begin);
    held.redeemed = true;
    held.leave = leave;
    held.carrier = carrier;
    carrier?.taken();
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
        if (channel.attached) return;
        // It has not said yet what it wants, and is there.
        if (held.carrier && !isAway(held)) wait();
        else channel.fail('its caller did not come back');
      }, held.waits_ms);
      held.timer.unref?.();
      this.#boundWaiting();
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
      carrier: undefined,
      leave: NO_PLACE,
    };
    this.#held.set(ticket.jti, held);
    const soon = setImmediate(beginOnce);
    channel.onEnd(() => {
      clearImmediate(soon);
      clearTimeout(held.timer);
      this.#held.delete(ticket.jti);
      held.carrier?.left();
      held.leave();
    });
    return held;
  }

  /**
   * Opens it over its first connection, unless it has gone on over another by now. `received`: how many messages its
   * caller has already.
   */
  open(jti: string, link: FrameTransport, carrier?: Carrier, received = 0): void {
    const held = this.#held.get(jti);
    if (!held || connectionsOf(held) > 0 || held.turn > 0) return link.close('the session goes on elsewhere');
    if (held.channel.canResume(received)) return this.#go(held, link, received, held.channel.received, carrier);
    held.channel.fail('its caller counts messages never sent');
    link.close('it counts messages never sent');
  }

  /** Its caller wants no session, but literal JSON for as long as its connection: what gives back its place is that one's now. */
  forget(jti: string): () => void {
    const held = this.#held.get(jti);
    const leave = held?.leave ?? NO_PLACE;
    if (held) {
      held.leave = NO_PLACE;
      held.carrier = undefined;
      held.channel.fail('its caller wants no session');
    }
    return leave;
  }

  #go(held: Held, link: FrameTransport, received: number, told: number, carrier: Carrier | undefined): void {
    const { channel } = held;
    if (!channel.ended && held.carrier !== carrier) {
      held.carrier?.left();
      held.carrier = carrier;
      carrier?.taken();
    }
    clearTimeout(held.timer);
    held.begin();
    channel.attach(link, received, told);
  }

  /** What there is, by the ids of the sessions. */
  list(): Record<string, Omit<SessionInfo, 'worker' | 'session' | 'stats'> & { peer: string | undefined }> {
    return Object.fromEntries(
      [...this.#held].map(([jti, held]) => {
        const { channel, ticket, opened_at, carrier } = held;
        const peer = carrier?.peer;
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
  ): Promise<{ answer: Resumed; go(link: FrameTransport, carrier?: Carrier): void }> {
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
      go: (link, carrier) =>
        held.turn === turn ? this.#go(held, link, received, told, carrier) : link.close('another connection took over'),
    };
  }

  /** Ends the first visitor's session of this sharer that waits for its caller. False where there is none. */
  makeRoom(by: string | undefined): boolean {
    for (const held of this.#held.values())
      if (isAway(held) && held.ticket.role !== 'owner' && held.ticket.by === by) {
        held.channel.fail('another caller of its own wants its place');
        return true;
      }
    return false;
  }

  /** Of too many that wait, the first goes of the sharer that has most. */
  #boundWaiting(): void {
    const away = [...this.#held.values()].filter(isAway);
    if (away.length <= LIMITS.sessions_waiting) return;
    const visitors = away.filter(({ ticket }) => ticket.role !== 'owner');
    const [most] = [...Map.groupBy(visitors, ({ ticket }) => ticket.by).values()].sort((a, b) => b.length - a.length);
    most?.[0]?.channel.fail('too many sessions wait for their callers');
  }
}

/** Whether it waits for its caller. One that was never opened is about to be, as long as its connection is there. */
const isAway = (held: Held): boolean =>
  !held.channel.attached && (connectionsOf(held) > 0 || held.carrier?.gone === true);

/** Connections of its own that it has had. */
const connectionsOf = ({ channel, rode }: Held): number => channel.connections - (rode ? 1 : 0);
