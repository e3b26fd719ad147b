/** What a version has answered: how often, how often wrongly, how fast. */
import type { AnswerStats } from '@hauki/protocol';
import { KERNEL_LIMITS } from './limits.ts';

/** How a request ended. Of one that its client gave up it is known only that the answer would have taken longer. */
const OUTCOMES = ['answered', 'failed', 'given_up'] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** Of the last requests. */
export interface Tally {
  /** Not given up; `failed` of them. */
  answered: number;
  failed: number;
  /** Known to be faster or slower than the time asked for; `slow` of them. */
  timed: number;
  slow: number;
}

export class VersionStats {
  requests = 0;
  errors = 0;
  /** So many there were when the bounds were last looked at. */
  judged_at = 0;
  readonly #times = new Float32Array(KERNEL_LIMITS.times_kept);
  readonly #outcomes = new Uint8Array(KERNEL_LIMITS.times_kept);

  /** Gives the request's number, for `broke`. */
  note(ms: number, outcome: Outcome): number {
    const number = this.requests++;
    const at = number % KERNEL_LIMITS.times_kept;
    this.#times[at] = ms;
    this.#outcomes[at] = OUTCOMES.indexOf(outcome);
    if (outcome === 'failed') this.errors++;
    return number;
  }

  /** An answer that had well begun broke off. One that is long past is left as it was noted. */
  broke(number: number): void {
    const at = number % KERNEL_LIMITS.times_kept;
    if (this.requests - number > KERNEL_LIMITS.times_kept || OUTCOMES[this.#outcomes[at]!] === 'failed') return;
    this.#outcomes[at] = OUTCOMES.indexOf('failed');
    this.errors++;
  }

  /** Counts the last requests, and which of them took longer than `ms`. */
  tally(ms = Number.POSITIVE_INFINITY): Tally {
    const tally: Tally = { answered: 0, failed: 0, timed: 0, slow: 0 };
    for (let at = 0; at < this.#kept; at++) {
      const outcome = OUTCOMES[this.#outcomes[at]!];
      const slow = this.#times[at]! > ms;
      if (outcome !== 'given_up') tally.answered++;
      if (outcome === 'failed') tally.failed++;
      if (slow) tally.slow++;
      if (slow || outcome !== 'given_up') tally.timed++;
    }
    return tally;
  }

  view(): AnswerStats {
    const { requests, errors } = this;
    const { answered, failed } = this.tally();
    const error_rate = answered === 0 ? 0 : failed / answered;
    const sorted = this.#times.slice(0, this.#kept).sort();
    const at = (share: number) =>
      sorted.length === 0 ? null : Math.round(sorted[Math.ceil(sorted.length * share) - 1]! * 1000) / 1000;
    return { requests, errors, error_rate, p50_ms: at(0.5), p99_ms: at(0.99) };
  }

  get #kept(): number {
    return Math.min(this.requests, KERNEL_LIMITS.times_kept);
  }
}
