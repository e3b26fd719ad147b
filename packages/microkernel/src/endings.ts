/**
 * How vaults of this kernel ended, by the agent's word: a session that breaks off says only that it did. What is known is
 * bounded; the oldest gives way.
 */
import type { Fate } from '@hauki/protocol';

/** Vaults whose end is remembered, with their last words (`LIMITS.log_tail_chars`): as many as may be staged at once, and then some. */
const REMEMBERED = 256;
/** The agent's word comes a moment after the session's end. */
const WAIT_MS = 2_000;

type Ending = Pick<Fate, 'reason' | 'lines'>;

export class Endings {
  readonly #known = new Map<string, Ending>();
  readonly #waiting = new Map<string, (reason: string) => void>();

  tell({ worker, reason, lines }: Pick<Fate, 'worker' | 'reason' | 'lines'>): void {
    this.#known.set(worker, { reason, lines });
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= REMEMBERED) break;
      this.#known.delete(oldest);
    }
    this.#waiting.get(worker)?.(reason);
  }

  /** How this vault ended, where that is known by now. */
  get(worker: string): Ending | undefined {
    return this.#known.get(worker);
  }

  /** Why this vault ended; undefined where nobody says so in time. For one asker at a time. */
  async of(worker: string): Promise<string | undefined> {
    const known = this.#known.get(worker);
    if (known !== undefined) return known.reason;
    return new Promise((resolve) => {
      const settle = (reason?: string) => {
        clearTimeout(late);
        this.#waiting.delete(worker);
        resolve(reason);
      };
      const late = setTimeout(settle, WAIT_MS);
      this.#waiting.set(worker, settle);
    });
  }
}
