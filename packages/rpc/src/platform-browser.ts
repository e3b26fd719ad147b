/** What a page's platform offers, where nothing has to be looked for. `platform.ts` says what it is. */

const encoder = new TextEncoder();

/** No page ends when nothing is left to do. */
export const EXITS = false;

export const now_ms = () => performance.now();
export const afterTurn = queueMicrotask;
export const afterEvent = queueMicrotask;
export const unref = <T>(timer: T): T => timer;
export const utf8Bytes = (text: string) => encoder.encode(text).length;
/** A page calls workers, which need not know its files. */
export const framesOf = () => undefined;
