/**
 * A worker from its caller's side in Node, where a clone is asked for and answered so that nobody waits for more than he
 * needs: what is called before the request leaves rides with it, and where nothing is, the ticket comes before the worker
 * is loaded.
 *
 * What always holds: what rode is never sent again, unless the answer says that it was not taken; where payload may not
 * pass the core nothing rides.
 */
import type { FirstMessage } from '@hauki/protocol';
import { Ride } from '@hauki/rpc/node';
import { type Ask, RemoteWorker as Plain, type Spawned } from './worker.ts';

/** What a core answers to a clone; `more`: it was told before the worker was loaded, and this is the answer then. */
interface Early extends Spawned {
  more?: Promise<Spawned>;
  /** What the worker answered at once to what rode. */
  first?: FirstMessage[];
}

export class RemoteWorker extends Plain {
  protected override async enter(ask: Ask): Promise<void> {
    let ride: Ride | undefined;
    const spawned: Early = await ask(() => {
      ride = this.#board();
      return ride ? { first: ride.take() } : {};
    });
    if (ride && spawned.first) {
      ride.confirm();
      ride.deliver(spawned.first);
    }
    const { ticket, more } = spawned;
    if (!more) return this.redeem(ticket);
    // Where there is more to come it says why, or that it is to be had by now.
    await this.redeem(ticket).catch(async () => this.redeem((await more).ticket));
    await more;
  }

  #board(): Ride | undefined {
    if (this.way.given.routing === 'p2p_only') return undefined;
    this.session.lay();
    const { channel } = this.way;
    return channel.buffered_bytes > 0 ? new Ride(channel) : undefined;
  }
}
