/** The kernels of the mesh, and evolving modules on them. */
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { RolloutRequest } from '@hauki/protocol';
import type { Kernels } from '../kernels/kernels.ts';

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
      async (request) => ({
        status: 'success',
        ...(await kernels.rollOut(request.body as RolloutRequest, request.principal.name)),
      }),
    );
};
