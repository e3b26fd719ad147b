/**
 * How a session goes on over a new connection: what both sides prove to each other, and the caller's side of it:
 * `rpc.hello`, then `rpc.resume`.
 */
import { ConnectionLost, ProtocolViolation, SessionLost } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { Channel } from './channel.ts';
import { deriveKey, type Hello, mac, macHolds, randomText } from './handshake.ts';
import { Session } from './session.ts';
import type { FrameTransport, TransportEvents } from './transport.ts';

/** The caller's word when it goes on over a new connection (`channel.ts`). */
export interface Resumption {
  /** The id of the ticket that was redeemed. */
  session: string;
  nonce: string;
  /** Messages of the worker that have arrived. */
  received: number;
  /** HMAC of `resumeTranscript` with the resume key. */
  proof: string;
}

export interface Resumed {
  received: number;
  proof: string;
}

/** The key by which the holder of a session proves that it may go on over a new connection; the vault has it too. */
export const resumeKey = (secret: string, jti: string) => deriveKey(secret, jti, 'resume');

/** What both sides prove over (see `transcript`); `received` is how many messages the speaker has received. */
export const resumeTranscript = (
  side: 'caller' | 'worker',
  jti: string,
  worker_nonce: string,
  caller_nonce: string,
  received: number,
): string => `hauki/1 resume ${side}\n${jti}\n${worker_nonce}\n${caller_nonce}\n${received}`;

/**
 * Goes on with a session over a new connection; an older one still carries what comes until this succeeds. Rejects with
 * SessionLost when the other side no longer has it, or with ConnectionLost and its like: then it may be tried again.
 */
export async function resumeSession(
  link: FrameTransport,
  channel: Channel,
  session: string,
  resume_key: string,
): Promise<void> {
  // Two answers belong to the handshake; behind them frames of the session may follow at once.
  const fresh = firstMessages(link, 2);
  const shaking = new Session({ transport: fresh, literal: JSON.stringify, timeout_ms: LIMITS.handshake_ms });
  let promised = false;
  try {
    const hello = (await shaking.call('rpc.hello')) as Hello;
    const nonce = randomText(16);
    const received = channel.promise();
    promised = true;
    const said = (side: 'caller' | 'worker', count: number) =>
      resumeTranscript(side, session, String(hello?.nonce), nonce, count);
    const wanted: Resumption = { session, nonce, received, proof: await mac(resume_key, said('caller', received)) };
    const answer = (await shaking.call('rpc.resume', [wanted])) as Resumed;
    if (!(await macHolds(resume_key, said('worker', answer?.received), answer?.proof)))
      throw new ProtocolViolation({ why: 'whoever answers does not hold the session' });
    if (channel.isOvertaken(answer.received)) throw new ConnectionLost({ why: 'another connection took over' });
    if (!channel.canResume(answer.received)) throw new SessionLost({ why: 'the worker counts messages never sent' });
    channel.attach(fresh, answer.received, received);
  } catch (error) {
    shaking.close();
    throw error;
  } finally {
    if (promised) channel.forgo();
  }
}

/** Passes on the first `count` messages; what comes behind them waits for the next listener. */
function firstMessages(link: FrameTransport, count: number): FrameTransport {
  let waiting: ((events: TransportEvents) => void)[] | undefined;
  let left = count;
  return {
    start(events) {
      if (left > 0) {
        return link.start({
          message(text, bytes) {
            if (left === 0) return waiting?.push((next) => next.message(text, bytes?.slice()));
            if (--left === 0) waiting = [];
            events.message(text, bytes);
          },
          control: (kind, payload) => waiting?.push((next) => next.control?.(kind, payload.slice())),
          close(reason) {
            if (waiting) waiting.push((next) => next.close(reason));
            else events.close(reason);
          },
        });
      }
      // What comes while these are heard waits behind them.
      for (const deliver of waiting ?? []) deliver(events);
      waiting = undefined;
      link.start(events);
    },
    send: (text, bytes) => link.send(text, bytes),
    control: (kind, payload) => link.control(kind, payload),
    close: (reason) => link.close(reason),
    hold: (on) => link.hold?.(on),
    get buffered_bytes() {
      return link.buffered_bytes;
    },
    get carried_bytes() {
      return link.carried_bytes;
    },
  };
}
