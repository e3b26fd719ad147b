/** Tokens over HTTP: narrower ones made, listed, revoked. A secret is in one answer only, that of its making. */
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { LIMITS, SCOPES, type Scope, type TokenInfo, type TokenRequest } from '@hauki/protocol';
import { type EndPowers, endWorkers } from '../end-workers.ts';
import { NO_QUOTA, type Quotas } from '../quotas.ts';
import { TOKEN_NAME } from '../rights.ts';
import type { TokenStore } from '../tokens.ts';

const strict = { additionalProperties: false };
const Targets = Type.Array(Type.String({ maxLength: 1024 }), { maxItems: LIMITS.token_targets });
const upTo = (maximum: number) => Type.Optional(Type.Union([Type.Integer({ minimum: 1, maximum }), Type.Null()]));
const Quota = Type.Object(
  {
    vaults: upTo(LIMITS.quota),
    memory_mib: upTo(LIMITS.quota),
    clones_per_minute: upTo(LIMITS.quota_clones),
  },
  strict,
);
const scopes_described = Object.entries(SCOPES)
  .map(([scope, what]) => `${scope}: ${what}`)
  .join('; ');

export const tokenRoutes: FastifyPluginAsyncTypebox<EndPowers & { tokens: TokenStore; quotas: Quotas }> = async (
  app,
  powers,
) => {
  const { tokens, quotas } = powers;

  app.post(
    '/api/v2/tokens',
    {
      config: { scope: 'tokens' },
      schema: {
        tags: ['tokens'],
        summary: 'Make a token with no more rights than this one; it is shown this once',
        body: Type.Object(
          {
            name: Type.String({ pattern: TOKEN_NAME.source }),
            scopes: Type.Array(Type.Union(Object.keys(SCOPES).map((scope) => Type.Literal(scope))), {
              minItems: 1,
              maxItems: Object.keys(SCOPES).length,
              description: scopes_described,
            }),
            targets: Type.Optional(
              Type.Object(
                {
                  workers: Type.Optional(Targets),
                  pointers: Type.Optional(Targets),
                  nodes: Type.Optional(Targets),
                  fetch: Type.Optional(Targets),
                },
                strict,
              ),
            ),
            quota: Type.Optional(Quota),
            expires_in_ms: Type.Optional(
              Type.Integer({
                minimum: 1_000,
                maximum: LIMITS.token_ms,
                description: 'left out: it ends with the token it is made from',
              }),
            ),
          },
          strict,
        ),
      },
    },
    async (request, reply) => {
      // An answer with a secret is nobody's to keep.
      reply.header('cache-control', 'no-store');
      const wanted = { ...request.body, scopes: request.body.scopes as Scope[] } as TokenRequest;
      const made = await tokens.create(request.principal, wanted);
      return { status: 'success', ...made, used: quotas.used(made.id) };
    },
  );

  app.get(
    '/api/v2/tokens',
    {
      config: { scope: 'tokens' },
      schema: { tags: ['tokens'], summary: 'This token and those below it, without secrets; all of them for an admin' },
    },
    async (request) => {
      const used = quotas.usedNow();
      const list = tokens.list(request.principal).map((token): TokenInfo => ({ ...token, used: used(token.id) }));
      return { status: 'success', tokens: list };
    },
  );

  app.get(
    '/api/v2/tokens/self',
    { config: { scope: 'any' }, schema: { tags: ['tokens'], summary: 'What this token may do' } },
    async (request) => {
      const { id, name: owner, scopes, targets } = request.principal;
      const { name = id, expires_at = null, quota = NO_QUOTA } = tokens.info(request.principal) ?? {};
      const used = quotas.used(id);
      return { status: 'success', id, name, owner, scopes, targets, quota, used, expires_at };
    },
  );

  app.delete(
    '/api/v2/tokens/:id',
    {
      config: { scope: 'tokens' },
      schema: {
        tags: ['tokens'],
        summary: 'Revoke a token and all below it: they end at once, with what is open in their name',
        params: Type.Object({ id: Type.String({ pattern: '^[a-z0-9-]{1,64}$' }) }),
        querystring: Type.Object(
          {
            end_workers: Type.Optional(
              Type.Boolean({ description: 'end also the workers and jobs that were made with them' }),
            ),
          },
          strict,
        ),
      },
    },
    async (request) => {
      const revoked = await tokens.revoke(request.principal, request.params.id);
      const ended = request.query.end_workers ? await endWorkers(powers, revoked) : undefined;
      return { status: 'success', revoked, ...(ended ? { ended } : {}) };
    },
  );
};
