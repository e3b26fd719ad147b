/**
 * MeshFS over HTTP: the notes' routes for text, and what lists, watches and deletes. Raw content is `meshfs-raw.ts`.
 *
 * Conditions are HTTP's own: an ETag is the content's digest; `If-Match` takes digests and version numbers.
 */
import { Readable } from 'node:stream';
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { BACKPLANE_LIMITS } from '@hauki/backplane';
import { LANGUAGE_NAME, type MeshFs, type Written } from '@hauki/meshfs';
import { PointerMissing, reaches, toWire } from '@hauki/protocol';
import { demandPrefix, listFor } from '../listing.ts';
import { demand } from '../rights.ts';
import { Shares } from '../shares.ts';
import type { TokenStore } from '../tokens.ts';
import { etagOf, expectOf } from './conditions.ts';
import { meshfsRawRoutes } from './meshfs-raw.ts';

/** A silent connection may be dead: this often a watcher hears something. */
const PING_MS = 15_000;

const strict = { additionalProperties: false };
const EVERYTHING = 'gem-pointer://';
const Prefix = Type.Optional(Type.String({ maxLength: 2048, description: `without it ${EVERYTHING}: all` }));
const VersionNumber = Type.Integer({ minimum: 1 });

/** The pointer of a request; the notes answer `PointerMissing` where there is none. */
export function pointerIn(given: { pointer?: string }): string {
  if (given.pointer === undefined || given.pointer === '') throw new PointerMissing({});
  return given.pointer;
}

export interface MeshFsRoutesPowers {
  meshfs: MeshFs;
  tokens: Pick<TokenStore, 'hold'>;
}

export const meshfsRoutes: FastifyPluginAsyncTypebox<MeshFsRoutesPowers> = async (app, { meshfs, tokens }) => {
  await app.register(meshfsRawRoutes, { meshfs, tokens });
  const watches = new Shares('watches of MeshFS', BACKPLANE_LIMITS.watchers);

  app.post(
    '/api/v2/meshfs/write',
    {
      config: { scope: 'meshfs.write' },
      schema: {
        tags: ['meshfs'],
        summary: 'Write text to a pointer; acknowledged when it is durable. Takes If-Match and If-None-Match: *',
        body: Type.Object(
          {
            pointer: Type.Optional(Type.String()),
            content: Type.String(),
            media_type: Type.Optional(Type.String({ maxLength: 128 })),
            language: Type.Optional(Type.String({ pattern: LANGUAGE_NAME.source })),
          },
          strict,
        ),
      },
    },
    async (request, reply) => {
      const pointer = pointerIn(request.body);
      demand(request.principal, { scope: 'meshfs.write', pointer });
      const written = await meshfs.write({ ...request.body, pointer, expect: expectOf(request.headers) });
      void reply.header('etag', etagOf(written));
      return { status: 'success', ...written };
    },
  );

  app.get(
    '/api/v2/meshfs/resolve',
    {
      config: { scope: 'meshfs.read' },
      schema: {
        tags: ['meshfs'],
        summary: 'The text that a pointer points to, now or in an earlier version',
        querystring: Type.Object(
          { pointer: Type.Optional(Type.String()), version: Type.Optional(VersionNumber) },
          strict,
        ),
      },
    },
    async (request, reply) => {
      const pointer = pointerIn(request.query);
      demand(request.principal, { scope: 'meshfs.read', pointer });
      const found = await meshfs.resolve(pointer, { version: request.query.version });
      void reply.header('etag', etagOf(found));
      return { status: 'success', ...found };
    },
  );

  app.get(
    '/api/v2/meshfs/history',
    {
      config: { scope: 'meshfs.read' },
      schema: {
        tags: ['meshfs'],
        summary: 'The versions of a pointer, the newest first, a page at a time',
        querystring: Type.Object(
          {
            pointer: Type.Optional(Type.String()),
            before: Type.Optional(VersionNumber),
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
          },
          strict,
        ),
      },
    },
    async (request) => {
      const { pointer: _, ...page } = request.query;
      const pointer = pointerIn(request.query);
      demand(request.principal, { scope: 'meshfs.read', pointer });
      return { status: 'success', ...(await meshfs.history(pointer, page)) };
    },
  );

  app.get(
    '/api/v2/meshfs/list',
    {
      config: { scope: 'meshfs.read' },
      schema: {
        tags: ['meshfs'],
        summary: 'What is kept under pointers that begin with a prefix, a page at a time',
        querystring: Type.Object(
          {
            prefix: Prefix,
            after: Type.Optional(Type.String({ maxLength: 4096 })),
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
          },
          strict,
        ),
      },
    },
    async (request) => {
      const { prefix = EVERYTHING, ...page } = request.query;
      const revision = await meshfs.revision();
      return { status: 'success', revision, ...(await listFor(request.principal, meshfs, prefix, page)) };
    },
  );

  app.get(
    '/api/v2/meshfs/watch',
    {
      config: { scope: 'meshfs.read' },
      exposeHeadRoute: false,
      schema: {
        tags: ['meshfs'],
        summary: 'Changes under a prefix as server-sent events: from now, from `after`, or from Last-Event-ID',
        querystring: Type.Object({ prefix: Prefix, after: Type.Optional(Type.Integer({ minimum: 0 })) }, strict),
      },
    },
    async (request, reply) => {
      const { principal, query } = request;
      const { prefix = EVERYTHING } = query;
      demandPrefix(principal, prefix);
      const last = request.headers['last-event-id'];
      const seen = typeof last === 'string' && /^\d{1,15}$/.test(last) ? Number(last) : undefined;
      // Before anything is awaited: a watcher that has left by then would be waited for in vain.
      reply.raw.once(
        'close',
        tokens.hold(principal, () => reply.raw.destroy()),
      );
      reply.raw.once('close', watches.take(principal.name));
      const gone = new AbortController();
      reply.raw.once('close', () => gone.abort());
      const after = seen ?? query.after ?? (await meshfs.revision());
      const changes = meshfs.watch(prefix, { after, signal: gone.signal });
      // `wiki/a` begins `wiki/ab` too, and the store folds letter case.
      const visible = ({ pointer }: Written) => reaches(principal.targets.pointers, pointer);
      void reply.headers({ 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      return reply.send(Readable.from(events(changes, after, visible), { objectMode: false }));
    },
  );

  app.post(
    '/api/v2/meshfs/gc',
    {
      config: { scope: 'admin' },
      schema: { tags: ['meshfs'], summary: 'Remove content that no kept version names; says how much' },
    },
    async () => {
      await meshfs.uploads.sweep();
      return { status: 'success', ...(await meshfs.collect()) };
    },
  );
};

/** Changes as server-sent events. The first says from where; an error is the last. */
async function* events(
  changes: AsyncIterableIterator<Written>,
  after: number,
  visible: (change: Written) => boolean,
): AsyncGenerator<string> {
  const event = (name: string, data: object, id?: number) =>
    `${id === undefined ? '' : `id: ${id}\n`}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
  try {
    yield event('open', { revision: after }, after);
    for (let next = changes.next(); ; ) {
      let timer: NodeJS.Timeout | undefined;
      const silence = new Promise<'silence'>((resolve) => {
        timer = setTimeout(resolve, PING_MS, 'silence');
      });
      const got = await Promise.race([next, silence]);
      clearTimeout(timer);
      if (got === 'silence') yield ': still here\n\n';
      else if (got.done) return;
      else {
        if (visible(got.value)) yield event('change', got.value, got.value.revision);
        next = changes.next();
      }
    }
  } catch (error) {
    yield event('error', toWire(error));
  } finally {
    await changes.return?.();
  }
}
