/**
 * Places that all share, as followed logs or the connections of a worker are: of such a kind there are so many, and one
 * request takes one, or several. Here because cores and gates share them out by the same rule.
 *
 * What always holds: a sharer has no more than it leaves free, half of them where nobody else has any. So nobody takes the
 * last one, with however many sharers; who is none, for the mesh is its own, alone may.
 */
import { Overloaded } from '@hauki/protocol';

export class Shares {
  readonly #what: string;
  readonly #each: number;
  readonly #held = new Map<string | undefined, number>();
  #free: number;

  /** `each`: what one may have at most, however many are free. */
  constructor(what: string, limit: number, each = limit) {
    this.#what = what;
    this.#each = each;
    this.#free = limit;
  }

  /** Takes places for a sharer, undefined for who is none, or throws Overloaded. The result gives them back. */
  take(sharer: string | undefined, places = 1): () => void {
    const held = this.#held.get(sharer) ?? 0;
    const whole = held + this.#free;
    const limit = sharer === undefined ? whole : Math.min(this.#each, Math.floor(whole / 2));
    if (held + places > limit)
      throw new Overloaded({
        what: `${this.#what}${sharer === undefined ? '' : ', of one token and all below it'}`,
        limit,
      });
    this.#held.set(sharer, held + places);
    this.#free -= places;
    let giveBack = () => {
      const left = this.#held.get(sharer)! - places;
      if (left > 0) this.#held.set(sharer, left);
      else this.#held.delete(sharer);
      this.#free += places;
    };
    return () => {
      giveBack();
      giveBack = () => {};
    };
  }
}
