/** Whose lasting workers and jobs a principal may see and end: its own, and an administrator all. The one place for it. */
import { Forbidden } from '@hauki/protocol';
import type { Principal } from './auth.ts';

export const mayHandle = (principal: Principal, owner: string): boolean =>
  principal.scope === 'admin' || principal.name === owner;

/** Throws Forbidden for what belongs to another. `what` is its name. */
export function demandOwned(principal: Principal, owner: string, what: string): void {
  if (!mayHandle(principal, owner))
    throw new Forbidden({ why: `${what} belongs to another: only its owner and an admin may do this` });
}
