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

/** Whose the copies of a module's volumes are that a version is tried on; it has one at a time, as it is changed in turn. */
export const trialOwnerOf = (module: string): string => `${ownerOf(module)}/trial`;

/**
 * Makes a copy of a module's volume for a version to be tried on, until its vault ends or it is dropped. False where it has
 * no volume, or none that is copied. Rejects with VolumeFailed or Overloaded.
 */
export async function copyHome(volumes: Volumes, module: string, { volume }: Grants): Promise<boolean> {
  return volume !== null && volumes.copy(ownerOf(module), volume.name, trialOwnerOf(module));
}

/** Lets go of a copy that no vault has got hold of. */
export async function dropCopy(volumes: Volumes, module: string, { volume }: Grants): Promise<void> {
  if (volume !== null) await volumes.remove(trialOwnerOf(module), volume.name).catch(() => {});
}

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
