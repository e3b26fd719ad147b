/**
 * What a module has beside its source: tests, bounds, alias, the version to go back to, and which versions serve. All but
 * the last are kept with each version, so that going back to one brings them back.
 */
import {
  BadInput,
  type Bounds,
  EvolveRejected,
  Overloaded,
  type VersionFacts,
  type VersionSettings,
} from '@hauki/protocol';
import { whyOut } from './bounds.ts';
import type { Instance } from './instance.ts';
import { KERNEL_LIMITS } from './limits.ts';
import type { ModuleRecord } from './store.ts';

/** The settings that a version came with; of one that is kept without, those of now. `alias`: whether it may be had. */
export function settingsOf(
  { settings }: VersionFacts,
  record: ModuleRecord,
  isFree: (alias: string) => boolean,
): Required<VersionSettings> {
  const { tests, bounds, alias } = settings ?? record;
  return { tests, bounds, alias: alias === null || isFree(alias) ? alias : record.alias, good: settings?.good ?? null };
}

/** The version to go back to from the next one: what serves, unless it does worse than the next one may. */
export function goodOf(
  record: ModuleRecord,
  main: Pick<Instance, 'version' | 'stats'> | undefined,
  next: Bounds | null,
): number | null {
  if (!main) return null;
  const is_bad = next !== null && whyOut(next, main.stats) !== undefined;
  return is_bad ? (record.good ?? main.version) : main.version;
}

type Live = ModuleRecord['live'];

/** Makes the weights add up: what is missing goes to the one that serves most. */
function filledUp(live: Live, sum = 100): Live {
  const all = live.map((one) => ({ ...one }));
  const [most] = [...all].sort((a, b) => b.weight - a.weight);
  if (most) most.weight += sum - all.reduce((of_all, one) => of_all + one.weight, 0);
  return all;
}

/** Throws EvolveRejected where nobody may change the module. */
export function checkPin({ name, record }: { name: string; record: ModuleRecord }): void {
  if (record.pinned && record.live.length > 0)
    throw new EvolveRejected({ module: name, stage: 'pin', why: 'it is pinned; unpin it first' });
}

/** Throws BadInput for what is no weight. */
export function checkWeight(weight: number | undefined): void {
  if (weight !== undefined && !(Number.isInteger(weight) && weight >= 0 && weight <= 100))
    throw new BadInput({ what: 'weight', why: 'a whole number from 0 to 100' });
}

/** What each version serves, as the journal says it. */
export const sharesOf = (live: Live): string => live.map(({ version, weight }) => `${version}: ${weight}`).join(', ');

/** What serves when a version comes in with a weight. */
export function liveWith(live: Live, version: number, weight = 100): Live {
  if (weight === 100 || live.length === 0) return [{ version, weight: 100 }];
  if (live.length >= KERNEL_LIMITS.live_versions)
    throw new Overloaded({ what: 'versions that live at once', limit: KERNEL_LIMITS.live_versions });
  const rest = live.map((one) => ({ ...one, weight: Math.floor((one.weight * (100 - weight)) / 100) }));
  return [...filledUp(rest, 100 - weight), { version, weight }];
}

/** What serves when one version is taken out. */
export function liveWithout(live: Live, version: number): Live {
  return filledUp(live.filter((one) => one.version !== version));
}

/** Throws BadInput, naming `what` was asked for, where a module keeps a state: two of its versions cannot serve at once. */
export function checkNoState(what: string, module: string, has_state: boolean | undefined): void {
  if (has_state) throw new BadInput({ what, why: `${module} keeps a state, which two versions cannot share` });
}
