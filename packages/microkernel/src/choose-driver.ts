/** Which driver makes a version's vault: not every one runs every language. Pure. */
import { type Language, type NodeInfo, NoNodeFits, runtimeOf } from '@hauki/protocol';

/**
 * The driver that is asked for; else the one that the module had before, where it runs the language; else the first that
 * does. Throws NoNodeFits.
 */
export function chooseDriver(
  drivers: NodeInfo['drivers'],
  language: Language,
  asked: string | undefined,
  before: string | undefined,
): string {
  const runtime = runtimeOf(language);
  const obstacle = (name: string): string | undefined => {
    const offer = drivers[name];
    if (!offer?.available) return `no ${name}: ${offer?.reason ?? 'there is none of that name'}`;
    return (offer.runtimes ?? ['node']).includes(runtime)
      ? undefined
      : `${name}, which runs no ${runtime} here${offer.note ? ` (${offer.note})` : ''}`;
  };
  const names = Object.keys(drivers);
  const fits = [...(before === undefined ? [] : [before]), ...names].find((name) => obstacle(name) === undefined);
  const driver = asked ?? fits;
  if (driver !== undefined && obstacle(driver) === undefined) return driver;
  throw new NoNodeFits({
    wanted: { driver: asked ?? 'any', runtime },
    have: names.map((name) => obstacle(name) ?? name),
  });
}
