/**
 * VMs prepared ahead, each handed out once: as many as were taken within the last seconds, one at least, within a bound.
 * Who clones once clones again.
 */
import { DEMAND_MS, SPARES } from './limits.ts';

/** Long enough for the vault that took the last one to have loaded its worker. */
const AFTER_MS = 10;

export class Spares<T> {
  readonly #make: () => Promise<T>;
  readonly #now: () => number;
  readonly #ready: Promise<T>[] = [];
  #taken_at: number[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(make: () => Promise<T>, now: () => number) {
    this.#make = make;
    this.#now = now;
  }

  /** How many are kept ready at the present demand. */
  get wanted(): number {
    const since = this.#now() - DEMAND_MS;
    this.#taken_at = this.#taken_at.filter((at) => at > since).slice(-SPARES);
    return Math.max(1, this.#taken_at.length);
  }

  get ready(): number {
    return this.#ready.length;
  }

  /** One that is prepared, or else a new one. */
  take(): Promise<T> {
    this.#taken_at.push(this.#now());
    const taken = this.#ready.shift() ?? this.#make();
    this.fill();
    return taken;
  }

  /** Prepares what is wanting, one after the other, when those who are being served have been. */
  fill(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#ready.length >= this.wanted) return;
      const made = this.#make();
      this.#ready.push(made);
      made.then(
        () => this.fill(),
        () => {
          const at = this.#ready.indexOf(made);
          if (at >= 0) this.#ready.splice(at, 1);
        },
      );
    }, AFTER_MS);
  }
}
