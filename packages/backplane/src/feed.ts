/**
 * What a namespace's watchers read from: its newest changes, remembered once for all of them.
 *
 * What always holds: memory is bounded whatever watchers do, since each is but a place in what is remembered; a watcher
 * sees every change after its place, in order and once, or learns that it missed some (`ChangesMissed`).
 */
import { BadInput, ChangesMissed, Overloaded } from '@hauki/protocol';
import { BACKPLANE_LIMITS } from './limits.ts';
import type { Change } from './types.ts';

export interface Feed {
  /** Takes in a committed change; revisions only grow. */
  add(change: Change): void;
  watch(prefix: string, options: { after?: number; signal?: AbortSignal }): AsyncIterableIterator<Change>;
  close(): void;
}

/** What is forgotten is cut off as soon as it is so large a part of what is remembered. */
const FORGOTTEN_PARTS = 4;

const charsOf = ({ key, value = '' }: Change) => key.length + value.length;

/** Opens a feed for a namespace whose newest revision is `revision`: what lies before it is not remembered. */
export function openFeed(revision: number, remembered_changes: number = BACKPLANE_LIMITS.remembered_changes): Feed {
  /** Changes from `head` on; what lies before is cut off now and then. */
  let changes: Change[] = [];
  let head = 0;
  let chars = 0;
  let forgotten = revision;
  let newest = revision;
  let woken = Promise.withResolvers<void>();
  let closed = false;
  let watchers = 0;

  const wake = () => {
    woken.resolve();
    woken = Promise.withResolvers<void>();
  };

  /** Where the first change after `revision` is. */
  function after(revision: number): number {
    let [low, high] = [head, changes.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (changes[middle]!.revision > revision) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  function checkRemembered(place: number): void {
    if (place < forgotten || place > newest) throw new ChangesMissed({ after: place, oldest: forgotten + 1 });
  }

  return {
    add(change) {
      changes.push(change);
      chars += charsOf(change);
      newest = change.revision;
      while (
        changes.length - head > remembered_changes ||
        (chars > BACKPLANE_LIMITS.remembered_chars && changes.length - head > 1)
      ) {
        const oldest = changes[head++]!;
        chars -= charsOf(oldest);
        forgotten = oldest.revision;
      }
      // Until then what was forgotten is held all the same.
      if (head > remembered_changes / FORGOTTEN_PARTS) {
        changes = changes.slice(head);
        head = 0;
      }
      wake();
    },

    watch(prefix, { after: given, signal }) {
      if (given !== undefined && (!Number.isSafeInteger(given) || given < 0))
        throw new BadInput({ what: 'after', why: 'it is no revision' });
      const limit = BACKPLANE_LIMITS.watchers;
      if (watchers >= limit) throw new Overloaded({ what: 'watchers', limit });
      let place = given ?? newest;
      checkRemembered(place);
      watchers += 1;
      let over = false;
      const stop = () => {
        if (over) return;
        over = true;
        watchers -= 1;
        signal?.removeEventListener('abort', stopAndWake);
      };
      const stopAndWake = () => {
        stop();
        wake();
      };
      if (signal?.aborted) stop();
      else signal?.addEventListener('abort', stopAndWake, { once: true });

      const next = async (): Promise<IteratorResult<Change>> => {
        while (!over && !closed) {
          try {
            checkRemembered(place);
          } catch (thrown) {
            stop();
            throw thrown;
          }
          for (let at = after(place); at < changes.length; at++) {
            const change = changes[at]!;
            place = change.revision;
            if (change.key.startsWith(prefix)) return { done: false, value: change };
          }
          place = newest;
          await woken.promise;
        }
        stop();
        return { done: true, value: undefined };
      };
      return {
        next,
        async return() {
          stopAndWake();
          return { done: true, value: undefined };
        },
        [Symbol.asyncIterator]() {
          return this;
        },
      };
    },

    close() {
      closed = true;
      wake();
    },
  };
}
