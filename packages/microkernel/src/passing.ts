/** Bodies that pass through the kernel, for whoever must know when they are over. */
import { KERNEL_LIMITS } from './limits.ts';

/**
 * The same stream; `over` is called once, when it has ended, was left, or broke off. No generator: one that waits for a
 * chunk could not be left before it comes. `instead`: what ends one that broke off, where that is to be no failure.
 */
export function watched(
  stream: AsyncIterable<Uint8Array>,
  over: (broke: boolean) => void,
  instead?: () => Uint8Array | undefined,
): AsyncIterableIterator<Uint8Array> {
  const chunks = stream[Symbol.asyncIterator]();
  let is_over = false;
  let was_told = false;
  const end = (broke: boolean) => {
    if (is_over) return;
    is_over = true;
    over(broke);
  };
  return {
    async next() {
      if (was_told) return { done: true, value: undefined };
      try {
        const next = await chunks.next();
        if (next.done) end(false);
        return next;
      } catch (error) {
        const last = is_over ? undefined : instead?.();
        end(last === undefined);
        if (last === undefined) throw error;
        was_told = true;
        return { done: false, value: last };
      }
    },
    async return() {
      end(false);
      await chunks.return?.();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/**
 * The body of a request on its way to a version. `over` is called once, as by `watched`.
 *
 * What always holds: when the answer is over, what is left goes on for as long as somebody reads it, and is dropped then:
 * the next request of the client's connection stands behind it. Who reads after that hears so.
 */
export class Upload implements AsyncIterableIterator<Uint8Array> {
  readonly #chunks: AsyncIterableIterator<Uint8Array>;
  #is_over = false;
  /** Why, once it is. */
  #dropped: string | undefined;
  /** Chunks asked for so far. */
  #asked = 0;
  /** Whether the last of them has not come yet. */
  #waits = false;

  constructor(stream: AsyncIterable<Uint8Array>, over: () => void) {
    this.#chunks = watched(stream, () => {
      this.#is_over = true;
      over();
    });
  }

  async next(): Promise<IteratorResult<Uint8Array>> {
    this.#check();
    this.#asked++;
    this.#waits = true;
    try {
      const next = await this.#chunks.next();
      // One that waited while it was dropped has no end either: it would pass for a whole body.
      this.#check();
      return next;
    } finally {
      this.#waits = false;
    }
  }

  /** Throws where what was asked for is not the body's end. */
  #check(): void {
    if (this.#dropped) throw new Error(`the rest of the body was dropped: ${this.#dropped}`);
  }

  return(): Promise<IteratorResult<Uint8Array>> {
    return this.#chunks.return!();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The answer is over. */
  answered(): void {
    if (this.#is_over) return;
    const before = this.#asked;
    const look = () =>
      this.#waits || this.#asked > before ? this.answered() : this.drop('after the answer nobody read it');
    setTimeout(look, KERNEL_LIMITS.unread_ms).unref();
  }

  /** Nobody needs the rest. */
  drop(why = 'its client has gone, or the request has failed'): void {
    if (this.#is_over) return;
    this.#dropped = why;
    void this.return().catch(() => {});
  }
}
