/** Volumes as their owners see them: what there is, and deleting one. They are made by a grant. */
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { VolumeHomes } from '../volumes.ts';

/** Whoever may make workers may have made volumes. */
const access = { config: { scope: ['spawn.pointer', 'provision', 'spool'] } } as const;

export const volumeRoutes: FastifyPluginAsyncTypebox<{ volumes: VolumeHomes }> = async (app, { volumes }) => {
  app.get(
    '/api/v2/volumes',
    {
      ...access,
      schema: { tags: ['volumes'], summary: 'Private volumes: where they are, how full, and who has them' },
    },
    async (request) => ({ status: 'success', volumes: await volumes.list(request.principal) }),
  );

  app.delete(
    '/api/v2/volumes/:name',
    {
      ...access,
      schema: {
        tags: ['volumes'],
        summary: 'Delete a volume with all that is in it; refused while a worker has it',
        params: Type.Object({ name: Type.String({ maxLength: 64 }) }),
        querystring: Type.Object(
          {
            owner: Type.Optional(Type.String({ maxLength: 1024, description: 'the token’s own, when left out' })),
            forget: Type.Optional(
              Type.Boolean({ description: 'of a node that is away: give the name free, the content stays there' }),
            ),
          },
          { additionalProperties: false },
        ),
      },
    },
    async (request) => {
      const { owner, forget } = request.query;
      await volumes.remove(request.principal, request.params.name, owner, forget);
      return { status: 'success', volume: request.params.name };
    },
  );
};
