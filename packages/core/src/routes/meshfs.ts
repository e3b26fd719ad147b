/** MeshFS over HTTP, with the notes' answers. */
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { MeshFs } from '@hauki/meshfs';
import { PointerMissing } from '@hauki/protocol';
import { listFor } from '../listing.ts';
import { demand } from '../rights.ts';

export const meshfsRoutes: FastifyPluginAsyncTypebox<{ meshfs: MeshFs }> = async (app, { meshfs }) => {
  app.post(
    '/api/v2/meshfs/write',
    {
      config: { scope: 'meshfs.write' },
      schema: {
        tags: ['meshfs'],
        summary: 'Write content to a pointer; acknowledged when it is durable',
        body: Type.Object(
          {
            pointer: Type.Optional(Type.String()),
            content: Type.String(),
            media_type: Type.Optional(Type.String({ maxLength: 128 })),
            language: Type.Optional(Type.String({ maxLength: 32 })),
          },
          { additionalProperties: false },
        ),
      },
    },
    async (request) => {
      const { pointer, ...rest } = request.body;
      if (pointer === undefined || pointer === '') throw new PointerMissing({});
      demand(request.principal, { scope: 'meshfs.write', pointer });
      return { status: 'success', ...(await meshfs.write({ pointer, ...rest })) };
    },
  );

  app.get(
    '/api/v2/meshfs/resolve',
    {
      config: { scope: 'meshfs.read' },
      schema: {
        tags: ['meshfs'],
        summary: 'The content that a pointer points to',
        querystring: Type.Object({ pointer: Type.Optional(Type.String()) }),
      },
    },
    async (request) => {
      const { pointer } = request.query;
      if (pointer === undefined || pointer === '') throw new PointerMissing({});
      demand(request.principal, { scope: 'meshfs.read', pointer });
      return { status: 'success', ...(await meshfs.resolve(pointer)) };
    },
  );

  app.get(
    '/api/v2/meshfs/list',
    {
      config: { scope: 'meshfs.read' },
      schema: {
        tags: ['meshfs'],
        summary: 'What is kept under pointers that begin with a prefix, a page at a time',
        querystring: Type.Object({
          prefix: Type.String({ default: 'gem-pointer://' }),
          after: Type.Optional(Type.String({ maxLength: 2048 })),
          limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
        }),
      },
    },
    async (request) => {
      const { prefix, ...page } = request.query;
      return { status: 'success', ...(await listFor(request.principal, meshfs, prefix, page)) };
    },
  );
};
