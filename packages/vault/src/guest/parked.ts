/**
 * Calls that wait for what the worker waits for. One that has not settled when its caller waits no longer is given up,
 * or calls of a worker that answers none would pile up until it takes no more.
 */
import { DeadlineExceeded, LIMITS } from '@hauki/protocol';

/** How often they are looked through; one is given up so late at most. */
const EVERY_MS = 1_000;
/** Each has its answer to be written: not too many in one turn. */
const AT_ONCE = 100;

/** The steady one, before it is withheld: setting the machine's clock keeps no call waiting. */
const clock = globalThis.performance;

export class Parked {
  readonly #calls = new Set<{ until: number; give_up(): void }>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** The outcome of a call, or DeadlineExceeded. */
  bound(outcome: unknown, what: string, timeout_ms: number = LIMITS.call_ms): unknown {
    if (typeof (outcome as PromiseLike<unknown> | undefined)?.then !== 'function') return outcome;
    return new Promise((resolve, reject) => {
      const call = {
        until: clock.now() + timeout_ms,
        give_up: () => reject(new DeadlineExceeded({ what: `${what}()`, timeout_ms, may_have_run: true })),
      };
      this.#calls.add(call);
      this.#look();
      const over = (settle: (value: any) => void) => (value: unknown) => {
        this.#calls.delete(call);
        settle(value);
      };
      Promise.resolve(outcome).then(over(resolve), over(reject));
    });
  }

  #look(delay_ms = EVERY_MS): void {
    if (this.#timer !== undefined || this.#calls.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const now = clock.now();
      let given_up = 0;
      for (const call of this.#calls) {
        if (call.until > now) continue;
        if (given_up++ === AT_ONCE) break;
        this.#calls.delete(call);
        call.give_up();
      }
      this.#look(given_up > AT_ONCE ? 0 : EVERY_MS);
    }, delay_ms);
    (this.#timer as { unref?: () => void }).unref?.();
  }
}
