/**
 * Makes tickets' secret halves, and for owners' one ahead: its keys cost some tenths of a millisecond that a clone would wait for.
 *
 * What always holds: a secret is handed out once; the one that waits is in this process's memory and nowhere else.
 */
import type { ExpectedTicket, TicketPart, TicketRole } from '@hauki/protocol';
import { leaseKey, randomText, resumeKey, sessionKey } from '@hauki/rpc';

export interface Minted {
  /** For the caller. */
  ticket: TicketPart;
  /** What the worker must know to redeem it. */
  expected: ExpectedTicket;
}

export interface MintedForOwner extends Minted {
  /** For the agent alone. */
  lease_key: string;
}

/** Whoever took the last one has its worker by then. */
const AFTER_MS = 20;

/** A new ticket. `by`: as in `ExpectedTicket`. */
export async function mint(role: TicketRole, by?: string): Promise<Minted> {
  const ticket: TicketPart = { jti: randomText(16), role, secret: randomText(32) };
  const { jti, secret } = ticket;
  const [key, resume_key] = await Promise.all([sessionKey(secret, jti), resumeKey(secret, jti)]);
  return { ticket, expected: { jti, role, key, resume_key, ...(by ? { by } : {}) } };
}

async function mintForOwner(): Promise<MintedForOwner> {
  const minted = await mint('owner');
  return { ...minted, lease_key: await leaseKey(minted.ticket.secret, minted.ticket.jti) };
}

export class Mint {
  #ahead: Promise<MintedForOwner> | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** The ticket of a worker's owner. */
  owner(): Promise<MintedForOwner> {
    const minted = this.#ahead ?? mintForOwner();
    this.#ahead = undefined;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#ahead = mintForOwner();
    }, AFTER_MS).unref();
    return minted;
  }
}
