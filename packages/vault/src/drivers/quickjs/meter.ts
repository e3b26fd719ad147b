/**
 * What a vault has computed, and how long it must wait when that was more than its share: a bucket that fills by
 * `share` milliseconds a millisecond, up to what one window gives, and that every turn empties by what it took.
 */
import { LEAST_SHARE, LONGEST_WAIT_MS, SHARE_WINDOW_MS } from './limits.ts';

export class Meter {
  readonly share: number;
  readonly #now: () => number;
  #level: number;
  #at: number;
  /** Milliseconds that the vault has computed since it began. */
  spent_ms = 0;

  /** `share`: of one core; `now` in milliseconds, never backwards. */
  constructor(share: number, now: () => number) {
    this.share = Math.min(1, Math.max(LEAST_SHARE, share));
    this.#now = now;
    this.#level = this.share * SHARE_WINDOW_MS;
    this.#at = now();
  }

  /** A turn has ended that took so long. */
  spend(took_ms: number): void {
    this.#fill();
    this.spent_ms += took_ms;
    this.#level = Math.max(this.#level - took_ms, -this.share * LONGEST_WAIT_MS);
  }

  /** How long the vault must wait before its next turn; 0: not at all. */
  wait_ms(): number {
    this.#fill();
    return this.#level >= 0 ? 0 : -this.#level / this.share;
  }

  #fill(): void {
    const now = this.#now();
    this.#level = Math.min(this.share * SHARE_WINDOW_MS, this.#level + (now - this.#at) * this.share);
    this.#at = now;
  }
}
