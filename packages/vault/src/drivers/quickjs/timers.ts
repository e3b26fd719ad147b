/** The timers that a VM's guest has set, in the thread's own clock. */
import { TIMERS } from './limits.ts';

/** The longest that a timer can wait. */
const MOST_MS = 0x7fffffff;

export class VmTimers {
  readonly #fire: (id: number) => void;
  readonly #set = new Map<number, NodeJS.Timeout>();

  constructor(fire: (id: number) => void) {
    this.#fire = fire;
  }

  /** False when there are too many. */
  arm(id: number, delay_ms: number): boolean {
    if (this.#set.size >= TIMERS) return false;
    clearTimeout(this.#set.get(id));
    const due = () => {
      this.#set.delete(id);
      this.#fire(id);
    };
    this.#set.set(id, setTimeout(due, Math.max(0, Math.min(Number(delay_ms) || 0, MOST_MS))));
    return true;
  }

  disarm(id: number): void {
    clearTimeout(this.#set.get(id));
    this.#set.delete(id);
  }

  clear(): void {
    for (const timer of this.#set.values()) clearTimeout(timer);
    this.#set.clear();
  }
}
