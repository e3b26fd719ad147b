/**
 * What a sweep may not remove: content that is on its way in. Shared by both kinds of objects.
 *
 * What always holds: a digest that is held, or was touched after its sweep began to look, is not among the candidates
 * when they are removed; asking and removing happen in one step of the event loop.
 */
import { BACKPLANE_LIMITS } from './limits.ts';

export class Guard {
  /** How often each digest is held, and whether by more than one since the first of them came. */
  readonly #held = new Map<string, { count: number; shared: boolean }>();
  /** What a sweep means to remove; undefined when there is none. */
  #candidates: Set<string> | undefined;
  /** What came in while the sweep was still looking. */
  #touched: Set<string> | undefined;

  get sweeping(): boolean {
    return this.#touched !== undefined || this.#candidates !== undefined;
  }

  /** Content with this digest comes in. Returns what lets go of it, once. */
  hold(digest: string): () => void {
    this.#touch(digest);
    const there = this.#held.get(digest);
    this.#held.set(digest, { count: (there?.count ?? 0) + 1, shared: there !== undefined });
    let over = false;
    return () => {
      if (over) return;
      over = true;
      this.#touch(digest); // what wants it was perhaps written after the sweep had looked there
      const entry = this.#held.get(digest)!;
      entry.count -= 1;
      if (entry.count === 0) this.#held.delete(digest);
    };
  }

  /** Whether nobody but the one who holds it has held it since. */
  isSole(digest: string): boolean {
    return this.#held.get(digest)?.shared === false;
  }

  #touch(digest: string): void {
    this.#touched?.add(digest);
    this.#candidates?.delete(digest);
  }

  /** Groups of what the shelves hold, without what is held or comes in meanwhile. Each is complete when it is given. */
  async *groups(shelves: AsyncIterable<readonly string[]>): AsyncGenerator<Set<string>> {
    let found = new Set<string>();
    this.#touched = new Set();
    const settle = () => {
      for (const digest of this.#touched!) found.delete(digest);
      for (const digest of this.#held.keys()) found.delete(digest);
      this.#touched = undefined;
      this.#candidates = found;
      return found;
    };
    try {
      for await (const shelf of shelves) {
        for (const digest of shelf) found.add(digest);
        if (found.size < BACKPLANE_LIMITS.sweep_objects) continue;
        yield settle();
        found = new Set();
        this.#touched = new Set();
        this.#candidates = undefined;
      }
      if (found.size > 0) yield settle();
    } finally {
      this.#touched = undefined;
      this.#candidates = undefined;
    }
  }

  /** Whether this may be removed now; it is no candidate any more then. */
  take(digest: string): boolean {
    return this.#candidates?.delete(digest) ?? false;
  }
}
