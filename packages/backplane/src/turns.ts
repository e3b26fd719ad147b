/** Work on one name after another: what renames, removes or appends to the same file must not overlap. */

export type Turns = <T>(name: string, work: () => Promise<T>) => Promise<T>;

/** Makes turns. Failed work lets the next run; a name without work costs nothing. */
export function turns(): Turns & { idle(): Promise<unknown> } {
  const last = new Map<string, Promise<unknown>>();
  const take = <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const mine = (last.get(name) ?? Promise.resolve()).then(work, work);
    last.set(name, mine);
    const done = () => {
      if (last.get(name) === mine) last.delete(name);
    };
    mine.then(done, done);
    return mine;
  };
  return Object.assign(take, { idle: () => Promise.allSettled(last.values()) });
}
