/** The caller's side of the handshake: `rpc.hello`, then `rpc.redeem`, then the worker's own proof is checked. */
import { LIMITS, ProtocolViolation, type Ticket, type TicketBody, TicketForged } from '@hauki/protocol';
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
import type { Session } from './session.ts';

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
