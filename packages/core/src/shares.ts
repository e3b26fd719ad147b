/** Who shares what all share (`rpc/src/shares.ts`): a token that an admin made, with all below it. */
import { createHash } from 'node:crypto';
import { Shares as Places } from '@hauki/rpc/node';
import { ADMIN } from './rights.ts';

/** The core, where it calls a worker itself: for whoever is at its HTTP door, and for the spool. */
export const CORE = 'core';

/** Which sharer an owner's name stands for; undefined for an admin and the core, who may have the last place too. */
export function sharerOf(owner: string): string | undefined {
  const first = owner.split('/')[0]!;
  return first === ADMIN.name || first === CORE ? undefined : first;
}

/** What a worker's gate knows of a sharer: the same for all its tickets to this worker, and no more than that. */
export function shareOf(worker: string, owner: string): string | null {
  const sharer = sharerOf(owner);
  return sharer === undefined ? null : createHash('sha256').update(`${worker}\n${sharer}`).digest('base64url');
}

export class Shares extends Places {
  /** Takes places for an owner, or throws Overloaded. The result gives them back. */
  override take(owner: string, places = 1): () => void {
    return super.take(sharerOf(owner), places);
  }
}
