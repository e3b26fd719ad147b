/**
 * The clock of a VM's turns: how long the present one may go on, and what it has computed. It is asked by the engine
 * itself, some thousand times a second while code of a worker runs.
 */
import { STOOD_STILL_MS, TURN_MS, WALL_PER_TURN } from './limits.ts';

/**
 * Thrown by a host function in a turn that is over. The library makes of a thrown error one of the VM's own, by its
 * message, and that the worker could catch and go on: this one has none to give, so that it leaves the VM as a whole.
 */
export class TurnOver extends Error {
  override get message(): string {
    throw new Error('its turn is over');
  }
}

export class Turn {
  /** What a turn may compute. */
  most_ms: number = TURN_MS.default;
  /** Not 0: the turn must stop. 1 is set from outside, 2 by the VM's own keeper. */
  doom: Int32Array | undefined;
  /** The turn was stopped. */
  overran = false;
  readonly #extend: (more_ms: number) => void;
  #began = 0;
  #deadline = 0;
  /** When it was asked last, and how long it was not while nothing ran here. */
  #asked = 0;
  #stood_ms = 0;
  /** Once the turn is no longer short: what processor time its thread had used by when. */
  #seen: { wall: number; cpu: number } | undefined;

  /** `extend`: the turn may go on for so long from now; for the watchdog outside. */
  constructor(extend: (more_ms: number) => void) {
    this.#extend = extend;
  }

  /** `native`: it may begin with long work of the engine, in which it is not asked; that is measured from the start. */
  begin(native = false): void {
    this.#began = performance.now();
    this.#deadline = this.#began + this.most_ms;
    this.#asked = this.#began;
    this.#stood_ms = 0;
    this.#seen = native ? { wall: this.#began, cpu: cpu_ms() } : undefined;
  }

  /** What the turn has computed; of a short one it is the time that has passed. */
  get took_ms(): number {
    return this.#took(performance.now());
  }

  /** Whether it must stop now. */
  stops(): boolean {
    const now = performance.now();
    const unasked_ms = now - this.#asked;
    this.#asked = now;
    const stood = unasked_ms > STOOD_STILL_MS;
    if (stood) this.#stood_ms += unasked_ms;
    this.#seen ??= { wall: stood ? this.#began : now, cpu: cpu_ms() };
    const doomed = this.doom !== undefined && Atomics.load(this.doom, 0) !== 0;
    if (!doomed && (now < this.#deadline || this.#extended(now))) return false;
    this.overran = true;
    return true;
  }

  /** Where the machine has too much to do a turn's time is mostly others': it gets what it has not had, within a bound. */
  #extended(now: number): boolean {
    const left = this.most_ms - this.#took(now);
    if (left < this.most_ms / 10 || now - this.#began - this.#stood_ms > this.most_ms * WALL_PER_TURN) return false;
    this.#deadline = now + left;
    this.#extend(left);
    return true;
  }

  #took(now: number): number {
    const passed = now - this.#began;
    const seen = this.#seen;
    return seen ? Math.min(passed, seen.wall - this.#began + cpu_ms() - seen.cpu) : passed;
  }
}

/** Processor time of this thread. */
function cpu_ms(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}
