/**
 * Places that all share, as followed logs are: of such a kind there are so many, and one request takes one, or several.
 *
 * What always holds: a token that an admin made has, with all below it, no more than it leaves free, half of them where
 * nobody else has any. So nobody takes the last one, with however many tokens; an admin alone may.
 */
import { Overloaded } from '@hauki/protocol';
import { ADMIN } from './rights.ts';

export class Shares {
  readonly #what: string;
  readonly #each: number;
  readonly #held = new Map<string, number>();
  #free: number;

  /** `each`: what one may have at most, however many are free. */
  constructor(what: string, limit: number, each = limit) {
    this.#what = what;
    this.#each = each;
    this.#free = limit;
  }

  /** Takes places for an owner, or throws Overloaded. The result gives them back. */
  take(owner: string, places = 1): () => void {
    const first = owner.split('/')[0]!;
    const held = this.#held.get(first) ?? 0;
    const whole = held + this.#free;
    const limit = first === ADMIN.name ? whole : Math.min(this.#each, Math.floor(whole / 2));
    if (held + places > limit) throw new Overloaded({ what: `${this.#what}, of one token and all below it`, limit });
    this.#held.set(first, held + places);
    this.#free -= places;
    let giveBack = () => {
      const left = this.#held.get(first)! - places;
      if (left > 0) this.#held.set(first, left);
      else this.#held.delete(first);
      this.#free += places;
    };
    return () => {
      giveBack();
      giveBack = () => {};
    };
  }
}
