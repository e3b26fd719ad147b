/** Tokens for a script: narrower ones than its own, for whoever needs less. */
import type { TokenInfo, TokenRequest } from '@hauki/protocol';
import type { CoreClient } from './http.ts';

export interface Tokens {
  /** Makes a token with no more rights than this mesh's own. `token` is its secret, shown this once. */
  create(request: TokenRequest): Promise<TokenInfo & { token: string }>;
  /** The mesh's own token and those below it; all of them for an admin. */
  list(): Promise<TokenInfo[]>;
  /** Ends a token and all below it, at once, with what is open in their name. Resolves with their ids. */
  revoke(id: string): Promise<string[]>;
  /** What the mesh's own token may do. */
  self(): Promise<Omit<TokenInfo, 'created_at'>>;
}

/** The core's tokens as `mesh.tokens` gives them. They reject with Forbidden, TokenUnknown, BadInput, StorageFailed. */
export function meshTokens(core: CoreClient): Tokens {
  type WithStatus<T> = T & { status?: string };
  const bare = <T extends object>({ status: _status, ...rest }: WithStatus<T>) => rest as unknown as T;
  return {
    create: async (request) =>
      bare(await core.request<TokenInfo & { token: string }>('POST', '/api/v2/tokens', request)),
    list: async () => (await core.request<{ tokens: TokenInfo[] }>('GET', '/api/v2/tokens')).tokens,
    revoke: async (id) =>
      (await core.request<{ revoked: string[] }>('DELETE', `/api/v2/tokens/${encodeURIComponent(id)}`)).revoked,
    self: async () => bare(await core.request<Omit<TokenInfo, 'created_at'>>('GET', '/api/v2/tokens/self')),
  };
}
