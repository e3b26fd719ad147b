/** What a watch gives, as something else. */

/** The items of an iterator, each changed by `change`; it is left as the iterator is. */
export function mapped<A, B>(items: AsyncIterableIterator<A>, change: (item: A) => B): AsyncIterableIterator<B> {
  return {
    async next() {
      const { done, value } = await items.next();
      return done ? { done, value } : { done: false, value: change(value) };
    },
    async return() {
      await items.return?.();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
