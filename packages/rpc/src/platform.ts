/**
 * What differs between platforms, besides cryptography: here for Node, QuickJS and others, as far as each has it.
 * `platform-browser.ts` offers the same to pages; `#platform` chooses.
 */

type After = (run: () => void) => void;
const node = globalThis as { setImmediate?: After; process?: { nextTick?: After } };

/** A steady clock where there is one: setting the wall clock passes no deadline. */
const clock = globalThis.performance;
export const now_ms = clock ? () => clock.now() : () => Date.now();

/** After the turn of the event loop where there is such a thing to wait for, else after what is queued in it. */
export const afterTurn: After = node.setImmediate ?? queueMicrotask;
/** As soon as what came in was dealt with, all that follows from it included. */
export const afterEvent: After = node.process?.nextTick ?? afterTurn;

/** Lets the process exit though the timer runs, where there is such a thing. Gives the timer. */
export function unref<T>(timer: T): T {
  (timer as { unref?(): void }).unref?.();
  return timer;
}

/** Length in UTF-8, counted by hand: QuickJS has no TextEncoder. A lone half of a pair counts as its replacement. */
export function utf8Bytes(text: string): number {
  let bytes = text.length;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x80) continue;
    bytes += code < 0x800 ? 1 : 2;
    // A pair is four bytes: two more than its units.
    if (code >= 0xd800 && code < 0xdc00 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) i++;
  }
  return bytes;
}
