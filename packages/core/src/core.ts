/**
 * The core: the one port of a mesh's control plane. It composes; what it composes is in the files beside it.
 *
 * On its port: the HTTP API (OpenAPI at /docs), the nodes' links and splices, and route B. Bulk traffic between callers
 * and workers passes it only over route B. It needs no root and runs no one else's code.
 */
import { existsSync, mkdirSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import { type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox';
import { openEmbedded } from '@hauki/backplane';
import { createMeshFs } from '@hauki/meshfs';
import { BadInput, InternalError, LEASE, LIMITS, MeshError, NoSuchMethod, TooLarge, toWire } from '@hauki/protocol';
import { randomText } from '@hauki/rpc';
import { UPGRADE_PROTOCOL } from '@hauki/rpc/node';
import Fastify, { type FastifyBaseLogger, type FastifyError } from 'fastify';
import { Auth } from './auth.ts';
import { serveLink } from './links.ts';
import { Registry } from './registry.ts';
import { Relay } from './relay.ts';
import { meshfsRoutes } from './routes/meshfs.ts';
import { swarmRoutes } from './routes/swarm.ts';
import { systemRoutes } from './routes/system.ts';
import { Swarm } from './swarm.ts';
import { openTicketOffice } from './tickets.ts';

export interface CoreOptions {
  /** Keys, tokens and MeshFS; made at the first start, mode 0700. */
  data_dir: string;
  logger: FastifyBaseLogger;
  /** Names, besides loopback's, under which it may be asked for. */
  host_names?: string[];
  random?: () => number;
}

export interface CoreServer {
  /** Listens; rejects with a clear BadInput when the port is taken. Gives the URL. */
  listen(host: string, port: number): Promise<string>;
  close(): Promise<void>;
}

/** An HTTP answer on a raw connection, for refused upgrades. */
function refuse(socket: Socket, error: unknown): void {
  const wire = error instanceof MeshError ? error : new InternalError({ why: 'the upgrade failed' });
  const body = JSON.stringify({ status: 'error', error: toWire(wire) });
  socket.write(
    `HTTP/1.1 ${wire.status} Refused\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  socket.destroySoon();
}

function accept(socket: Socket, head: Buffer): void {
  socket.setNoDelay(true);
  socket.setTimeout(0);
  if (head.length > 0) socket.unshift(head);
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: ${UPGRADE_PROTOCOL}\r\n\r\n`);
}

/** Builds a core over its data folder; `listen` opens its port. */
export async function createCore(options: CoreOptions): Promise<CoreServer> {
  const { data_dir, logger } = options;
  mkdirSync(data_dir, { recursive: true, mode: 0o700 });
  const first_start = !existsSync(join(data_dir, 'admin.token'));
  const auth = new Auth(data_dir, options.host_names ?? []);
  if (first_start) logger.info(`an admin token was made: ${join(data_dir, 'admin.token')}`);
  const office = await openTicketOffice(data_dir, LEASE.ticket_ms);
  const backplane = await openEmbedded(join(data_dir, 'store'));
  const meshfs = await createMeshFs(backplane, {
    wiki_folder: join(data_dir, 'wiki'),
    report: (problem) => logger.warn(problem),
  });
  // Space that a crash left occupied is given back while the core works already.
  meshfs.collect().then(
    (swept) => swept.removed > 0 && logger.info(swept, 'content that nothing names was removed'),
    (error) => logger.warn({ err: error }, 'content that nothing names could not be looked for'),
  );
  const registry = new Registry();
  const log = (line: string, fields: object = {}) => logger.info(fields, line);
  const swarm = new Swarm({
    registry,
    office,
    meshfs,
    random: options.random ?? Math.random,
    event: (name, fields) => log(name, fields),
  });
  const relay = new Relay({ registry, visitorTicket: (worker, audience) => swarm.visitorTicket(worker, audience) });
  const core_id = randomText(6);
  const started_at = Date.now();

  const app = Fastify({
    loggerInstance: logger,
    logController: new Fastify.LogController({ disableRequestLogging: true }),
    bodyLimit: LIMITS.body_bytes,
    routerOptions: { ignoreTrailingSlash: true },
    forceCloseConnections: true,
  }).withTypeProvider<TypeBoxTypeProvider>();
  app.setValidatorCompiler(TypeBoxValidatorCompiler);

  app.setErrorHandler((error: FastifyError | MeshError, request, reply) => {
    const typed = typedError(error);
    if (typed instanceof TooLarge) {
      // Who is still sending must be heard out, or the connection breaks before the answer is read. HTTP's own time
      // limit for a request bounds it.
      reply.removeHeader('connection');
      request.raw.resume();
    }
    if (typed instanceof InternalError) logger.error({ err: error }, 'a request failed');
    return reply.status(typed.status).send({ status: 'error', error: toWire(typed) });
  });
  app.setNotFoundHandler((request, reply) => {
    const error = new NoSuchMethod(
      { method: `${request.method} ${request.url.split('?')[0]}` },
      'There is no such route. See /docs',
    );
    return reply.status(404).send({ status: 'error', error: toWire(error) });
  });
  app.addHook('onRequest', async (request) => {
    auth.checkOrigin(request.raw);
    if (!(request.routeOptions.config as { open?: boolean }).open && request.routeOptions.url)
      (request as { principal?: unknown }).principal = auth.principal(request.raw);
  });

  await app.register(swagger, {
    openapi: {
      info: { title: 'Hauki core', description: 'The control plane of a Hauki mesh.', version: '0.1.0' },
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      security: [{ token: [] }],
    },
  });
  app.addHook('onRoute', (route) => {
    if (route.url.startsWith('/docs')) route.config = { ...route.config, open: true } as never;
  });
  await app.register(swaggerUi, { routePrefix: '/docs' });
  await app.register(systemRoutes, { registry, relay, keys: office.keys, core_id, started_at });
  await app.register(swarmRoutes, { swarm, relay, registry });
  await app.register(meshfsRoutes, { meshfs });

  /** Connections that HTTP no longer knows of: links, splices, relayed callers. */
  const upgraded = new Set<Socket>();

  const upgrade = async (request: IncomingMessage, socket: Socket, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    upgraded.add(socket);
    socket.once('close', () => upgraded.delete(socket));
    try {
      auth.checkOrigin(request);
      if (request.headers.upgrade?.toLowerCase() !== UPGRADE_PROTOCOL)
        throw new BadInput({ what: 'upgrade', why: `only to ${UPGRADE_PROTOCOL}` });
      const path = (request.url ?? '').split('?')[0]!;
      if (path === '/api/v2/node/link') {
        auth.principal(request, 'node');
        accept(socket, head);
        serveLink(socket, {
          registry,
          keys: office.keys,
          core_id,
          log,
          meshfs,
        });
        return;
      }
      const splice = /^\/api\/v2\/node\/splice\/([A-Za-z0-9_-]{1,64})$/.exec(path)?.[1];
      if (splice !== undefined) {
        auth.principal(request, 'node');
        accept(socket, head);
        if (!relay.arrived(splice, socket)) socket.destroy();
        return;
      }
      const worker = /^\/api\/v2\/ephemeral\/([a-z0-9-]{1,64})$/.exec(path)?.[1];
      if (worker === undefined) throw new NoSuchMethod({ method: path }, 'There is nothing to upgrade here');
      auth.principal(request);
      registry.find(worker);
      await relay.splice(worker, socket, () => accept(socket, head));
    } catch (error) {
      refuse(socket, error);
    }
  };
  app.server.on('upgrade', (request, socket, head) => void upgrade(request, socket as Socket, head));

  return {
    async listen(host, port) {
      try {
        await app.listen({ host, port });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE')
          throw new BadInput({
            what: `port ${port}`,
            why: `something else listens on ${host}:${port}. Is a core running already (hauki ps)? Choose another with --port`,
          });
        throw error;
      }
      const address = app.server.address() as { port: number };
      return `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`;
    },
    async close() {
      for (const socket of upgraded) socket.destroy();
      app.server.closeAllConnections();
      await app.close();
      await backplane.close();
    },
  };
}

/** Fastify's own errors as ours; what is unknown tells nothing of the inside. */
function typedError(error: FastifyError | MeshError): MeshError {
  if (error instanceof MeshError) return error;
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE')
    return new TooLarge({ what: 'The request body', limit_bytes: LIMITS.body_bytes }) as MeshError;
  if (error.validation)
    return new BadInput({
      what: `the request's ${error.validationContext ?? 'body'}`,
      why: error.message,
    }) as MeshError;
  if (error.statusCode && error.statusCode < 500)
    return new BadInput({ what: 'the request', why: error.message }) as MeshError;
  return new InternalError({ why: 'something in the core failed; its log says what' }) as MeshError;
}
