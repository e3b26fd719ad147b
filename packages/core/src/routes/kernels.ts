/** The kernels of the mesh, and evolving modules on them. */
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { type GrantRequest, normaliseGrants, type RolloutRequest } from '@hauki/protocol';
import type { Kernels } from '../kernels/kernels.ts';
import { covers, demandGrants, type Principal, reachesNode } from '../rights.ts';

export const kernelRoutes: FastifyPluginAsyncTypebox<{ kernels: Kernels }> = async (app, { kernels }) => {
  app.get(
    '/api/v2/kernels',
    { config: { scope: ['read', 'evolve'] }, schema: { tags: ['kernels'], summary: 'Kernels, and what each holds' } },
    async () => ({ status: 'success', kernels: kernels.list() }),
  );

  for (const url of ['/api/evolve_plugin', '/api/evolve'])
    app.post(
      url,
      {
        config: { scope: 'evolve' },
        schema: {
          tags: ['kernels'],
          summary: 'Evolve a module on a kernel or on several, in waves; the first that fails takes all back',
          body: Type.Object(
            {
              target_module: Type.String({ maxLength: 64 }),
              kernel: Type.Optional(Type.String({ maxLength: 32 })),
              replicas: Type.Optional(Type.Union([Type.Literal('all'), Type.Integer({ minimum: 1, maximum: 4096 })])),
              wave: Type.Optional(Type.Integer({ minimum: 1, maximum: 4096 })),
              watch_ms: Type.Optional(Type.Integer({ minimum: 0, maximum: 600_000 })),
            },
            // What else there is the kernel checks.
            { additionalProperties: true },
          ),
        },
      },
      async (request) => {
        const { principal } = request;
        const asked = withinRights(request.body as RolloutRequest, principal);
        const reached = (kernel: string) => reachesNode(principal.targets.nodes, kernel.toLowerCase());
        return { status: 'success', ...(await kernels.rollOut(asked, principal.name, reached)) };
      },
    );
};

/**
 * The request with no more grants than its sender has. Left out they would be those of the version before, which may be
 * more: only who may do everything takes them over. Throws Forbidden.
 */
function withinRights(request: RolloutRequest, principal: Principal): RolloutRequest {
  const grants: GrantRequest | undefined = request.grants ?? (covers(principal.scopes, 'admin') ? undefined : {});
  if (grants === undefined) return request;
  demandGrants(principal, normaliseGrants(grants));
  return { ...request, grants };
}
