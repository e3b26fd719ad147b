/**
 * Grants: what a guest may do in the world, all deny by default. A grant is checked and its effect performed on the
 * host's side; the guest only asks.
 */
import { BadInput } from './errors.ts';
import { LIMITS } from './limits.ts';

export interface Grants {
  /** `host:port` exactly as it may stand in a URL; a redirect is checked like a new request. */
  fetch: string[];
  /** Pointer prefixes. `gem-pointer://wiki/a/` covers all below it, `gem-pointer://wiki/a` that pointer alone. */
  meshfs: { read: string[]; write: string[] };
}

export const NO_GRANTS: Grants = { fetch: [], meshfs: { read: [], write: [] } };

/** What a caller may write; whatever is left out is denied. */
export interface GrantRequest {
  fetch?: string[];
  meshfs?: { read?: string[]; write?: string[] };
}

function strings(what: string, list: unknown): string[] {
  if (list === undefined) return [];
  if (
    !Array.isArray(list) ||
    list.length > LIMITS.grants ||
    !list.every((x) => typeof x === 'string' && x.length < 1024)
  )
    throw new BadInput({ what, why: `must be a list of at most ${LIMITS.grants} strings` });
  return [...new Set(list as string[])];
}

/** Makes grants whole and checks them; throws BadInput naming the grant that is wrong. */
export function normaliseGrants(request: GrantRequest = {}): Grants {
  const fetch = strings('grants.fetch', request.fetch).map((entry) => {
    const port = /^(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/.exec(entry)?.[1];
    if (port === undefined || Number(port) < 1 || Number(port) > 65535)
      throw new BadInput({
        what: 'grants.fetch',
        why: `${JSON.stringify(entry)} is not host:port, as in example.org:443`,
      });
    return entry.toLowerCase();
  });
  const prefixes = (right: 'read' | 'write') =>
    strings(`grants.meshfs.${right}`, request.meshfs?.[right]).map((prefix) => {
      if (!/^gem-pointer:\/\/[^\s%\\]+$/.test(prefix) || prefix.split('/').includes('..'))
        throw new BadInput({
          what: `grants.meshfs.${right}`,
          why: `${JSON.stringify(prefix)} is not a pointer prefix, as in gem-pointer://wiki/reports/`,
        });
      return prefix;
    });
  return { fetch, meshfs: { read: prefixes('read'), write: prefixes('write') } };
}

/** Whether a canonical pointer lies under one of the prefixes. */
export function pointerGranted(prefixes: readonly string[], pointer: string): boolean {
  return prefixes.some((prefix) => (prefix.endsWith('/') ? pointer.startsWith(prefix) : pointer === prefix));
}
