/** A result that the caller calls on, from the arrival of its call until it is forgotten. */

export type Outcome = { value: unknown } | { error: unknown };

export class Kept {
  #outcome: Outcome | undefined;
  readonly #waiting: ((outcome: Outcome) => void)[] = [];

  /** The result, where there is one by now. */
  get there(): { value: unknown } | undefined {
    return this.#outcome && 'value' in this.#outcome ? this.#outcome : undefined;
  }

  get pending(): boolean {
    return this.#outcome === undefined;
  }

  /** What came of the call. Those who wait go on at once, in the order in which they came: nobody comes between. */
  settle(outcome: Outcome): void {
    if (this.#outcome) return;
    this.#outcome = outcome;
    for (const go of this.#waiting.splice(0)) go(outcome);
  }

  /** Goes on with the result, now or when it is there. Throws or rejects with what the call failed with. */
  when(go: (value: unknown) => unknown): unknown {
    const run = (outcome: Outcome) => {
      if ('error' in outcome) throw outcome.error;
      return go(outcome.value);
    };
    if (this.#outcome) return run(this.#outcome);
    return new Promise((resolve, reject) => {
      this.#waiting.push((outcome) => {
        try {
          resolve(run(outcome));
        } catch (error) {
          reject(error);
        }
      });
    });
  }
}
