/** The caller of a rehearsal, and its ticket: for vaults that rehearse, and for the staging of their code. */
import type { ExpectedTicket, FirstMessage, Ticket } from '@hauki/protocol';
import {
  type CallerKey,
  Channel,
  type FrameTransport,
  makeCallerKey,
  openSession,
  randomText,
  Session,
  secretHash,
  sessionKey,
} from '@hauki/rpc';
import { Ride, signCompact } from '@hauki/rpc/node';

export const LEASE_MS = 1_000;
export const SELF = { worker: 'rehearsal', node: 'rehearsal', epoch: 1 };

export interface Rehearsal {
  self: typeof SELF;
  ticket: Ticket;
  caller: CallerKey;
  /** The public half of what signed it. */
  keys: object;
  expected: ExpectedTicket;
}

/** A ticket that is good at the rehearsal's worker and at no other: its signer is made for it and forgotten. */
export async function rehearsalTicket(): Promise<Rehearsal> {
  const { generateKeyPairSync } = process.getBuiltinModule('node:crypto');
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const caller = await makeCallerKey();
  const [jti, secret] = [randomText(16), randomText(32)];
  const key = await sessionKey(secret, jti);
  const body = {
    v: 1,
    jti,
    role: 'owner',
    ...SELF,
    audience: caller.thumbprint,
    lease: { lease_ms: LEASE_MS },
    exp: Math.ceil(Date.now() / 1000) + 60,
    secret_hash: await secretHash(secret),
  };
  return {
    self: SELF,
    ticket: { signed: signCompact(body, 'rehearsal', privateKey), secret },
    caller,
    keys: { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'rehearsal' }] },
    expected: { jti, role: 'owner', key, resume_key: key },
  };
}

/** A caller's session that has no connection yet. */
export interface Begun {
  channel: Channel;
  session: Session;
}

export function begin(): Begun {
  const channel = new Channel();
  return { channel, session: new Session({ transport: channel, waits: true }) };
}

/** Calls `add` before there is a connection. Gives what goes with the load, and what takes the answer to it. */
export function rideAlong({ channel, session }: Begun) {
  const sum = session.call('add', [1, 2]);
  session.lay();
  const ride = new Ride(channel);
  const deliver = async (said: readonly FirstMessage[]): Promise<void> => {
    ride.confirm();
    ride.deliver(said);
    await sum;
  };
  return { words: ride.take(), deliver };
}

/** Redeems the ticket over `link`, calls `add` once and leaves. */
export async function firstCall(link: FrameTransport, { ticket, caller }: Rehearsal, begun = begin()): Promise<void> {
  const { channel, session } = begun;
  await openSession(link, channel, ticket, caller);
  session.begin();
  await session.call('add', [1, 2]);
  session.close();
}
