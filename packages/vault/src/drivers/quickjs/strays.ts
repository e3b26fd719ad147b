/**
 * Promises of a VM that were rejected with nobody there to hear it. Most are heard a moment later; whether one is not is
 * known when the turn is over. The VM itself keeps the account, since only there is one promise the same as another.
 */
import type { JSValueHandle, QuickJS } from 'quickjs-wasi';

/** Of one turn; one that has more is told nothing wrong, but not all. */
const MOST = 256;

/** What the guest is told of a promise (`guest/vm-entry.ts`). */
export const STRAY = { heard: 0, unheard: 1, over: 2, uncaught: 3 } as const;

export class Strays {
  #told: { what: number; promise: JSValueHandle; reason: JSValueHandle }[] = [];
  /** More was heard than could be kept: what is kept may have been heard since. */
  #unsure = false;

  /** For the engine. */
  readonly hear = (promise: JSValueHandle, reason: JSValueHandle, heard: boolean): void => {
    if (this.#told.length >= (heard ? 2 * MOST : MOST)) {
      this.#unsure ||= heard;
      return;
    }
    try {
      this.#told.push({ what: heard ? STRAY.heard : STRAY.unheard, promise: promise.dup(), reason: reason.dup() });
    } catch {
      // Its memory is full: then that is what is told of it.
      this.#unsure = true;
    }
  };

  clear(): void {
    this.#told = [];
  }

  /** At a turn's end: hands over what there is. True when the VM was entered for it. */
  tell(vm: QuickJS, stray: JSValueHandle): boolean {
    if (this.#told.length === 0) return false;
    const told = this.#told;
    this.#told = [];
    const enter = (what: number, ...more: JSValueHandle[]) => {
      const first = vm.newNumber(what);
      vm.callFunction(stray, vm.undefined, first, ...more).dispose();
      first.dispose();
    };
    try {
      for (const { what, promise, reason } of this.#unsure ? [] : told) enter(what, promise, reason);
      enter(STRAY.over);
    } finally {
      this.#unsure = false;
      for (const { promise, reason } of told) {
        promise.dispose();
        reason.dispose();
      }
    }
    return true;
  }
}
