/**
 * The order of writes: those of one name run one after another as they came, and of all only so many at once; and the
 * few places for contents that stream in, which may take long.
 *
 * What always holds: a name that waits does not hold up another; work that fails lets the next one run; what waits is
 * bounded in bytes, and beyond that refused with `Overloaded` before anything was done.
 */
import { Overloaded } from '@hauki/protocol';

export type Queue = <T>(name: string, bytes: number, work: () => Promise<T>) => Promise<T>;

/** Makes a queue that runs at most `at_once` works and holds at most `limit` bytes. */
export function queue(at_once: number, limit: number): Queue {
  const last = new Map<string, Promise<unknown>>();
  const waiting: (() => void)[] = [];
  let running = 0;
  let held = 0;

  async function withPlace<T>(work: () => Promise<T>): Promise<T> {
    if (running >= at_once) await new Promise<void>((resolve) => waiting.push(resolve));
    else running += 1;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next)
        next(); // it takes over the place
      else running -= 1;
    }
  }

  return (name, bytes, work) => {
    if (held + bytes > limit) return Promise.reject(new Overloaded({ what: 'the content of waiting writes', limit }));
    held += bytes;
    const run = () => withPlace(work);
    const mine = (last.get(name) ?? Promise.resolve()).then(run, run);
    last.set(name, mine);
    const done = () => {
      held -= bytes;
      if (last.get(name) === mine) last.delete(name);
    };
    mine.then(done, done);
    return mine;
  };
}

/**
 * Makes `at_once` places. Work waits for one as it came, among at most `limit` others and for at most `wait_ms`; beyond
 * either it is refused with `Overloaded` before it began.
 */
export function places(at_once: number, limit: number, wait_ms: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting = new Set<() => void>();
  let running = 0;

  function place(): Promise<void> {
    if (running < at_once) {
      running += 1;
      return Promise.resolve();
    }
    const refused = () => new Overloaded({ what: 'contents coming in', limit: at_once });
    if (waiting.size >= limit) return Promise.reject(refused());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.delete(go);
        reject(refused());
      }, wait_ms);
      const go = () => {
        clearTimeout(timer);
        waiting.delete(go);
        resolve();
      };
      waiting.add(go);
    });
  }

  return async (work) => {
    await place();
    try {
      return await work();
    } finally {
      const [next] = waiting;
      if (next)
        next(); // it takes over the place
      else running -= 1;
    }
  };
}
