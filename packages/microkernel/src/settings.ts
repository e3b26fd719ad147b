/**
 * What a module has beside its source: tests, bounds, alias, and which versions serve. The first three are kept with each
 * version, so that going back to one brings them back.
 */
import type { Bounds, VersionFacts, VersionSettings } from '@hauki/protocol';
import { whyOut } from './bounds.ts';
import type { Instance } from './instance.ts';
import type { ModuleRecord } from './store.ts';

/** The settings that a version came with; of one that is kept without, those of now. `alias`: whether it may be had. */
export function settingsOf(
  { settings }: VersionFacts,
  record: ModuleRecord,
  isFree: (alias: string) => boolean,
): VersionSettings {
  const { tests, bounds, alias } = settings ?? record;
  return { tests, bounds, alias: alias === null || isFree(alias) ? alias : record.alias };
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

/** What serves when one version is taken out: its share goes to the one that serves most. */
export function liveWithout(live: ModuleRecord['live'], version: number): ModuleRecord['live'] {
  const rest = live.filter((one) => one.version !== version).map((one) => ({ ...one }));
  const [most] = [...rest].sort((a, b) => b.weight - a.weight);
  if (most) most.weight += 100 - rest.reduce((sum, one) => sum + one.weight, 0);
  return rest;
}
