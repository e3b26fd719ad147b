/**
 * The one way in which what serves changes: the state is handed over, the change committed, traffic moved.
 *
 * What always holds: before the commit everything can fail and nothing has changed; the state that a version had when it
 * was left is kept with it, for a rollback.
 */
import { deserialize, serialize } from 'node:v8';
import { BadInput, type Deed, describe, Overloaded, type VersionFacts } from '@hauki/protocol';
import type { Instance } from './instance.ts';
import { KERNEL_LIMITS } from './limits.ts';
import type { Module } from './module.ts';
import type { ModuleRecord, Store } from './store.ts';

export interface Change {
  module: Module;
  next: ModuleRecord;
  /** What was started for it; none where the version lives already. */
  instance: Instance | undefined;
  deed: Deed;
  by: string;
  facts: VersionFacts;
  note?: string | null;
  /** A state to give it, in place of the present one's. */
  restore?: string | undefined;
}

/** Why a hook failed; where its vault ended of it, what that ended of. */
async function failed(hook: string, instance: Instance, error: unknown): Promise<Error> {
  return new Error(
    `${hook} failed: ${instance.open ? describe(error) : `its vault ended: ${await instance.whyGone()}`}`,
  );
}

async function hydrate(instance: Instance, state: Uint8Array, from_version: number): Promise<void> {
  try {
    await instance.hydrate(deserialize(state), from_version);
  } catch (error) {
    throw await failed('hydrate', instance, error);
  }
}

async function dehydrate(instance: Instance): Promise<Uint8Array> {
  let given: unknown;
  try {
    given = await instance.dehydrate();
  } catch (error) {
    throw await failed('dehydrate', instance, error);
  }
  let state: Uint8Array;
  try {
    state = serialize(given);
  } catch {
    throw new Error('dehydrate failed: its state holds a function, a stream or an object that stays in its vault');
  }
  if (state.length > KERNEL_LIMITS.state_bytes)
    throw new Error(`its state has ${state.length} bytes; ${KERNEL_LIMITS.state_bytes} are taken over`);
  return state;
}

/** Rejects where a state cannot be handed over, or the change not be kept; then nothing has changed. */
export async function handOver(store: Store, change: Change): Promise<void> {
  const { module, next, instance, deed, by, facts, note = null, restore } = change;
  const { version, digest } = facts;
  const entry = { module: module.name, deed, by, version, digest, note };
  const old = module.main;
  const started = instance ? [instance] : [];
  // A version that comes about now brings its source along; any other's is kept.
  const source = version > module.record.latest ? instance?.spec.source : undefined;
  const all = next.live.some((live) => live.version === version && live.weight === 100);
  if (instance?.has_state && !all)
    throw new BadInput({ what: 'weight', why: `${module.name} keeps a state, which two versions cannot share` });
  if (!instance || !old?.has_state || !all) {
    // One whose vault is dead has left what it began with.
    const left = old || !module.record.state ? null : module.record.state;
    const begins = restore === undefined ? left : { pointer: restore, from: version };
    if (begins && instance?.has_state) await hydrate(instance, await store.state(begins.pointer), begins.from);
    const record = { ...next, state: begins };
    return module.swap(record, started, () => store.commit(record, entry, [facts], source));
  }
  const left = await store.facts(module.name, old.version);
  await module.quiesce(old, async () => {
    const state = await dehydrate(old).catch((error) => {
      // What is taken back because it fails may fail in this too; what comes then has its own state to begin with.
      if (deed === 'abort' && restore !== undefined) return undefined;
      throw error;
    });
    if (instance.has_state && restore !== undefined) await hydrate(instance, await store.state(restore), version);
    else if (instance.has_state) await hydrate(instance, state!, old.version);
    const state_pointer = state && (await store.keepState(module.name, old.version, state));
    const both = state_pointer ? [facts, { ...left, state_pointer }] : [facts];
    const begins =
      restore === undefined ? { pointer: state_pointer!, from: old.version } : { pointer: restore, from: version };
    const record = { ...next, state: instance.has_state ? begins : null };
    await module.swap(record, started, () => store.commit(record, entry, both, source));
  });
}

/**
 * Gives a version that is started again the state that it began with. Resolves with false where it cannot take it: it
 * may then have half of it, and must not serve.
 */
export async function resume(store: Store, instance: Instance, { state }: ModuleRecord): Promise<boolean> {
  if (!state || !instance.has_state) return true;
  return hydrate(instance, await store.state(state.pointer), state.from).then(
    () => true,
    () => false,
  );
}

/** Keeps the present state of a module for its next start. Rejects where it cannot be had or kept. */
export async function keepPresent(store: Store, { main, record }: Module): Promise<void> {
  if (!main?.has_state || !main.open || record.live.length !== 1) return;
  const state = await dehydrate(main);
  const pointer = await store.keepState(record.module, main.version, state);
  await store.keepPresent(record.module, { pointer, from: main.version });
}

/** What serves when a version comes in with a weight. */
export function liveWith(live: ModuleRecord['live'], version: number, weight = 100): ModuleRecord['live'] {
  if (weight === 100 || live.length === 0) return [{ version, weight: 100 }];
  if (live.length >= KERNEL_LIMITS.live_versions)
    throw new Overloaded({ what: 'versions that live at once', limit: KERNEL_LIMITS.live_versions });
  const rest = live.map((one) => ({ ...one, weight: Math.floor((one.weight * (100 - weight)) / 100) }));
  const [main] = [...rest].sort((a, b) => b.weight - a.weight);
  main!.weight += 100 - weight - rest.reduce((sum, one) => sum + one.weight, 0);
  return [...rest, { version, weight }];
}
