/**
 * A worker from its caller's side in Node, where a clone is asked for and answered so that nobody waits for more than he
 * needs: what is called before the request leaves rides with it, and what the worker answers at once comes before the
 * ticket; where nothing rides, the ticket comes before the worker is loaded.
 *
 * What always holds: what rode is never sent again, unless the core says that it was not taken; where payload may not
 * pass the core nothing rides.
 */
import { BadInput, describe, type FirstMessage, type MeshError, OutcomeUnknown, type Ticket } from '@hauki/protocol';
import { Ride } from '@hauki/rpc/node';
import { fateOf } from './fate.ts';
import type { Routing } from './powers.ts';
import { type Ask, FATE_TRIES, RemoteWorker as Plain, type Spawned } from './worker.ts';

const ROUTINGS: readonly Routing[] = ['p2p_preferred', 'p2p_only', 'relay_only'];

/** A clone's answer, perhaps in two parts. */
interface InParts {
  ticket?: Ticket;
  /** What the worker answered at once to what rode; missing where that was not taken. */
  first?: FirstMessage[];
  /** The whole answer, where this is its first part. */
  more?: Promise<Spawned>;
}

export class RemoteWorker extends Plain {
  readonly #named = Promise.withResolvers<void>();

  protected override async enter(ask: Ask): Promise<void> {
    // Whoever mistypes p2p_only must not find out by what has passed the core.
    if (!ROUTINGS.includes(this.way.given.routing))
      throw new BadInput({ what: 'routing', why: `there are ${ROUTINGS.join(', ')}` });
    const { timeout_ms } = this.way.given as { timeout_ms?: unknown };
    if (timeout_ms !== undefined && !(typeof timeout_ms === 'number' && timeout_ms >= 0))
      throw new BadInput({ what: 'timeout_ms', why: `it must be 0 ms or more, not ${String(timeout_ms)}` });
    let ride: Ride | undefined;
    try {
      const { first, more, ...told } = (await ask(() => {
        ride = this.#board();
        return ride ? { first: ride.take() } : {};
      })) as InParts;
      const taken = ride !== undefined && first !== undefined;
      if (taken) {
        ride!.confirm();
        ride!.deliver(first);
      }
      const { ticket } = told.ticket ? (told as Spawned) : await more!;
      const opening = this.redeem(ticket);
      this.#named.resolve();
      if (taken) return await opening.catch((error) => this.#unheard(error));
      // Where there is more to come it says why, or that it is to be had by now.
      await opening.catch(async (error) => {
        if (!more) throw error;
        await this.redeem((await more).ticket);
      });
      await more;
    } finally {
      this.#named.resolve();
    }
  }

  /** What rode may be all that was called, and may have killed the worker before anybody came to it. */
  override async destruct(): Promise<void> {
    await this.#named.promise;
    await super.destruct();
  }

  /** What was called before now rides, where anything was. */
  #board(): Ride | undefined {
    const { channel, given } = this.way;
    if (given.routing === 'p2p_only') return undefined;
    this.session.lay();
    return channel.buffered_bytes > 0 ? new Ride(channel) : undefined;
  }

  /** The session could not be opened: whoever waits for an answer to what rode hears that it may have run. */
  async #unheard(error: MeshError): Promise<never> {
    if (this.session.stats().in_flight === 0) throw error;
    const fate = await fateOf(this.way.given.core, this.body.worker, FATE_TRIES).catch(() => undefined);
    throw fate ?? new OutcomeUnknown({ method: 'what was called with the clone', why: describe(error) });
  }
}
