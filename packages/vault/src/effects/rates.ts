/** How often something may happen in a minute, whichever minute that is: the times of what happened, for each rule. */
import { keepNewest } from '@hauki/rpc';

export interface Rule {
  /** 0: without bound. */
  per_minute: number;
}

export interface Rates<R extends Rule = Rule> {
  /** Takes one from the first of the rules that has one left; undefined where none has. */
  take<T extends R>(rules: readonly T[]): T | undefined;
}

const MINUTE_MS = 60_000;
/** Parts of a minute that are counted each: a rule of many is exact to one of them, and takes no more memory. */
const PARTS = 60;
const PART_MS = MINUTE_MS / PARTS;
/** As many rules as a request may name, twice over: those that nobody asks any more go. */
const RULES = 128;

/** What happened in one part of a minute. */
interface Part {
  until: number;
  count: number;
}

/** `now` in milliseconds. Rules that say the same are the same, also after grants were given anew. */
export function createRates(now: () => number = () => performance.now()): Rates {
  const taken = new Map<string, Part[]>();
  return {
    take(rules) {
      const free = rules.find(({ per_minute }) => per_minute === 0);
      if (free) return free;
      const time = now();
      for (const rule of rules) {
        const key = JSON.stringify(rule);
        // A part counts until its last moment is a minute ago.
        const parts = (taken.get(key) ?? []).filter(({ until }) => until + MINUTE_MS > time);
        taken.delete(key);
        taken.set(key, parts);
        keepNewest(taken, RULES);
        if (parts.reduce((sum, { count }) => sum + count, 0) >= rule.per_minute) continue;
        const last = parts.at(-1);
        if (last && last.until > time) last.count++;
        else parts.push({ until: time + PART_MS, count: 1 });
        return rule;
      }
      return undefined;
    },
  };
}
