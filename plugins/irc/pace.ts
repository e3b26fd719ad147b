/** The pace at which lines may leave: a few at once, then one after each wait, in the order in which they were asked for. */

/** Lines at once. */
const BURST = 4;

export class Pace {
  readonly #wait_ms: number;
  #free = BURST;
  #filling = false;
  readonly #waiting: (() => void)[] = [];

  constructor(wait_ms: number) {
    this.#wait_ms = wait_ms;
  }

  /** Resolves when a line may leave. Rejects with the signal's reason. */
  async take(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw signal.reason;
    this.#fill();
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const go = () => {
        signal.removeEventListener('abort', stop);
        resolve();
      };
      const stop = () => {
        this.#waiting.splice(this.#waiting.indexOf(go), 1);
        signal.removeEventListener('abort', stop);
        reject(signal.reason);
      };
      this.#waiting.push(go);
      signal.addEventListener('abort', stop);
    });
  }

  /** One place more after each wait, while there are fewer than may be. */
  #fill(): void {
    if (this.#filling) return;
    this.#filling = true;
    setTimeout(() => {
      this.#filling = false;
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
      if (this.#free < BURST) this.#fill();
    }, this.#wait_ms);
  }
}
