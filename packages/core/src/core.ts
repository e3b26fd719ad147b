/**
 * The core: the one port of a mesh's control plane. It composes; what it composes is in the files beside it.
 *
 * On its port: the HTTP API (OpenAPI at /docs), the nodes' links and splices, and route B. Bulk traffic between callers
 * and workers passes it only over route B. It needs no root and runs no one else's code.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import { type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox';
import { createMeshFs, type Written } from '@hauki/meshfs';
import {
  BadInput,
  type Fate,
  InternalError,
  isError,
  LIMITS,
  type MeshError,
  NoSuchMethod,
  QuotaExceeded,
  TooLarge,
  toWire,
} from '@hauki/protocol';
import { describedAs, NO_SUCH_ROUTE } from '@hauki/protocol/http-description';
import { httpRefusal } from '@hauki/protocol/http-refusal';
import { readably } from '@hauki/protocol/schema-refusal';
import { randomText } from '@hauki/rpc';
import { createHttpServer, readDirectly, refuse, textOf, writeError } from '@hauki/rpc/node';
import Fastify, { type FastifyBaseLogger } from 'fastify';
import { ABOUT } from './about.ts';
import { Auth, type RouteAccess } from './auth.ts';
import { type BodyShares, boundBody, shareBody } from './bodies.ts';
import { Callers } from './callers.ts';
import { shareWithPage } from './cors.ts';
import { openDataFolder } from './data-folder.ts';
import { Events } from './events.ts';
import { createFamily } from './family.ts';
import { Fates } from './fates.ts';
import { Gateway } from './kernels/gateway.ts';
import { Kernels } from './kernels/kernels.ts';
import { Rollouts } from './kernels/rollouts.ts';
import { Lasting } from './lasting/lasting.ts';
import { HTTP_LIMITS } from './limits.ts';
import { Quotas } from './quotas.ts';
import { Registry } from './registry.ts';
import { Relay } from './relay.ts';
import { TOLD } from './routes/answers.ts';
import { eventRoutes } from './routes/events.ts';
import { kernelRoutes } from './routes/kernels.ts';
import { lifeRoutes } from './routes/life.ts';
import { meshfsRoutes } from './routes/meshfs.ts';
import { provisionRoutes } from './routes/provision.ts';
import { revokeRoutes } from './routes/revoke.ts';
import { spoolRoutes } from './routes/spool.ts';
import { swarmRoutes } from './routes/swarm.ts';
import { systemRoutes } from './routes/system.ts';
import { tokenRoutes } from './routes/tokens.ts';
import { volumeRoutes } from './routes/volumes.ts';
import { CORE, Shares } from './shares.ts';
import { Spool } from './spool/spool.ts';
import { Swarm } from './swarm.ts';
import { TokenStore } from './tokens.ts';
import { createUpgrades } from './upgrades.ts';
import { VolumeHomes } from './volumes.ts';

export interface CoreOptions {
  /** Keys, tokens and MeshFS; made at the first start, mode 0700. */
  data_dir: string;
  logger: FastifyBaseLogger;
  /** Names, besides loopback's, under which it may be asked for. */
  host_names?: string[];
  /** After which a node that is away is taken for gone, and its lasting workers are started elsewhere. */
  node_grace_ms?: number;
  /** How long a request's body may take, where its route does not bound it by itself. */
  body_ms?: number;
  /** Connections that it may have; as many as its descriptors allow where it is left out. */
  connections?: number;
  random?: () => number;
}

export interface CoreServer {
  /** Who may use which route: `open`, a scope, one of several, `any` token; undefined where nobody may. */
  readonly routes: readonly { method: string; url: string; access: RouteAccess['scope'] | 'open' }[];
  /** Listens; rejects with a clear BadInput when the port is taken. Gives the URL. */
  listen(host: string, port: number): Promise<string>;
  close(): Promise<void>;
}

