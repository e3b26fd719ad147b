/** Bodies that pass through the kernel, for whoever must know when they are over. */

/**
 * The same stream; `over` is called once, when it has ended, was left, or broke off. No generator: one that waits for a
 * chunk could not be left before it comes.
 */
export function watched(
  stream: AsyncIterable<Uint8Array>,
  over: (broke: boolean) => void,
): AsyncIterableIterator<Uint8Array> {
  const chunks = stream[Symbol.asyncIterator]();
  let is_over = false;
  const end = (broke: boolean) => {
    if (is_over) return;
    is_over = true;
    over(broke);
  };
  return {
    async next() {
      try {
        const next = await chunks.next();
        if (next.done) end(false);
        return next;
      } catch (error) {
        end(true);
        throw error;
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
