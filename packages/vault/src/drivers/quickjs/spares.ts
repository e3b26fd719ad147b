/**
 * Things prepared ahead, each handed out once: as many as were taken within the last seconds, within bounds. Who clones
 * once clones again.
 */
import { DEMAND_MS } from './limits.ts';

/**
 * Long enough for whoever took one to have its first result, on a busy machine too: making one takes the same thread.
 * Those that follow come one after the other.
 */
const AFTER_MS = 30;
const NEXT_MS = 1;

export interface SparesOptions<T> {
  make(): Promise<T>;
  now(): number;
  /** How many are kept when nobody has asked of late, and at most. */
  least: number;
  most: number;
  /** What is no longer wanted. */
  discard?(spare: T): void;
  /** From when one is taken to when the next is made, in milliseconds. */
  after_ms?: number;
}

export class Spares<T> {
  readonly #options: SparesOptions<T>;
  readonly #ready: Promise<T>[] = [];
  #taken_at: number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: SparesOptions<T>) {
    this.#options = options;
  }

  /** How many are kept ready at the present demand. */
  get wanted(): number {
    const { now, least, most } = this.#options;
    const since = now() - DEMAND_MS;
    this.#taken_at = this.#taken_at.filter((at) => at > since).slice(-most);
    return this.#closed ? 0 : Math.max(least, this.#taken_at.length);
  }

  get ready(): number {
    return this.#ready.length;
  }

  /** One that is prepared, or else a new one. */
  take(): Promise<T> {
    this.#taken_at.push(this.#options.now());
    const taken = this.#ready.shift() ?? this.#options.make();
    this.fill();
    return taken;
  }

  /** Prepares what is wanting, one after the other, when those who are being served have been. */
  fill(after_ms = this.#options.after_ms ?? AFTER_MS): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#ready.length >= this.wanted) return;
      const made = this.#options.make();
      this.#ready.push(made);
      made.then(
        () => this.fill(NEXT_MS),
        () => this.#drop(made),
      );
    }, after_ms);
  }

  /** Lets go of those that the present demand does not want. */
  trim(): void {
    while (this.#ready.length > this.wanted)
      void this.#ready.shift()!.then(
        (spare) => this.#options.discard?.(spare),
        () => {},
      );
  }

  /** Hands out no more that were prepared, and prepares none. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.trim();
  }

  /** This one has failed before it was used. */
  async lost(spare: T): Promise<void> {
    for (const one of [...this.#ready]) if ((await one.catch(() => undefined)) === spare) this.#drop(one);
  }

  #drop(made: Promise<T>): void {
    const at = this.#ready.indexOf(made);
    if (at >= 0) this.#ready.splice(at, 1);
  }
}