/** Builds a core over its data folder; `listen` opens its port. */
export async function createCore(options: CoreOptions): Promise<CoreServer> {
  const { data_dir, logger } = options;
  const first_start = !existsSync(join(data_dir, 'admin.token'));
  const { backplane, office, kept, collect } = await openDataFolder(data_dir, logger);
  const log = (line: string, fields: object = {}) => logger.info(fields, line);
  const core_id = randomText(6);
  const events = new Events({ core_id, log });
  events.emit('CORE_STARTED', { core: core_id });
  const quotas = new Quotas({ quota: (token) => tokens.quota(token), workers: () => registry.workers.values() });
  const ended = (token: string) => quotas.forget(token);
  const tokens: TokenStore = await TokenStore.open({ ...kept('tokens'), emit: events.emit, ended });
  const auth = new Auth(data_dir, options.host_names ?? [], tokens);
  if (first_start) logger.info(`an admin token was made: ${join(data_dir, 'admin.token')}`);
  const meshfs = await createMeshFs(backplane, {
    wiki_folder: join(data_dir, 'wiki'),
    report: (problem) => logger.warn(problem),
    onWrite: (written) => tellWrite(written, events.emit),
  });
  collect(meshfs);
  const { node_grace_ms = LIMITS.node_grace_ms } = options;
  const fates = new Fates(backplane.kv('fates'), undefined, log);
  await fates.open(kept('fates').damaged);
  const registry = new Registry(events.emit, node_grace_ms, fates);
  const volumes = new VolumeHomes({ ...kept('volumes'), registry, event: events.emit });
  const callers = new Callers();
  const over = ({ worker }: Fate) => callers.over(worker);
  registry.watch({ died: over, stillborn: over });
  const swarm = new Swarm({
    callers,
    registry,
    quotas,
    volumes,
    office,
    meshfs,
    tokens,
    random: options.random ?? Math.random,
    event: events.emit,
  });
  const family = createFamily({ registry, swarm, principal: tokens.behind });
  const relay = new Relay({
    registry,
    visitorTicket: (worker, audience) => swarm.visitorTicket(worker, audience, CORE),
  });
  const lasting = new Lasting({ ...kept('lasting'), registry, swarm, event: events.emit, node_grace_ms });
  const spool = new Spool({
    ...kept('spool'),
    registry,
    swarm,
    connect: (worker) => relay.open(worker),
    event: events.emit,
    node_grace_ms: Math.min(node_grace_ms, LIMITS.node_silence_ms),
  });
  await volumes.open();
  await Promise.all([lasting.open(), spool.open()]);
  const kernels = new Kernels(events.emit);
  const started_at = Date.now();

  const { body_ms = HTTP_LIMITS.body_ms } = options;
  const late = new BadInput({ what: 'the request body', why: `it did not come within ${body_ms} ms` });
  // Bodies have deadlines of their own (`bodies.ts`).
  const times = {
    keepAliveTimeout: LIMITS.http_idle_ms,
    headersTimeout: HTTP_LIMITS.headers_ms,
    requestTimeout: 0,
  };
  const app = Fastify({
    loggerInstance: logger,
    logController: new Fastify.LogController({ disableRequestLogging: true }),
    bodyLimit: LIMITS.body_bytes,
    routerOptions: { ignoreTrailingSlash: true },
    forceCloseConnections: true,
    // The server answers what is no request.
    clientErrorHandler() {},
    frameworkErrors: (error, _request, reply) => writeError(reply.raw, typed(error)),
    serverFactory(handler) {
      const server = createHttpServer(times, {
        serve(request, response) {
          boundBody(request, response, body_ms, () => refuse(request.socket, late));
          if (!gateway.take(request, response)) handler(request, response);
        },
        upgrade: (request, socket, head) => void upgrades.serve(request, socket, head),
      });
      server.maxConnections = options.connections ?? server.maxConnections;
      return server;
    },
  }).withTypeProvider<TypeBoxTypeProvider>();
  const connections = app.server.maxConnections || Number.POSITIVE_INFINITY;
  const bodies: BodyShares = {
    places: new Shares('request bodies that are coming in', Math.floor(connections * HTTP_LIMITS.bodies_share)),
    bytes: new Shares('bytes of large request bodies that are coming in', HTTP_LIMITS.bodies_bytes),
  };
  const gateway = new Gateway(kernels, auth, tokens, bodies);
  app.setValidatorCompiler(readably(TypeBoxValidatorCompiler));
  const json = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body: Buffer, done) =>
    json(request, textOf(body), done),
  );

  /** What of a failure is told; of what is told to nobody the log has all. */
  const typed = (error: Error): MeshError => {
    const told = httpRefusal(error, 'core', LIMITS.body_bytes);
    if (told instanceof InternalError) logger.error({ err: error }, 'a request failed');
    return told;
  };

  app.setErrorHandler((error: Error, request, reply) => {
    const told = typed(error);
    if (told instanceof TooLarge) {
      // Who is still sending must be heard out, or the connection breaks before the answer is read. The deadline
      // of bodies bounds it.
      reply.removeHeader('connection');
      request.raw.resume();
    }
    // For clients that know HTTP alone.
    if (isError(told, QuotaExceeded) && told.fields.wait_ms !== undefined)
      reply.header('retry-after', String(Math.ceil(told.fields.wait_ms / 1_000)));
    return reply.status(told.status).send({ status: 'error', error: toWire(told) });
  });
  app.setNotFoundHandler((request, reply) => {
    const error = new NoSuchMethod({ method: `${request.method} ${request.url.split('?')[0]}` }, NO_SUCH_ROUTE);
    return reply.status(404).send({ status: 'error', error: toWire(error) });
  });
  app.addHook('onRequest', async (request, reply) => {
    auth.checkOrigin(request.raw);
    if (shareWithPage(request, reply)) return reply;
    const { config, url } = request.routeOptions;
    // No URL: there is no such route, which anybody may hear.
    if (url) request.principal = auth.admit(request.raw, config, `${request.method} ${url}`)!;
    if (request.principal) shareBody(request.raw, request.principal, bodies);
  });

  await app.register(swagger, {
    openapi: {
      info: { title: 'Hauki core', description: ABOUT, version: '0.1.0' },
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      security: [{ token: [] }],
    },
    transform: ({ schema, url, route }) => {
      const { open, scope } = route.config ?? {};
      const with_scope = scope === 'any' ? '' : ` with the scope: ${[scope].flat().join(' or ')}`;
      const needs = open ? 'Needs no token.' : `Needs a token${with_scope}.`;
      const description = schema?.description ? `${schema.description}. ${needs}` : needs;
      return { url, schema: { ...describedAs(schema, TOLD[`${route.method} ${url}`]), description } };
    },
  });
  const routes: CoreServer['routes'][number][] = [];
  app.addHook('onRoute', (route) => {
    if (route.url.startsWith('/docs')) route.config = { ...route.config, open: true };
    const { open, scope } = route.config ?? {};
    for (const method of [route.method].flat()) routes.push({ method, url: route.url, access: open ? 'open' : scope });
  });
  await app.register(swaggerUi, { routePrefix: '/docs' });
  await app.register(systemRoutes, { registry, relay, callers, keys: office.keys, core_id, started_at });
  await app.register(swarmRoutes, { swarm, relay, callers, registry, emit: events.emit });
  await app.register(meshfsRoutes, { meshfs, tokens });
  await app.register(volumeRoutes, { volumes });
  await app.register(revokeRoutes, { registry, swarm, lasting, emit: events.emit });
  await app.register(provisionRoutes, { lasting });
  await app.register(spoolRoutes, { spool });
  await app.register(kernelRoutes, {
    kernels,
    rollouts: new Rollouts(kernels, events.emit, tokens.behind),
    meshfs,
  });
  await app.register(lifeRoutes, { registry, tokens, emit: events.emit });
  await app.register(tokenRoutes, { tokens, quotas, registry, lasting, spool });
  await app.register(eventRoutes, { events, tokens });

  const relayed = new Shares('relayed connections', Math.floor(connections * HTTP_LIMITS.relayed_share));
  const upgrades = createUpgrades({
    relayed,
    ...{ auth, tokens, registry, meshfs, family, swarm, kernels, relay, keys: office.keys, core_id, log, typed },
  });
  const endDirect = readDirectly(app.server, (request, by) => gateway.take(request, by));

  return {
    routes,
    async listen(host, port) {
      try {
        await app.listen({ host, port });
        registry.expect();
        kernels.expect();
      } catch (error) {
        const { code = '' } = error as NodeJS.ErrnoException;
        if (/^(?:EADDRNOTAVAIL|ENOTFOUND|EAI_AGAIN)$/.test(code))
          throw new BadInput({ what: '--host', why: `${host} is no address that this machine has now (${code})` });
        if (code === 'EADDRINUSE')
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
      spool.close();
      await lasting.close();
      await upgrades.close();
      endDirect();
      app.server.closeAllConnections();
      await app.close();
      tokens.close();
      registry.close();
      await fates.close();
      await backplane.close();
    },
  };
}

/** What was written, or deleted: pointer, digest and version, never the content. */
function tellWrite({ pointer, digest, version, bytes, media_type, deleted }: Written, emit: Events['emit']): void {
  if (deleted) emit('MESHFS_DELETED', { pointer, version });
  else emit('MESHFS_WRITTEN', { pointer, digest, version, bytes, media_type });
}
