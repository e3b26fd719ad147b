/**
 * The one way in which what serves changes: the state is handed over, the change committed, traffic moved.
 *
 * What always holds: before the commit everything can fail and nothing has changed; the state that a version had when it
 * was left is kept with it, for a rollback.
 */
import { deserialize, serialize } from 'node:v8';
import { DeadlineExceeded, type Deed, describe, isError, type VersionFacts } from '@hauki/protocol';
import type { Instance } from './instance.ts';
import { KERNEL_LIMITS } from './limits.ts';
import type { Module } from './module.ts';
import { checkNoState } from './settings.ts';
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
  const why = instance.open ? describe(error) : `its vault ended: ${await instance.whyGone()}`;
  const all = `; a handover has ${KERNEL_LIMITS.handover_ms} ms, with what is waited for`;
  return new Error(`${hook} failed: ${why}${isError(error, DeadlineExceeded) ? all : ''}`);
}

async function hydrate(instance: Instance, state: Uint8Array, from_version: number, timeout_ms: number): Promise<void> {
  try {
    await instance.hydrate(deserialize(state), from_version, timeout_ms);
  } catch (error) {
    throw await failed('hydrate', instance, error);
  }
}

/** The state that a version has now, as it is kept. Rejects where it cannot be had, or is too large. */
export async function dehydrate(instance: Instance, timeout_ms: number): Promise<Uint8Array> {
  let given: unknown;
  try {
    given = await instance.dehydrate(timeout_ms);
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

/** Gives how long a hook may take at each moment of a handover. Throws when its time is over. */
function hookTimes(): () => number {
  const until = performance.now() + KERNEL_LIMITS.handover_ms;
  return () => {
    const left_ms = Math.ceil(until - performance.now());
    if (left_ms <= 0) throw new Error(`it was not done in the ${KERNEL_LIMITS.handover_ms} ms for which requests wait`);
    return Math.min(KERNEL_LIMITS.state_ms, left_ms);
  };
}

/** A state as the record has it. */
type Kept = NonNullable<ModuleRecord['state']>;

/** Rejects where a state cannot be handed over, or the change not be kept; then nothing has changed. */
export async function handOver(store: Store, change: Change): Promise<void> {
  const { module, next, instance, deed, by, facts, note = null, restore } = change;
  const { version, digest } = facts;
  const entry = { module: module.name, deed, by, version, digest, note };
  const started = instance ? [instance] : [];
  // A version that comes about now brings its source along; any other's is kept.
  const source = version > module.record.latest ? instance?.spec.source : undefined;
  if (next.live.length > 1) checkNoState('weight', module.name, instance?.has_state || module.has_state);
  const swap = (state: Kept | null, left: readonly VersionFacts[] = []) => {
    const record = { ...next, state };
    return module.swap(record, started, () => store.commit(record, entry, [facts, ...left], source));
  };
  const give = async ({ pointer, from }: Kept, timeout_ms: number) => {
    if (instance?.has_state) await hydrate(instance, await store.state(pointer), from, timeout_ms);
  };
  const before = module.record.state ?? null;
  const restored = instance && restore !== undefined ? { pointer: restore, from: version } : null;
  // Nobody need wait for that: it lies there.
  if (restored) await give(restored, KERNEL_LIMITS.state_ms);
  const left = module.leftBy(next, started).filter(({ has_state }) => has_state);
  if (left.length === 0) {
    // One whose vault is dead has left what it began with, and one that lives and goes on keeps that.
    const begins = !module.main || module.instance(version)?.has_state ? before : null;
    if (begins && !restored) await give(begins, KERNEL_LIMITS.state_ms);
    return swap(restored ?? begins);
  }
  const needed = instance?.has_state === true && !restored;
  await module.hold(async () => {
    const hook_ms = hookTimes();
    await Promise.all(left.map((old) => settled(module, old, needed)));
    const states: { of: VersionFacts; state: Uint8Array }[] = [];
    for (const old of left)
      try {
        const state = await dehydrate(old, hook_ms());
        states.push({ of: await store.facts(module.name, old.version), state });
      } catch (error) {
        // What is left because it fails may fail in this too; what comes then begins with what there was before.
        if (deed !== 'abort' && deed !== 'rollback') throw error;
        module.log(`version ${old.version} of ${module.name} leaves no state: ${describe(error)}`);
      }
    const [main] = states;
    if (needed && main) await hydrate(instance, main.state, main.of.version, hook_ms());
    else if (needed && before) await give(before, hook_ms());
    // From here on it comes about.
    hook_ms();
    const kept = await Promise.all(
      states.map(async ({ of, state }) => ({
        ...of,
        state_pointer: await store.keepState(module.name, of.version, state),
      })),
    );
    const [first] = kept;
    const taken = needed && first ? { pointer: first.state_pointer, from: first.version } : before;
    await swap(instance?.has_state ? (restored ?? taken) : null, kept);
  });
}

/**
 * Waits for what is under way on a version that is left. Where nobody takes its state over that is not worth much waiting;
 * and where somebody does, what lasts too long goes on with what it has, as a stream does.
 */
async function settled(module: Module, old: Instance, needed: boolean): Promise<void> {
  if (!needed) return void (await old.idle(KERNEL_LIMITS.streams_ms));
  if (await old.quiet()) return;
  module.log(
    `${old.awaited} requests of version ${old.version} of ${module.name} go on there: what they change in its state now stays behind`,
  );
}

/**
 * Gives a version that is started again the state that it began with. Resolves with false where it cannot take it: it
 * may then have half of it, and must not serve.
 */
export async function resume(store: Store, instance: Instance, { state }: ModuleRecord): Promise<boolean> {
  if (!state || !instance.has_state) return true;
  return hydrate(instance, await store.state(state.pointer), state.from, KERNEL_LIMITS.state_ms).then(
    () => true,
    () => false,
  );
}

/** Keeps the present state of a module for its next start. Rejects where it cannot be had or kept. */
export async function keepPresent(store: Store, { main, record }: Module): Promise<void> {
  if (!main?.has_state || !main.open || record.live.length !== 1) return;
  const state = await dehydrate(main, KERNEL_LIMITS.state_ms);
  const pointer = await store.keepState(record.module, main.version, state);
  await store.keepPresent(record.module, { pointer, from: main.version });
}
