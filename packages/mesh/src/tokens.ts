/** Tokens for a script: narrower ones than its own, for whoever needs less. */
import type { TokenInfo, TokenRequest } from '@hauki/protocol';
import type { CoreClient } from './http.ts';
import { pathPart } from './path.ts';

export interface Tokens {
  /** Makes a token with no more rights than this mesh's own. `token` is its secret, shown this once. */
  create(request: TokenRequest): Promise<TokenInfo & { token: string }>;
  /** The mesh's own token and those below it; all of them for an admin. */
  list(): Promise<TokenInfo[]>;
  /**
   * Ends a token and all below it, at once, with what is open in their name; with `end_workers` also the workers and
   * jobs that were made with them. Resolves with their ids.
   */
  revoke(id: string, options?: { end_workers?: boolean }): Promise<string[]>;
  /** What the mesh's own token may do. */
  self(): Promise<Omit<TokenInfo, 'created_at'>>;
}

/** The core's tokens as `mesh.tokens` gives them. They reject with Forbidden, TokenUnknown, BadInput, StorageFailed. */
export function meshTokens(core: CoreClient): Tokens {
  const path = '/api/v2/tokens';
  const bare = async <T>(answer: Promise<T & { status?: string }>): Promise<T> => {
    const { status: _status, ...rest } = await answer;
    return rest as T;
  };
  return {
    create: (request) => bare(core.request('POST', path, request)),
    list: async () => (await core.request<{ tokens: TokenInfo[] }>('GET', path)).tokens,
    async revoke(id, { end_workers = false } = {}) {
      const at = `${path}/${pathPart('token', id)}${end_workers ? '?end_workers=true' : ''}`;
      return (await core.request<{ revoked: string[] }>('DELETE', at)).revoked;
    },
    self: () => bare(core.request('GET', `${path}/self`)),
  };
}
