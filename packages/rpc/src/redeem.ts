/**
 * The caller's side of the handshake: `rpc.hello`, then `rpc.redeem`, then the worker's own proof is checked. A caller
 * sends nothing of worth before that. `resume.ts` has the one by which a session goes on.
 */
import { ProtocolViolation, SessionLost, type Ticket, type TicketBody, TicketForged } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { Channel } from './channel.ts';
import {
  type CallerKey,
  type Hello,
  mac,
  macHolds,
  type Redeemed,
  type Redemption,
  randomText,
  readTicketBody,
  secretHash,
  sessionKey,
  transcript,
} from './handshake.ts';
import { Session } from './session.ts';
import type { FrameTransport } from './transport.ts';

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
const open = (received: number) => `{"jsonrpc":"2.0","method":"rpc.open","params":[{"v":1,"received":${received}}]}`;

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
    link.send(open(channel.received));
    channel.attach(link);
    shaking.leave();
    return methods;
  } catch (error) {
    shaking.close();
    throw error;
  }
}
