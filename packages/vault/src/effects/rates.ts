/** How often something may happen in a minute: a token bucket for each rule that bounds it. */

export interface Rule {
  /** 0: without bound. */
  per_minute: number;
}

export interface Rates<R extends Rule = Rule> {
  /** Takes one from the first of the rules that has one left; undefined where none has. */
  take<T extends R>(rules: readonly T[]): T | undefined;
}

const MINUTE_MS = 60_000;

/** `now` in milliseconds. Rules that say the same are the same, also after grants were given anew. */
export function createRates(now: () => number = () => performance.now()): Rates {
  const buckets = new Map<string, { left: number; at: number }>();
  return {
    take(rules) {
      const free = rules.find(({ per_minute }) => per_minute === 0);
      if (free) return free;
      for (const rule of rules) {
        const { per_minute } = rule;
        const key = JSON.stringify(rule);
        const time = now();
        const bucket = buckets.get(key) ?? { left: per_minute, at: time };
        bucket.left = Math.min(per_minute, bucket.left + ((time - bucket.at) * per_minute) / MINUTE_MS);
        bucket.at = time;
        buckets.delete(key);
        buckets.set(key, bucket);
        // As many as a request may name, twice over: those that nobody asks any more go.
        if (buckets.size > 128) for (const oldest of buckets.keys()) if (buckets.delete(oldest)) break;
        if (bucket.left < 1) continue;
        bucket.left -= 1;
        return rule;
      }
      return undefined;
    },
  };
}
