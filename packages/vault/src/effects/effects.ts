/**
 * Effects: what the host does for a guest, on its grants' word. The guest only names an effect; whether it may, and
 * how much at once, is decided here, for each vault. A further effect is a module beside this one and a line in `MAKERS`.
 */
import {
  BadInput,
  describe,
  fromWire,
  GrantMissing,
  type Grants,
  isError,
  LIMITS,
  MeshError,
  NoSuchMethod,
  Overloaded,
  RemoteError,
  toWire,
} from '@hauki/protocol';
import { cloneEffects } from './clone.ts';
import { connectEffect } from './connect.ts';
import { type Effect, type EffectMaker, type EffectPowers, type EffectVault, wasRevoked } from './effect.ts';
import { fetchEffect } from './fetch.ts';
import { logEffect } from './log.ts';
import { meshfsEffects } from './meshfs.ts';
import { roomFor, topOf } from './network.ts';
import { createRates } from './rates.ts';
import { secretsOf } from './secrets.ts';
import { volumeEffects } from './volume.ts';
import { weightOf } from './weight.ts';

/** All effects there are. */
const MAKERS: EffectMaker[] = [logEffect, fetchEffect, connectEffect, meshfsEffects, volumeEffects, cloneEffects];
/** Need no room among those under way: they answer at once. */
const INSTANT = new Set(['log']);

/** Arguments of so little are not counted: all that may be under way together have a mebibyte. */
const SMALL_BYTES = 16 * 1024;

/** A vault's effects. */
export interface Effects {
  /** Performs one, or rejects with a typed error. `call.signal`: the guest gives up. */
  perform(name: string, args: unknown[], call?: { readonly signal?: AbortSignal | undefined }): Promise<unknown>;
  /** Other grants from the next call on; what is open and granted no longer ends. */
  regrant(grants: Grants): void;
  /** The vault has ended: so does whatever is under way for it. */
  close(): void;
}

export function createEffects(powers: EffectPowers): Effects {
  const over = new AbortController();
  const watchers = new Set<() => void>();
  let { grants } = powers;
  /** Kinds of which something was taken away. */
  const revoked = new Set<string>();
  let running = 0;
  const now = {
    worker: '',
    rates: createRates(),
    get grants() {
      return grants;
    },
  };
  const allowances = () => powers.allowances?.() ?? [now];
  const vault: EffectVault = {
    meshfs: powers.meshfs,
    volume: powers.volume,
    family: powers.family,
    allowances,
    // Who is above all others counts what the whole family does.
    asker: () => ({ owner: topOf(powers.owner), family: allowances().at(-1)!.rates }),
    network: powers.network,
    hold: roomFor(
      'bytes held for this worker’s fetches and connections',
      LIMITS.fetched_bytes_each,
      powers.network.holdFor(powers.owner),
    ),
    log: powers.log,
    fetched: powers.fetched,
    paused: powers.paused,
    get grants() {
      return grants;
    },
    secrets: secretsOf(now, powers.secrets),
    told: tell,
    ended: over.signal,
    onRegrant(run) {
      watchers.add(run);
      return () => watchers.delete(run);
    },
  };
  /** What effects under way were called with stays in memory until they are over: room besides that of fetches. */
  const holdArgs = roomFor(
    'bytes of what this worker’s effects under way were called with',
    LIMITS.fetched_bytes_each,
    powers.network.holdFor(powers.owner),
  );
  const effects = new Map<string, Effect>(MAKERS.flatMap((make) => Object.entries(make(vault))));

  const run = async (name: string, args: unknown[], call?: { readonly signal?: AbortSignal | undefined }) => {
    // What is no text may be anything of a stranger's: it is not even asked for its name.
    const shown = typeof name === 'string' ? name.slice(0, 100) : 'effect';
    if (!Array.isArray(args)) throw new BadInput({ what: shown, why: 'arguments come as a list' });
    const effect = effects.get(name);
    if (!effect) throw new NoSuchMethod({ method: shown, has: [...effects.keys()] });
    if (INSTANT.has(name)) return effect(args, over.signal);
    if (running >= LIMITS.effects_in_flight)
      throw new Overloaded({ what: 'effects of this worker', limit: LIMITS.effects_in_flight });
    const weight = weightOf(args, LIMITS.fetched_bytes_each);
    const letGo = weight > SMALL_BYTES ? holdArgs(weight) : () => {};
    running++;
    try {
      const signal = call?.signal;
      return await effect(args, signal ? AbortSignal.any([signal, over.signal]) : over.signal);
    } finally {
      running--;
      letGo();
    }
  };

  return {
    async perform(name, args, call) {
      try {
        return await run(name, args, call);
      } catch (error) {
        leave(args);
        const told = vault.told(
          isError(error, GrantMissing) && revoked.has(error.fields.grant) ? wasRevoked(error.fields) : error,
        );
        // What a clone threw is its own, not the host's: it goes on whole, as to any caller.
        if (name === 'clone.call' && isError(error, RemoteError)) told.cause = error.cause;
        throw told;
      }
    },
    regrant(given) {
      for (const kind of kindsLost(grants, given)) revoked.add(kind);
      grants = given;
      for (const run of [...watchers]) run();
    },
    close: () => over.abort(new Error('the vault has ended')),
  };
}

/** Kinds of which `after` has less than `before`, as GrantMissing names them. */
function kindsLost(before: Grants, after: Grants): string[] {
  const kinds: Record<string, (grants: Grants) => unknown> = {
    fetch: ({ fetch }) => fetch,
    connect: ({ connect }) => connect,
    'meshfs.read': ({ meshfs }) => meshfs.read,
    'meshfs.write': ({ meshfs }) => meshfs.write,
    volume: ({ volume }) => volume,
    clone: ({ clone }) => clone,
    secrets: ({ secrets }) => secrets,
  };
  return Object.keys(kinds).filter(
    (kind) => JSON.stringify(kinds[kind]!(before)) !== JSON.stringify(kinds[kind]!(after)),
  );
}

/** Leaves the streams that came with a call that fails: nobody will read them, and each takes a place. */
function leave(args: unknown): void {
  const all = Array.isArray(args) ? args : [args];
  for (const value of all.flatMap((arg) => [arg, (arg as { body?: unknown } | null | undefined)?.body])) {
    if (typeof value !== 'object' || value === null) continue;
    const left = value instanceof ReadableStream ? !value.locked && value.cancel() : leaveIterator(value);
    void Promise.resolve(left).catch(() => {});
  }
}

const leaveIterator = (value: object): unknown =>
  Symbol.asyncIterator in value ? (value as AsyncIterableIterator<unknown>).return?.() : undefined;

/** An error without its cause and its stack, which are the host's. */
function tell(error: unknown): Error {
  if (error instanceof MeshError) return fromWire(toWire(error));
  const name = error instanceof Error ? error.name : 'Error';
  return new RemoteError({ error_name: name }, `${name}: ${describe(error)}`);
}
