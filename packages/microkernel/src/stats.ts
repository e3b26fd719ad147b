/** What a version has answered: how often, how often wrongly, how fast. */
import type { AnswerStats } from '@hauki/protocol';
import { KERNEL_LIMITS } from './limits.ts';

export class VersionStats {
  requests = 0;
  errors = 0;
  readonly #times = new Float32Array(KERNEL_LIMITS.times_kept);
  readonly #failed = new Uint8Array(KERNEL_LIMITS.times_kept);

  note(ms: number, failed: boolean): void {
    const at = this.requests++ % KERNEL_LIMITS.times_kept;
    this.#times[at] = ms;
    this.#failed[at] = failed ? 1 : 0;
    if (failed) this.errors++;
  }

  view(): AnswerStats {
    const count = Math.min(this.requests, KERNEL_LIMITS.times_kept);
    const { requests, errors } = this;
    if (count === 0) return { requests, errors, error_rate: 0, p50_ms: null, p99_ms: null };
    const sorted = this.#times.slice(0, count).sort();
    const at = (share: number) => Math.round(sorted[Math.min(count - 1, Math.floor(count * share))]! * 1000) / 1000;
    const failed = this.#failed.subarray(0, count).reduce((sum, one) => sum + one, 0);
    return { requests, errors, error_rate: failed / count, p50_ms: at(0.5), p99_ms: at(0.99) };
  }
}
