/**
 * How many containers start at once; the others wait their turn, in order. A start computes nearly all the time it takes,
 * so that fifty at once are ready no earlier than fifty in turn: only the first of them is ready with the last.
 */

export class Lanes {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Resolves when it is one's turn, with the way out, which is to be called once. */
  async enter(): Promise<() => void> {
    if (this.#free > 0) this.#free--;
    // Whoever leaves hands over the place.
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return () => {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    };
  }
}
