/**
 * Raw content of MeshFS: bytes in and out, of any size, in bounded memory, with ranges and uploads in pieces.
 *
 * What always holds: a body is read no faster than the disk takes it, and sent no faster than the reader takes it; a
 * connection on which nothing moves is cut; who is refused while still sending gets to read why.
 */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { BACKPLANE_LIMITS } from '@hauki/backplane';
import { LANGUAGE_NAME, MESHFS_LIMITS, type MeshFs, type PutRequest, type Written } from '@hauki/meshfs';
import {
  BadInput,
  Forbidden,
  MeshError,
  PointerMissing,
  PreconditionFailed,
  RangeUnsatisfiable,
} from '@hauki/protocol';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { releaseBody } from '../bodies.ts';
import { ADMIN, demand, may } from '../rights.ts';
import { Shares } from '../shares.ts';
import type { TokenStore } from '../tokens.ts';
import {
  announcedDigest,
  contentRangeOf,
  etagOf,
  expectOf,
  isKnown,
  isWanted,
  rangeOf,
  reprDigest,
} from './conditions.ts';
import { counted } from './spent.ts';

/** A transfer on which no byte moves in so long is over. */
const IDLE_MS = 60_000;
/** How long a refused sender may go on before its connection is cut. */
const HEAR_OUT_MS = 10_000;

const strict = { additionalProperties: false };
const pointer = Type.Optional(Type.String());
const version = Type.Optional(Type.Integer({ minimum: 1 }));
const upload = Type.Optional(Type.String({ pattern: BACKPLANE_LIMITS.part_id.source }));
const language = Type.Optional(Type.String({ pattern: LANGUAGE_NAME.source }));

function pointerIn({ pointer }: { pointer?: string }): string {
  if (pointer === undefined || pointer === '') throw new PointerMissing({});
  return pointer;
}

/** The request's body. Ends with an error when it breaks off, stops moving, or `signal` aborts. */
async function* bodyOf(request: IncomingMessage, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const cut = () => request.destroy();
  releaseBody(request); // it may take any time, as long as something moves
  request.setTimeout(IDLE_MS, cut);
  signal?.addEventListener('abort', cut, { once: true });
  try {
    if (signal?.aborted) cut();
    // Not destroyed when we stop reading: the answer goes over the same connection.
    yield* counted(request.iterator({ destroyOnReturn: false }));
  } catch (thrown) {
    if (thrown instanceof MeshError) throw thrown;
    throw new BadInput({ what: 'the request body', why: 'it broke off' });
  } finally {
    signal?.removeEventListener('abort', cut);
    request.socket?.setTimeout(0);
  }
}

/** Sends a body piece by piece: the next is read when the system has taken the one before. Cut off when it fails. */
async function send(response: ServerResponse, body: AsyncIterable<Uint8Array>): Promise<void> {
  response.setTimeout(IDLE_MS, () => response.destroy());
  let fail: (error: Error) => void = () => {};
  const gone = () => fail(new Error('the reader is gone'));
  response.once('close', gone);
  for await (const piece of body)
    await new Promise<void>((resolve, reject) => {
      fail = reject;
      if (response.destroyed) gone();
      response.write(piece, (error) => (error ? reject(error) : resolve()));
    });
  response.end();
}

/** Lets a sender that was refused finish sending, so that it reads the answer. */
function hearOut(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return;
  request.resume();
  const timer = setTimeout(() => request.destroy(), HEAR_OUT_MS);
  request.once('close', () => clearTimeout(timer));
}

function describeContent(reply: FastifyReply, found: Written): void {
  void reply.headers({
    'content-type': found.media_type,
    etag: etagOf(found),
    'repr-digest': reprDigest(found.digest),
    'last-modified': new Date(found.written_at).toUTCString(),
    'accept-ranges': 'bytes',
    // It is somebody's content and not a page of the core's.
    'content-security-policy': 'sandbox',
    'x-content-type-options': 'nosniff',
    'hauki-pointer': encodeURI(found.pointer),
    'hauki-version': found.version,
    'hauki-revision': found.revision,
    'hauki-written-at': found.written_at,
    ...(found.language === undefined ? {} : { 'hauki-language': found.language }),
  });
}

