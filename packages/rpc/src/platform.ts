/**
 * What differs between platforms, besides cryptography: here for Node, QuickJS and others, as far as each has it.
 * `platform-browser.ts` offers the same to pages; `#platform` chooses.
 */

import { ownFrames } from '@hauki/protocol';

type After = (run: () => void) => void;
const node = globalThis as {
  setImmediate?: After;
  process?: { nextTick?: After };
  Buffer?: { byteLength(text: string): number };
};

/** Whether the process ends when nothing is left to do, so that an idle connection must let it. */
export const EXITS = true;

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

/** Characters that are counted at once: what is left of them after each step takes memory. */
const COUNTED_CHARS = 64 * 1024;

/**
 * Length in UTF-8, for platforms that cannot say: by what is left when the short ones are taken out, since an interpreter
 * takes seconds to look at each of some million characters itself. A lone half of a pair counts as its replacement.
 */
export function countedBytes(text: string): number {
  let bytes = 0;
  for (let at = 0; at < text.length; at += COUNTED_CHARS) {
    const part = text.slice(at, at + COUNTED_CHARS);
    const two_or_more = part.replace(/[\0-\x7f]+/g, '');
    const three = part.replace(/[\0-\u07ff]+|[\ud800-\udbff][\udc00-\udfff]/g, '');
    bytes += part.length + two_or_more.length + three.length;
    // A pair that is parted between two of these counts as two lone halves: six bytes, not four.
    if (/[\ud800-\udbff][\udc00-\udfff]/.test(text.slice(at - 1, at + 1))) bytes -= 2;
  }
  return bytes;
}

/** Length in UTF-8. QuickJS has nothing to ask. */
export const utf8Bytes: (text: string) => number = node.Buffer?.byteLength ?? countedBytes;

/** What of an error's stack travels. */
export const framesOf = ({ stack }: Error, { frameless }: { frameless?: boolean }): string | undefined =>
  !frameless && typeof stack === 'string' ? ownFrames(stack) : undefined;
