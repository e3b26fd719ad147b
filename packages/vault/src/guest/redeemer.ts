/**
 * The one redeemer of a worker's tickets, on both routes (design, decision 5). Each way in which a ticket can be wrong
 * has an error of its own. A ticket is claimed only after every proof holds, in one step that nothing can come between:
 * so a forger cannot burn it, and among any number of redemptions at once one wins. Tickets that nobody redeems are kept in
 * bounded number, shared as the places are that they are for.
 */
import {
  type ExpectedTicket,
  LEASE,
  LIMITS,
  TicketAudience,
  type TicketBody,
  TicketExpired,
  TicketForged,
  TicketMisdirected,
  TicketReplayed,
  TicketUnproven,
} from '@hauki/protocol';
import { keepNewest, mac, macHolds, type Redemption, signatureHolds, thumbprint, transcript } from '@hauki/rpc';
import { Shares } from '@hauki/rpc/node';
import { verifyCompact, verifyKeys } from './jws.ts';

/** Redeemed tickets that are remembered, to tell a replay from a forgery. */
const REMEMBERED = 4096;
/** A ticket is void some time before it is forgotten, so that a late one hears that it expired. */
const KEPT_MS = 2 * LEASE.ticket_ms;
// Both taken before a worker can put others in their place.
/** The core's clock and the node's may differ by any time: a ticket's age is counted here, by a clock that nobody sets. */
const steady = performance.now.bind(performance);
const wall = Date.now;

interface Waiting extends ExpectedTicket {
  since: number;
  /** Gives its place back. */
  leave(): void;
}

export class Redeemer {
  readonly #self: { worker: string; node: string; epoch: number };
  readonly #key_set: object;
  #keys: ReturnType<typeof verifyKeys> | undefined;
  readonly #now: () => number;
  readonly #expected = new Map<string, Waiting>();
  readonly #places = new Shares('tickets of this worker that wait to be redeemed', LIMITS.tickets_waiting);
  readonly #redeemed = new Set<string>();

  constructor(self: { worker: string; node: string; epoch: number }, keys: object, now: () => number = steady) {
    this.#self = self;
    this.#key_set = keys;
    this.#now = now;
  }

  /** Makes ready what the first redemption needs. */
  prepare(): void {
    this.#keys ??= verifyKeys(this.#key_set);
  }

  /**
   * Makes a ticket redeemable, once. Where too many wait, the oldest of the same sharer is void; throws Overloaded where it
   * has none.
   */
  expect(ticket: ExpectedTicket): void {
    const now = this.#now();
    // In the order in which they came: the front is the oldest.
    for (const waiting of this.#expected.values()) {
      if (now - waiting.since < KEPT_MS) break;
      this.#forget(waiting);
    }
    this.#expected.set(ticket.jti, { ...ticket, since: now, leave: this.#place(ticket.by) });
  }

  #place(by: string | undefined): () => void {
    for (;;)
      try {
        return this.#places.take(by);
      } catch (error) {
        const oldest = this.#expected.values().find((waiting) => waiting.by === by && waiting.role !== 'owner');
        if (!oldest) throw error;
        this.#forget(oldest);
      }
  }

  #forget({ jti, leave }: Waiting): void {
    this.#expected.delete(jti);
    leave();
  }

  /** The session key of a ticket not yet redeemed, for TLS with pre-shared keys. */
  pskOf(jti: string): string | undefined {
    const expected = this.#expected.get(jti);
    return expected && this.#now() - expected.since < KEPT_MS ? expected.key : undefined;
  }

  /**
   * Redeems, or throws one of the ticket errors. `nonce` is what this side sent to this connection alone. `admit` throws
   * where there is no place for its holder now: the ticket is good for later then.
   */
  async redeem(
    redemption: Redemption,
    nonce: string,
    admit: (ticket: ExpectedTicket) => void = () => {},
  ): Promise<{ ticket: ExpectedTicket; proof: string; lease_ms: number }> {
    const body = this.#verified(redemption?.ticket);
    const { worker, node, epoch } = this.#self;
    if (body.worker !== worker || body.node !== node || body.epoch !== epoch)
      throw new TicketMisdirected({
        why: `it names ${body.worker} on ${body.node}, epoch ${body.epoch}; this is ${worker} on ${node}, epoch ${epoch}`,
      });
    if (this.#isOver(body)) throw new TicketExpired({ expired_at: new Date(body.exp * 1000).toISOString() });
    const { key } = redemption;
    if (key?.kty !== 'OKP' || key.crv !== 'Ed25519' || typeof key.x !== 'string' || key.x.length > 64)
      throw new TicketAudience({ why: 'no Ed25519 key was shown' });
    if ((await thumbprint(key)) !== body.audience) throw new TicketAudience({ why: 'its thumbprint is another' });
    const said = transcript('caller', body.jti, nonce, String(redemption.nonce));
    if (!(await signatureHolds(key, said, redemption.signature)))
      throw new TicketAudience({ why: 'the signature does not hold' });
    if (this.#redeemed.has(body.jti)) throw new TicketReplayed({ ticket: body.jti });
    const expected = this.#expected.get(body.jti);
    if (!expected) throw new TicketMisdirected({ why: 'this worker does not expect it' });
    if (!(await macHolds(expected.key, said, redemption.proof)))
      throw new TicketUnproven({ why: 'the proof does not hold' });
    const proof = await mac(expected.key, transcript('worker', body.jti, nonce, String(redemption.nonce)));
    // From here to the return nothing awaits: the claim is one step.
    if (!this.#expected.has(body.jti)) throw new TicketReplayed({ ticket: body.jti });
    admit(expected);
    this.#forget(expected);
    this.#redeemed.add(body.jti);
    keepNewest(this.#redeemed, REMEMBERED);
    return { ticket: expected, proof, lease_ms: body.lease.lease_ms };
  }

  /** One that is neither expected nor redeemed was forgotten, or never told: its date decides what its holder hears. */
  #isOver({ jti, iat, exp }: TicketBody): boolean {
    const expected = this.#expected.get(jti);
    if (expected) return this.#now() - expected.since >= (exp - iat) * 1000;
    return !this.#redeemed.has(jti) && exp * 1000 <= wall();
  }

  #verified(ticket: unknown): TicketBody {
    if (typeof ticket !== 'string' || ticket.length > 65536) throw new TicketForged({ why: 'it is not a ticket' });
    try {
      this.prepare();
      const body = verifyCompact(ticket, this.#keys!) as TicketBody;
      if (body.v !== 1) throw new Error(`version ${body.v} is not known here`);
      return body;
    } catch (error) {
      throw new TicketForged({ why: error instanceof Error ? error.message : 'unreadable' });
    }
  }
}