/** The reader's conditions, in their order (RFC 9110, 13.2.2): true where it has this content already. */
function isReadAlready({ headers }: FastifyRequest, found: Written): boolean {
  if (isWanted(headers, found)) return isKnown(headers, found);
  const { pointer, version, digest } = found;
  throw new PreconditionFailed({ pointer, wanted: `one of ${headers['if-match']}`, found: { version, digest } });
}

/** The content's kind as the request says it; nothing said is for MeshFS to find out. */
function kindOf(request: FastifyRequest, language: string | undefined): Pick<PutRequest, 'media_type' | 'language'> {
  const { 'content-type': media_type, 'content-encoding': encoding } = request.headers;
  if (encoding !== undefined && encoding !== 'identity')
    throw new BadInput({ what: 'Content-Encoding', why: 'content is kept as it is sent; send it plain' });
  return { ...(media_type === undefined ? {} : { media_type }), ...(language === undefined ? {} : { language }) };
}

export interface MeshFsRawPowers {
  meshfs: MeshFs;
  tokens: Pick<TokenStore, 'hold'>;
}

export const meshfsRawRoutes: FastifyPluginAsyncTypebox<MeshFsRawPowers> = async (app, { meshfs, tokens }) => {
  const puts = new Shares('raw contents coming in', MESHFS_LIMITS.streams_at_once);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _body, done) => done(null, undefined)); // handlers read it themselves
  app.addHook('onError', async (request) => hearOut(request.raw));
  // A transfer may take long; it ends with its token.
  app.addHook('preHandler', async (request, reply) => {
    const release = tokens.hold(request.principal, () => reply.raw.destroy());
    reply.raw.once('close', release);
  });
  /** The pointer of a request whose token may do this with it. */
  const allowed = ({ principal, query }: FastifyRequest, scope: 'meshfs.read' | 'meshfs.write'): string => {
    const pointer = pointerIn(query as { pointer?: string });
    demand(principal, { scope, pointer });
    return pointer;
  };
  /** Refuses whose token may not write to an upload's pointer, which is not named: only its writers know of it. */
  const writing =
    ({ principal }: FastifyRequest, upload: string) =>
    (pointer: string) => {
      if (may(principal, { scope: 'meshfs.write', pointer })) return;
      const why = `The upload ${upload} is of a pointer to which this token may not write. Choose another name`;
      throw new Forbidden({ why, target: upload });
    };

  app.put(
    '/api/v2/meshfs/raw',
    {
      config: { scope: 'meshfs.write' },
      schema: {
        tags: ['meshfs'],
        summary: 'Write bytes to a pointer. With `upload` and Content-Range: one piece of an upload',
        querystring: Type.Object({ pointer, upload, language }, strict),
      },
    },
    async (request, reply) => {
      const { upload, language } = request.query;
      const { raw, headers } = request;
      const common = {
        pointer: allowed(request, 'meshfs.write'),
        ...kindOf(request, language),
        expect: expectOf(headers),
        digest: announcedDigest(headers),
      };
      const range = headers['content-range'];
      if ((upload === undefined) !== (range === undefined))
        throw new BadInput({ what: 'an upload', why: 'it needs both: `upload` in the query, and Content-Range' });
      // An admin waits where all places are taken; others leave some to whoever comes.
      if (request.principal.id !== ADMIN.id) reply.raw.once('close', puts.take(request.principal.name));
      let written: Written | undefined;
      if (upload === undefined || range === undefined) written = await meshfs.put({ ...common, content: bodyOf(raw) });
      else {
        const piece = { ...common, upload, ...contentRangeOf(range) };
        if (headers['content-length'] !== undefined && Number(headers['content-length']) !== piece.length)
          throw new BadInput({ what: 'Content-Range', why: 'it has another length than the body' });
        const state = await meshfs.uploads.receive(
          { ...piece, content: (signal) => bodyOf(raw, signal) },
          writing(request, upload),
        );
        void reply.header('upload-offset', state.offset);
        if (!state.written) return reply.status(202).send({ status: 'accepted', ...state });
        written = state.written;
      }
      void reply.header('etag', etagOf(written));
      return reply.status(written.version === 1 ? 201 : 200).send({ status: 'success', ...written });
    },
  );

  app.get(
    '/api/v2/meshfs/raw',
    {
      config: { scope: 'meshfs.read' },
      exposeHeadRoute: false,
      schema: {
        tags: ['meshfs'],
        summary: 'The bytes that a pointer points to; takes Range',
        querystring: Type.Object({ pointer, version }, strict),
      },
    },
    async (request, reply) => {
      const found = await meshfs.open(allowed(request, 'meshfs.read'), { version: request.query.version });
      if (isReadAlready(request, found)) {
        describeContent(reply, found);
        return reply.status(304).send();
      }
      const range = rangeOf(request.headers, found);
      if (range === 'none') {
        void reply.header('content-range', `bytes */${found.bytes}`);
        throw new RangeUnsatisfiable({ pointer: found.pointer, bytes: found.bytes });
      }
      describeContent(reply, found);
      const { start, end } = range ?? { start: 0, end: found.bytes };
      void reply.header('content-length', end - start);
      if (range) void reply.header('content-range', `bytes ${start}-${end - 1}/${found.bytes}`);
      reply.hijack();
      reply.raw.writeHead(range ? 206 : 200, reply.getHeaders() as OutgoingHttpHeaders);
      try {
        await send(reply.raw, found.read({ start, end }));
      } catch (error) {
        if (!reply.raw.closed) request.log.error({ err: error }, 'a content could not be sent');
        reply.raw.destroy(); // the reader sees that it is not whole
      }
    },
  );

  app.head(
    '/api/v2/meshfs/raw',
    {
      config: { scope: ['meshfs.read', 'meshfs.write'], swagger: { exposeHeadRoute: true } },
      schema: {
        tags: ['meshfs'],
        summary: 'What a pointer points to, without the bytes. With `upload`: how far that upload is',
        querystring: Type.Object({ pointer, version, upload }, strict),
      },
    },
    async (request, reply) => {
      const { upload, version } = request.query;
      if (upload !== undefined) {
        const { offset, written } = await meshfs.uploads.state(upload, writing(request, upload));
        if (written) describeContent(reply, written);
        void reply.headers({ 'upload-offset': offset, 'upload-complete': written ? '?1' : '?0' });
        return reply.header('cache-control', 'no-store').status(204).send();
      }
      const found = await meshfs.open(allowed(request, 'meshfs.read'), { version });
      const is_read = isReadAlready(request, found);
      describeContent(reply, found);
      return is_read ? reply.status(304).send() : reply.header('content-length', found.bytes).send();
    },
  );

  app.delete(
    '/api/v2/meshfs/raw',
    {
      config: { scope: 'meshfs.write' },
      schema: {
        tags: ['meshfs'],
        summary: 'Delete a pointer; its history stays readable. With `upload`: give that upload up',
        querystring: Type.Object({ pointer, upload }, strict),
      },
    },
    async (request) => {
      const { upload } = request.query;
      if (upload !== undefined) {
        await meshfs.uploads.discard(upload, writing(request, upload));
        return { status: 'success', upload };
      }
      const deleted = await meshfs.delete(allowed(request, 'meshfs.write'), { expect: expectOf(request.headers) });
      return { status: 'success', ...deleted };
    },
  );
};
