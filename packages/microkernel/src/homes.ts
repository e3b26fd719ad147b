/**
 * The lasting homes of modules: a module's volume is its own, and the same for all its versions. One in Python has one
 * unless it declines, since such modules keep their files below their home as a matter of course.
 */
import type { Volumes } from '@hauki/node';
import {
  type Evolved,
  type EvolveRequest,
  GRANT_DEFAULTS,
  type Grants,
  type Language,
  type VersionFacts,
} from '@hauki/protocol';

/** The name of the volume that nobody named. */
const HOME = 'home';

/** Whose a module's volumes are. */
export const ownerOf = (module: string): string => `kernel/${module}`;

/**
 * The grants of a new version: those that were asked for (`asked`, made whole), or, where none were, those of the version
 * that serves: an edit does not take them away.
 */
export function grantsOf(
  request: EvolveRequest,
  asked: Grants,
  language: Language,
  main: VersionFacts | undefined,
  volumes: Volumes,
): Grants {
  const inherited = request.grants === undefined ? main : undefined;
  const grants = inherited?.grants ?? asked;
  const settled = grants.volume !== null || request.grants?.volume === null || inherited?.language === language;
  if (settled || language !== 'python' || !volumes.offer.available) return grants;
  return { ...grants, volume: { name: HOME, quota_mib: GRANT_DEFAULTS.quota_mib } };
}

/** Does what a version with these grants is for; the volume that was made for it goes again when nothing comes of it. */
export async function withHome(
  volumes: Volumes,
  module: string,
  { volume }: Grants,
  work: () => Promise<Evolved>,
): Promise<Evolved> {
  const owner = ownerOf(module);
  const is_new = volume !== null && !volumes.has(owner, volume.name);
  let kept = false;
  try {
    const done = await work();
    kept = !done.dry_run;
    return done;
  } finally {
    // One that somebody has got hold of meanwhile is left.
    if (is_new && !kept) await volumes.remove(owner, volume.name).catch(() => {});
  }
}
