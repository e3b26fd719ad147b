/**
 * Nodes or kernels that may come (back) at any moment: one that has lost its link, or all of them when a core has begun. What
 * asks for one of them waits for it a moment, instead of being refused.
 */
export class Comebacks {
  readonly #bounds: { back_ms: number; waiting: number };
  readonly #now: () => number;
  #until = 0;
  #next = Promise.withResolvers<void>();
  #waiting = 0;

  /** `back_ms`: how soon one comes back. `waiting`: so many wait at once. `now`: milliseconds of a steady clock. */
  constructor(bounds: { back_ms: number; waiting: number }, now = () => performance.now()) {
    this.#bounds = bounds;
    this.#now = now;
  }

  /** From now on one may come at any moment. */
  expect(): void {
    this.#until = this.#now() + this.#bounds.back_ms;
  }

  /** One has come. */
  came(): void {
    this.#next.resolve();
    this.#next = Promise.withResolvers();
  }

  /** Until when one is expected, and what resolves when it comes, as of now. */
  get expected(): { until: number; next: Promise<void> } {
    return { until: this.#until, next: this.#next.promise };
  }

  /** Waits for the next one, no longer than one is expected. False, at once, where none is, or too many wait. */
  async wait({ until, next } = this.expected): Promise<boolean> {
    const left_ms = until - this.#now();
    if (left_ms <= 0 || this.#waiting >= this.#bounds.waiting) return false;
    this.#waiting++;
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([next, new Promise((resolve) => (timer = setTimeout(resolve, left_ms)))]);
    clearTimeout(timer);
    this.#waiting--;
    return true;
  }
}
