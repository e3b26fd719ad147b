/** Which driver makes a version's vault, and with what memory: not every one runs every language. Pure. */
import { type EvolveRequest, isAtLeast, type Language, type NodeInfo, NoNodeFits, runtimeOf } from '@hauki/protocol';

/**
 * The driver that is asked for; else the one that the module had before, where it runs the language; else the first that
 * does. Throws NoNodeFits.
 */
export function chooseDriver(
  drivers: NodeInfo['drivers'],
  language: Language,
  { driver: asked, min_isolation: least }: Pick<EvolveRequest, 'driver' | 'min_isolation'>,
  before: string | undefined,
): string {
  const runtime = runtimeOf(language);
  const obstacle = (name: string): string | undefined => {
    const offer = drivers[name];
    if (!offer?.available) return `no ${name}: ${offer?.reason ?? 'there is none of that name'}`;
    if (least !== undefined && !isAtLeast(offer.level, least))
      return `${name}, which is of isolation ${offer.level}, less than ${least}`;
    return (offer.runtimes ?? ['node']).includes(runtime)
      ? undefined
      : `${name}, which runs no ${runtime} here${offer.note ? ` (${offer.note})` : ''}`;
  };
  const names = Object.keys(drivers);
  const fits = [...(before === undefined ? [] : [before]), ...names].find((name) => obstacle(name) === undefined);
  const driver = asked ?? fits;
  if (driver !== undefined && obstacle(driver) === undefined) return driver;
  throw new NoNodeFits({
    wanted: { driver: asked ?? 'any', runtime, ...(least === undefined ? {} : { min_isolation: least }) },
    have: names.map((name) => obstacle(name) ?? name),
  });
}

const SMALL_MIB = 512;

/** What a version's vault gets when nobody said. In a small kernel, as a swarm's are, two versions have to fit. */
export function usualMemory_mib(driver: string, all_mib: number): number {
  if (driver === 'quickjs') return 32;
  return all_mib < SMALL_MIB ? 64 : 128;
}
