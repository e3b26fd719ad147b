/**
 * Versions that another took the place of, until what they had begun is over.
 *
 * What always holds: one that serves nothing more goes first, and no more than `KERNEL_LIMITS.live_versions` live on with
 * the one that serves; what one has begun is cut only beyond that, or after its time.
 */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { Instance } from './instance.ts';
import { KERNEL_LIMITS } from './limits.ts';

export class Draining {
  readonly #old = new Set<Instance>();

  get all(): Instance[] {
    return [...this.#old];
  }

  get size(): number {
    return this.#old.size;
  }

  /** Resolves when it is ended. */
  async add(old: Instance): Promise<void> {
    this.#old.add(old);
    old.is_left = true;
    // Whoever was given it in this turn has asked it by the next.
    await turn();
    this.#makeRoom();
    const is_idle = await old.idle(KERNEL_LIMITS.drain_ms);
    // To end a vault takes the processor from the first requests of the one that took its place.
    if (is_idle) await sleep(KERNEL_LIMITS.rest_ms, undefined, { ref: false });
    await old.retire(is_idle ? 'it serves no longer' : 'its time to drain was over');
    this.#old.delete(old);
  }

  /** One whose vault has died. */
  forget(old: Instance): void {
    this.#old.delete(old);
  }

  /** A long stream does not keep old versions for ever. */
  #makeRoom(): void {
    const old = this.all.filter(({ ends }) => !ends);
    const [rest, busy] = [old.filter((one) => one.in_flight === 0), old.filter((one) => one.in_flight > 0)];
    const beyond = Math.max(0, old.length - (KERNEL_LIMITS.live_versions - 1));
    for (const one of [...rest, ...busy].slice(0, beyond)) void one.end('too many old versions lived on');
  }
}
