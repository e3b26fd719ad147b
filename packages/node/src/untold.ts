/** Fates on their way to the core. What it does not hear while it is away is kept, bounded, until it is back. */
import { type CoreForNode, LIMITS, type ToldFate } from '@hauki/protocol';

export class Untold {
  readonly #core: () => CoreForNode | undefined;
  #fates: ToldFate[] = [];

  constructor(core: () => CoreForNode | undefined) {
    this.#core = core;
  }

  tell(fate: ToldFate): void {
    const core = this.#core();
    if (core) core.worker_died(fate).catch(() => this.#keep(fate));
    else this.#keep(fate);
  }

  /** Those that the core has not heard of yet, oldest first; they are handed over once. */
  take(): ToldFate[] {
    const fates = this.#fates;
    this.#fates = [];
    return fates;
  }

  /** They could not be told after all. */
  putBack(fates: ToldFate[]): void {
    this.#fates = [...fates, ...this.#fates].slice(-LIMITS.fates);
  }

  #keep(fate: ToldFate): void {
    this.#fates.push(fate);
    if (this.#fates.length > LIMITS.fates) this.#fates.shift();
  }
}
