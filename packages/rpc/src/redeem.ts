/** The caller's side of the handshake: `rpc.hello`, then `rpc.redeem`, then the worker's own proof is checked. */
import { ProtocolViolation, type Ticket, type TicketBody, TicketForged } from '@hauki/protocol';
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
  if ((await secretHash(ticket.secret)) !== secret_hash)
    throw new TicketForged({ why: 'ticket and secret do not belong together' });
  const shared = await sessionKey(ticket.secret, jti);
  const hello = (await session.call('rpc.hello')) as Hello;
  const nonce = randomText(16);
  const said = transcript('caller', jti, String(hello?.nonce), nonce);
  const redemption: Redemption = {
    ticket: ticket.signed,
    key: key.jwk,
    nonce,
    proof: await mac(shared, said),
    signature: await key.sign(said),
  };
  const answer = (await session.call('rpc.redeem', [redemption])) as Redeemed;
  if (
    answer?.worker !== worker ||
    !(await macHolds(shared, transcript('worker', jti, hello.nonce, nonce), answer.proof))
  )
    throw new ProtocolViolation({ why: 'whoever answers is not the worker that the ticket names' });
  return answer.methods;
}
