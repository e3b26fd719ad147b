/** The notes' `lxc_provision`: lasting workers. */
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { type Lasting, type LastingRequest, NAME } from '../lasting/lasting.ts';
import { MODULE, Worker } from './swarm.ts';

const access = { config: { scope: 'provision' } } as const;

export const provisionRoutes: FastifyPluginAsyncTypebox<{ lasting: Lasting }> = async (app, { lasting }) => {
  app.post(
    '/api/v2/lxc_provision',
    {
      ...access,
      schema: {
        tags: ['provision'],
        summary: 'Make a lasting worker: no heartbeat, started again with its node, until its owner deletes it',
        body: Type.Object(
          { ...MODULE, name: Type.Optional(Type.String({ pattern: NAME.source })) },
          { additionalProperties: false },
        ),
      },
    },
    async (request) => {
      const { worker, node, epoch, driver } = await lasting.provision(
        request.body as LastingRequest,
        request.principal,
      );
      return { status: 'success', worker, node, epoch, driver };
    },
  );

  app.get(
    '/api/v2/lxc_provision',
    {
      ...access,
      schema: { tags: ['provision'], summary: 'Lasting workers: where and how they are, and why some are not' },
    },
    async (request) => ({ status: 'success', workers: lasting.list(request.principal) }),
  );

  app.get(
    '/api/v2/lxc_provision/:worker',
    { ...access, schema: { tags: ['provision'], summary: 'One lasting worker, with its last deaths', params: Worker } },
    async (request) => ({ status: 'success', ...lasting.get(request.params.worker, request.principal) }),
  );

  app.delete(
    '/api/v2/lxc_provision/:worker',
    { ...access, schema: { tags: ['provision'], summary: 'Delete a lasting worker for good', params: Worker } },
    async (request) => {
      await lasting.remove(request.params.worker, request.principal);
      return { status: 'success', worker: request.params.worker };
    },
  );
};
