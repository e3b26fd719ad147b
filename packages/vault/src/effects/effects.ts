/**
 * Effects: what the host does for a guest, on its grants' word. The guest only names an effect; whether it may, and
 * how much at once, is decided here, for each vault. A further effect is a module beside this one and a line in `MAKERS`.
 */
import { BadInput, type Grants, LIMITS, NoSuchMethod, Overloaded } from '@hauki/protocol';
import type { Effect, EffectMaker, EffectPowers, EffectVault } from './effect.ts';
import { fetchEffect } from './fetch.ts';
import { logEffect } from './log.ts';
import { meshfsEffects } from './meshfs.ts';

/** All effects there are. */
const MAKERS: EffectMaker[] = [logEffect, fetchEffect, meshfsEffects];
/** Need no room among those under way: they answer at once. */
const INSTANT = new Set(['log']);

/** A vault's effects. */
export interface Effects {
  /** Performs one, or rejects with a typed error. `signal`: the guest gives up. */
  perform(name: string, args: unknown[], signal?: AbortSignal): Promise<unknown>;
  /** Other grants from the next call on; what is open and granted no longer ends. */
  regrant(grants: Grants): void;
  /** The vault has ended: so does whatever is under way for it. */
  close(): void;
}

export function createEffects(powers: EffectPowers): Effects {
  const over = new AbortController();
  const watchers = new Set<() => void>();
  let { grants } = powers;
  let running = 0;
  const vault: EffectVault = {
    ...powers,
    get grants() {
      return grants;
    },
    ended: over.signal,
    onRegrant(run) {
      watchers.add(run);
      return () => watchers.delete(run);
    },
  };
  const effects = new Map<string, Effect>(MAKERS.flatMap((make) => Object.entries(make(vault))));

  return {
    async perform(name, args, signal) {
      if (!Array.isArray(args)) throw new BadInput({ what: String(name), why: 'arguments come as a list' });
      const effect = effects.get(name);
      if (!effect) throw new NoSuchMethod({ method: String(name), has: [...effects.keys()] });
      if (INSTANT.has(name)) return effect(args, over.signal);
      if (running >= LIMITS.effects_in_flight)
        throw new Overloaded({ what: 'effects of this worker', limit: LIMITS.effects_in_flight });
      running++;
      try {
        return await effect(args, signal ? AbortSignal.any([signal, over.signal]) : over.signal);
      } finally {
        running--;
      }
    },
    regrant(given) {
      grants = given;
      for (const run of [...watchers]) run();
    },
    close: () => over.abort(new Error('the vault has ended')),
  };
}
