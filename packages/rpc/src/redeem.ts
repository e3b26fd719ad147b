/**
 * The caller's side of the handshakes: `rpc.hello`, then `rpc.redeem` or `rpc.resume`, then the worker's own proof is
 * checked. A caller sends nothing of worth before that.
 */
import {
  ConnectionLost,
  ProtocolViolation,
  SessionLost,
  type Ticket,
  type TicketBody,
  TicketForged,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { Channel } from './channel.ts';
import {
  type CallerKey,
  type Hello,
  mac,
  macHolds,
  type Redeemed,
  type Redemption,
  type Resumed,
  type Resumption,
  randomText,
  readTicketBody,
  resumeTranscript,
  secretHash,
  sessionKey,
  transcript,
} from './handshake.ts';
import { Session } from './session.ts';
import type { FrameTransport, TransportEvents } from './transport.ts';

/**
 * Redeems a ticket on a fresh session. Resolves with the worker's methods; rejects with a ticket error, or with
 * ProtocolViolation when the other side does not hold the secret either.
 */
export async function redeemTicket(session: Session, ticket: Ticket, key: CallerKey): Promise<string[]> {
  const { jti, worker, secret_hash } = readTicketBody<TicketBody>(ticket.signed);
  const [hello, shared, hash] = await Promise.all([
    session.call('rpc.hello') as Promise<Hello>,
    sessionKey(ticket.secret, jti),
    secretHash(ticket.secret),
  ]);
  if (hash !== secret_hash) throw new TicketForged({ why: 'ticket and secret do not belong together' });
  const nonce = randomText(16);
  const said = transcript('caller', jti, String(hello?.nonce), nonce);
  const [proof, signature] = await Promise.all([mac(shared, said), key.sign(said)]);
  const redemption: Redemption = { ticket: ticket.signed, key: key.jwk, nonce, proof, signature };
  const answer = (await session.call('rpc.redeem', [redemption])) as Redeemed;
  if (
    answer?.worker !== worker ||
    !(await macHolds(shared, transcript('worker', jti, hello.nonce, nonce), answer.proof))
  )
    throw new ProtocolViolation({ why: 'whoever answers is not the worker that the ticket names' });
  const { methods } = answer;
  if (!Array.isArray(methods) || !methods.every((m) => typeof m === 'string') || methods.length > LIMITS.methods)
    throw new ProtocolViolation({ why: 'the worker does not say which methods it has' });
  return methods;
}

/** Makes the redeemed connection a session with whole values, references and resume. Has no answer. */
const OPEN = '{"jsonrpc":"2.0","method":"rpc.open","params":[{"v":1}]}';

/** Redeems a ticket and opens the session: `channel` goes on over `link`. Resolves and rejects as `redeemTicket` does. */
export async function openSession(
  link: FrameTransport,
  channel: Channel,
  ticket: Ticket,
  key: CallerKey,
): Promise<string[]> {
  const shaking = new Session({ transport: link, literal: JSON.stringify, timeout_ms: LIMITS.handshake_ms });
  try {
    const methods = await redeemTicket(shaking, ticket, key);
    if (!shaking.open) throw new SessionLost({ why: 'its connection ended when it began' });
    link.send(OPEN);
    channel.attach(link);
    return methods;
  } catch (error) {
    shaking.close();
    throw error;
  }
}

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
