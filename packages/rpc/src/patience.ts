/**
 * Waiting for a peer that has more to read than may be unsent: calls begin, and answers are written, when it has read
 * enough. Pages, which answer little, do without (`patience-browser.ts`); `#patience` chooses.
 *
 * What always holds: whoever reads gets all that it asked for; what waits goes on in its order; whoever takes nothing for
 * `unread_ms` is cut off, and so is who asks without end for what waits for nobody.
 */
import * as LIMITS from '@hauki/protocol/caller-limits';
import { unref } from '#platform';
import type { ServerPowers } from './server.ts';

/** How often those who wait look whether the peer has read. */
const LOOK_MS = 20;

export class Patience {
  readonly #powers: ServerPowers;
  readonly #waiting: (() => void)[] = [];
  /** Characters of answers that have left though too much was unsent. */
  #pressed = 0;

  constructor(powers: ServerPowers) {
    this.#powers = powers;
  }

  /** Whether the peer has more to read than may be unsent, or others wait for that already. */
  get full(): boolean {
    return this.#waiting.length > 0 || this.#overfull;
  }

  get #overfull(): boolean {
    const { over, transport } = this.#powers.wire;
    return !over && transport.buffered_bytes > LIMITS.unsent_bytes;
  }

  /**
   * Runs it now, or in its turn when the peer has read enough, or the session is over; then it resolves. What is urgent
   * does not wait.
   */
  whenRead(urgent: boolean, run: () => void): Promise<void> | void {
    if (urgent || !this.full) return run();
    return new Promise((resolve) => {
      this.#waiting.push(() => {
        run();
        resolve();
      });
      if (this.#waiting.length === 1) this.#look(0, 0);
    });
  }

  /** Looks again in a moment. `before` was unsent, and for `idle_ms` the peer has taken nothing. */
  #look(before: number, idle_ms: number): void {
    unref(
      setTimeout(() => {
        const { wire, end } = this.#powers;
        const unsent = wire.transport.buffered_bytes;
        if (idle_ms >= LIMITS.unread_ms) end('the peer reads more slowly than it asks');
        while (this.#waiting.length > 0 && !this.#overfull) this.#waiting.shift()!();
        if (this.#waiting.length > 0) this.#look(unsent, unsent < before ? 0 : idle_ms + LOOK_MS);
      }, LOOK_MS),
    );
  }

  /** Whether an answer of so many characters may leave; the session ends where not. */
  lets(chars: number): boolean {
    this.#pressed = this.#overfull ? this.#pressed + chars : 0;
    return this.#pressed <= LIMITS.unsent_bytes;
  }
}
