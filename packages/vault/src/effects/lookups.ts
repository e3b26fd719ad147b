/**
 * Who may look a name up next. The system does it in threads that all vaults of a node share, and a name server that never
 * answers keeps one of these for many seconds, whoever has given up meanwhile.
 *
 * What always holds: a worker with all its clones looks up one name at a time, so that no worker alone keeps the others
 * waiting; and of those that wait, one whose owner looks up fewest comes first.
 */

/** Looks up all addresses of a name. Rejects as `node:dns` does. */
export type Lookup = (host: string) => Promise<string[]>;

/** For whom a name is looked up. */
export interface Asker {
  /** The token that is above all others of its owner. */
  owner: string;
  /** The same for a worker and all its clones. */
  family: unknown;
}

/** Lets at most `limit` look up at once. Who gives up while waiting is forgotten. */
export function lookupsInTurn(
  lookup: Lookup,
  limit: number,
): (host: string, asker: Asker, signal: AbortSignal) => Promise<string[]> {
  const under_way = new Set<Asker>();
  const waiting = new Map<Asker, () => void>();
  const go = () => {
    while (under_way.size < limit) {
      const busy = [...under_way];
      const has = ({ owner }: Asker) => busy.filter((one) => one.owner === owner).length;
      const free = [...waiting.keys()].filter(({ family }) => busy.every((one) => one.family !== family));
      const [next] = free.sort((one, other) => has(one) - has(other));
      if (!next) return;
      const begin = waiting.get(next)!;
      waiting.delete(next);
      under_way.add(next);
      begin();
    }
  };
  return async (host, { owner, family }, signal) => {
    const turn: Asker = { owner, family };
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const give_up = () => {
        waiting.delete(turn);
        reject(signal.reason);
      };
      signal.addEventListener('abort', give_up);
      waiting.set(turn, () => {
        signal.removeEventListener('abort', give_up);
        resolve();
      });
      go();
    });
    try {
      return await lookup(host);
    } finally {
      under_way.delete(turn);
      go();
    }
  };
}
