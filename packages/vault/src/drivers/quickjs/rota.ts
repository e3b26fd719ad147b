/** When a VM may be entered: within its share of a core, and once one's turn was long, one VM of the thread at a time. */
import { YIELD_AFTER_MS } from './limits.ts';
import type { Meter } from './meter.ts';

/** The order among the VMs of one thread. */
export class Rota {
  readonly #queue: (() => void)[] = [];
  #was_long = false;
  #looks = false;

  /** A turn was long, and the thread has not looked since at what came for it: who is to start, and who to end. */
  get busy(): boolean {
    return this.#was_long;
  }

  /** A turn has ended that took so long. */
  ended(took_ms: number): void {
    if (took_ms < YIELD_AFTER_MS) return;
    this.#was_long = true;
    this.#look();
  }

  /** Runs it after the next look, behind all that wait already. */
  later(enter: () => void): void {
    this.#queue.push(enter);
    this.#look();
  }

  #look(): void {
    if (this.#looks) return;
    this.#looks = true;
    setImmediate(() => {
      this.#looks = false;
      this.#was_long = false;
      while (!this.#was_long && this.#queue.length > 0) this.#queue.shift()!();
      if (this.#queue.length > 0) this.#look();
    });
  }
}

/** A VM's place in it. */
export class Place {
  readonly #rota: Rota;
  readonly #meter: Meter;
  readonly #enter: () => void;
  #waits = false;

  /** `enter` is called when a VM that might not be entered may be. */
  constructor(rota: Rota, meter: Meter, enter: () => void) {
    this.#rota = rota;
    this.#meter = meter;
    this.#enter = enter;
  }

  /** Milliseconds that its VM has computed. */
  get spent_ms(): number {
    return this.#meter.spent_ms;
  }

  /** A turn of its VM has ended that took so long. */
  ended(took_ms: number): void {
    this.#meter.spend(took_ms);
    this.#rota.ended(took_ms);
  }

  /** Whether the VM may be entered now. */
  may(): boolean {
    if (this.#waits) return false;
    const wait_ms = this.#meter.wait_ms();
    this.#waits = wait_ms > 0 || this.#rota.busy;
    if (wait_ms > 0) setTimeout(() => this.#rota.later(this.#again), wait_ms);
    else if (this.#waits) this.#rota.later(this.#again);
    return !this.#waits;
  }

  readonly #again = () => {
    this.#waits = false;
    this.#enter();
  };
}
