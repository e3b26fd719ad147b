/**
 * The kernel's port. Requests for modules go straight from `node:http` to the module's vault; the kernel's own few
 * routes are Fastify's, with their description at /docs.
 *
 * What always holds: which of the two a request is for is read from the raw path (`names.ts`); every route but /health
 * and /docs needs a token, unless the kernel was started open, and then the caller must be on this machine; the token
 * that opens the kernel is not passed on to a module.
 */
import { timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import { type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox';
import {
  type Answer,
  BadInput,
  type Body,
  type FlatHeaders,
  InternalError,
  isError,
  type KernelForCore,
  LIMITS,
  MeshError,
  ModuleUnknown,
  NoSuchMethod,
  PluginFailed,
  prefixOf,
  RemoteError,
  readTarget,
  type Target,
  TooLarge,
  toWire,
  Unauthorised,
} from '@hauki/protocol';
import { describedAs, NO_SUCH_ROUTE } from '@hauki/protocol/http-description';
import { httpRefusal } from '@hauki/protocol/http-refusal';
import { readably } from '@hauki/protocol/schema-refusal';
import { onceForSame } from '@hauki/rpc';
import {
  type Answering,
  type Asked,
  answerUpgrade,
  bodyOf,
  callWebSocket,
  createHttpServer,
  hasBody,
  headersOf,
  leaving,
  offerFirst,
  onceForHeaders,
  originCheck,
  readDirectly,
  Strangers,
  textOf,
  type WebSocketCall,
  wantsWebSocket,
  writeAnswer,
  writeError,
} from '@hauki/rpc/node';
import Fastify from 'fastify';
import { ABOUT, type OpenApi, TOLD, withModules } from './description.ts';
import { blamedFor, type Instance } from './instance.ts';
import type { Kernel } from './kernel.ts';
import { KERNEL_LIMITS } from './limits.ts';
import { type Module, VERSION_HEADER } from './module.ts';
import { OwnRoutes } from './own-routes.ts';
import { kernelRoutes } from './routes.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    open?: boolean;
  }
  interface FastifyRequest {
    /** The name of the token that asks, or `anonymous`. */
    by: string;
  }
}

export interface ServerOptions {
  /** Opens every route. */
  token: string;
  /** Whether callers on this machine need none. */
  open: boolean;
  /** Names, besides loopback's, under which it may be asked for. */
  host_names?: string[];
  /** Who else may come in, by the bearer token: a name, or undefined. */
  admit?(token: string): Promise<string | undefined>;
  log(line: string, fields?: object): void;
}

export interface KernelServer {
  readonly server: Server;
  /** Listens on a port, or on a socket that was handed in. Gives the URL. */
  listen(where: { host: string; port: number } | { fd: number }): Promise<string>;
  /** What the core asks of the kernel's own routes, in the name of one of its tokens. Never an evolve. */
  own: KernelForCore['own'];
  close(): Promise<void>;
}

const LOOPBACK = /^(?:127\.\d+\.\d+\.\d+|::1|::ffff:127\.\d+\.\d+\.\d+)$/;
/** Compares with a secret; the time it takes tells nothing but whether the other is as long. */
function secret(right: string): (given: string) => boolean {
  const bytes = Buffer.from(right, 'latin1');
  const other = Buffer.alloc(bytes.length);
  return (given) => given.length === right.length && other.write(given, 'latin1') > 0 && timingSafeEqual(other, bytes);
}

export async function createKernelServer(kernel: Kernel, options: ServerOptions): Promise<KernelServer> {
  const { log, open } = options;
  const isRight = secret(options.token);
  const checkOrigin = originCheck('kernel', options.host_names ?? []);

  /** Whose token this is. Throws Unauthorised. */
  const bearer = (token: string): string | Promise<string> => {
    const unknown = () => new Unauthorised({ why: 'This token is not known here' });
    if (isRight(token)) return 'admin';
    if (!options.admit) throw unknown();
    return options.admit(token).then((name) => {
      if (name === undefined) throw unknown();
      return name;
    });
  };
  /** Whether a caller who says nothing of themself may come in. */
  const anybody = (request: Asked) => open && LOOPBACK.test(request.socket.remoteAddress ?? '');

  const tokenOf = onceForHeaders(({ headers }: Asked) => {
    const token = /^Bearer ([\x21-\x7e]{1,256})$/i.exec(headers.authorization ?? '')?.[1];
    return { token, right: token !== undefined && isRight(token) };
  });

  /** Who asks. Throws Unauthorised or Forbidden. */
  const whoAsks = (request: Asked): string | Promise<string> => {
    checkOrigin(request);
    const { token, right } = tokenOf(request);
    if (right) return 'admin';
    if (token !== undefined && options.admit) return bearer(token);
    if (anybody(request)) return 'anonymous';
    if (token !== undefined) return bearer(token);
    throw new Unauthorised({
      why: 'A token is needed: send "Authorization: Bearer …". It is in kernel.token, in the kernel’s data folder',
    });
  };

  let own: (request: IncomingMessage, response: ServerResponse) => void = () => {};
  const times = { keepAliveTimeout: LIMITS.http_idle_ms };
  const server = createHttpServer(times, {
    serve(request, response) {
      const target = readTarget(request.url ?? '', kernel.aliases);
      if (target.kind === 'plugin') void serve(request, response, target);
      else if (target.kind === 'refused')
        writeError(response, new BadInput({ what: 'the request target', why: target.why }));
      else own(request, response);
    },
    upgrade: (request, socket, head) => void upgrade(request, socket, head).catch(() => socket.destroy()),
  });
  const endDirect = readDirectly(server, (request, by) => {
    const target = readTarget(request.url!, kernel.aliases);
    if (target.kind !== 'plugin') return false;
    void serve(request, by, target);
    return true;
  });
  const app = Fastify({
    bodyLimit: KERNEL_LIMITS.body_bytes,
    forceCloseConnections: true,
    // The server answers what is no request.
    clientErrorHandler() {},
    frameworkErrors: (error, _request, reply) =>
      writeError(reply.raw, httpRefusal(error, 'kernel', KERNEL_LIMITS.body_bytes)),
    routerOptions: { ignoreTrailingSlash: true },
    serverFactory(handler) {
      own = handler as typeof own;
      return server;
    },
  }).withTypeProvider<TypeBoxTypeProvider>();
  const own_routes = new OwnRoutes();
  const ending = new AbortController();
  const strangers = new Strangers();
  /** A WebSocket of a module; whatever else is asked for is refused as an ordinary request is answered. */
  const upgrade = async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const target = readTarget(request.url ?? '', kernel.aliases);
    try {
      if (target.kind !== 'plugin' || !wantsWebSocket(request))
        throw new BadInput({ what: 'upgrade', why: 'only to websocket, for a module' });
      const module = kernel.module(target.module);
      if (!module) throw new ModuleUnknown({ module: target.module });
      checkOrigin(request);
      // A page of a browser can send no header: its first message says who it is.
      const by_message = request.headers.authorization === undefined && !anybody(request);
      const strip = by_message || (await whoAsks(request)) !== 'anonymous';
      const served = requestOf(module, request, target, strip);
      served.headers = [...(by_message ? offerFirst(served.headers) : served.headers), 'upgrade', 'websocket'];
      const admit: WebSocketCall['admit'] = async (client, first) =>
        void (await bearer(await strangers.token(client, () => first)));
      const call = async (messages: () => Body): Promise<Answer> => {
        const { answer, instance } = await module.serve(
          { ...served, body: messages(), signal: leaving(request) },
          askedVersion(request),
        );
        return [answer[0], traced(answer[1], instance), answer[2]];
      };
      const refused = await callWebSocket(request, socket, head, call, {
        ending: ending.signal,
        ...(by_message ? { admit } : {}),
      });
      if (refused) await writeAnswer(answerUpgrade(request, socket), refused);
    } catch (error) {
      writeError(answerUpgrade(request, socket), failure(target.kind === 'plugin' ? target.module : '', error, log));
    }
  };

  // What `curl -d` sends: its type is nobody's choice. Pages of others cannot: their origin is refused.
  const json = app.getDefaultJsonParser('error', 'error');
  const types = ['application/json', 'application/x-www-form-urlencoded', 'text/plain'];
  app.addContentTypeParser(types, { parseAs: 'buffer' }, (request, body: Buffer, done) =>
    json(request, textOf(body), done),
  );
  app.setValidatorCompiler(readably(TypeBoxValidatorCompiler));
  app.setErrorHandler((error: Error, request, reply) => {
    const typed = httpRefusal(error, 'kernel', KERNEL_LIMITS.body_bytes);
    if (typed instanceof TooLarge) {
      // Who is still sending must be heard out, or the connection breaks before the answer is read.
      reply.removeHeader('connection');
      request.raw.resume();
    }
    if (typed instanceof InternalError) log(`a request failed: ${error.stack ?? error.message}`);
    return reply.status(typed.status).send({ status: 'error', error: toWire(typed) });
  });
  app.setNotFoundHandler((request, reply) => {
    const method = `${request.method} ${request.url.split('?')[0]}`;
    return reply.status(404).send({
      status: 'error',
      error: toWire(new NoSuchMethod({ method }, NO_SUCH_ROUTE) as MeshError),
    });
  });
  app.addHook('onRoute', (route) => {
    if (route.url.startsWith('/docs')) route.config = { ...route.config, open: true };
  });
  app.addHook('onRequest', async (request) => {
    const { config, url } = request.routeOptions;
    // Also where no token is needed: a page of another host must not read it under a name that was bent to this machine.
    checkOrigin(request.raw);
    if (url && !config.open) request.by = own_routes.by(request.headers) ?? (await whoAsks(request.raw));
    if (request.by === 'anonymous') checkNoPage(request);
  });
  await app.register(swagger, {
    openapi: {
      info: { title: kernel.name, description: ABOUT, version: '0.1.0' },
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      security: [{ token: [] }],
    },
    transform: ({ schema, url, route }) => ({
      url,
      schema: {
        ...describedAs(schema, TOLD[`${route.method} ${url}`]),
        ...(route.config?.open ? { security: [] } : {}),
      },
    }),
  });
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    // What modules serve is looked up each time: they come and go.
    transformSpecification: (document) => withModules(document as OpenApi, kernel) as object,
    transformSpecificationClone: true,
  });
  await app.register(kernelRoutes, { kernel });

  /** Gives a request to a version of the module, and its answer back. */
  const serve = async (request: Asked, to: Answering, target: Target & { kind: 'plugin' }) => {
    try {
      const module = kernel.module(target.module);
      if (!module) throw new ModuleUnknown({ module: target.module });
      const by = whoAsks(request);
      const who = typeof by === 'string' ? by : await by;
      const served = requestOf(module, request, target, who !== 'anonymous');
      const body = hasBody(request) ? await bodyOf(request as IncomingMessage) : null;
      const { answer, instance } = await module.serve(
        { ...served, body, signal: leaving(request) },
        askedVersion(request),
      );
      await writeAnswer(to, answer, provenance(instance));
    } catch (error) {
      writeError(to, failure(target.module, error, log), provenance(blamedFor(error)));
    }
  };

  return {
    server,
    async listen(where) {
      try {
        if ('fd' in where)
          await new Promise<void>((resolve, reject) => server.listen(where, resolve).once('error', reject));
        else await app.listen(where);
      } catch (error) {
        if ('port' in where && (error as NodeJS.ErrnoException).code === 'EADDRINUSE')
          throw new BadInput({
            what: `port ${where.port}`,
            why: `something else listens on ${where.host}:${where.port}. Choose another with --port`,
          });
        throw error;
      }
      const { port, address } = server.address() as { port: number; address: string };
      return `http://${address.includes(':') ? `[${address}]` : address}:${port}`;
    },
    own: own_routes.asked(app),
    async close() {
      ending.abort();
      endDirect();
      server.closeAllConnections();
      await app.close();
    },
  };
}

/** Headers that are the kernel's business alone. */
const PREFIX = 'x-forwarded-prefix';
/** What a module hears of a request's headers. */
const heardBut = (kept_back: ReadonlySet<string>) =>
  onceForHeaders((request: Asked, module) => [...headersOf(request, kept_back), PREFIX, prefixOf(module)]);
const heard = heardBut(new Set([PREFIX]));
const heardWithoutToken = heardBut(new Set([PREFIX, 'authorization']));

/** The version that a caller names. */
function askedVersion({ headers }: Pick<Asked, 'headers'>): string | undefined {
  const asked = headers[VERSION_HEADER];
  return typeof asked === 'string' ? asked : undefined;
}

/** The request as the module sees it, but for its body. */
function requestOf(
  module: Module,
  request: Asked,
  { path, query }: { path: string; query: string },
  strip_token: boolean,
): { method: string; url: string; headers: FlatHeaders } {
  const headers = (strip_token ? heardWithoutToken : heard)(request, module.name);
  return { method: request.method ?? 'GET', url: `http://${request.headers.host}${path}${query}`, headers };
}

/** By which an answer can be traced to its source; nothing where it came from no version. */
export const provenance = onceForSame(
  (instance: Instance | undefined): FlatHeaders =>
    instance ? ['x-hauki-version', String(instance.version), 'x-hauki-digest', instance.spec.digest] : [],
);

/** An answer's headers with those by which it can be traced. */
export const traced = onceForSame(
  (headers: FlatHeaders, instance: Instance): FlatHeaders => [...headers, ...provenance(instance)],
);

/** What a request's failure means to whoever asked; of the module's inside no more than its error's first line. */
export function failure(module: string, error: unknown, log: ServerOptions['log']): MeshError {
  if (isError(error, RemoteError)) {
    log(`${module}: ${error.message}`);
    return new MeshError(
      { ...PluginFailed.row, status: 500 },
      { module, why: error.message },
      `The module ${module} failed: ${error.message}`,
    );
  }
  if (error instanceof MeshError) return error;
  return new PluginFailed({ module, why: error instanceof Error ? error.message : 'it gave no answer' }) as MeshError;
}

/**
 * Refuses changes that a page of a browser asks for without a token: modules' pages have the kernel's own origin, and
 * would change it by whoever looks at them. Who is no browser sends neither header.
 */
function checkNoPage({ method, headers }: { method: string; headers: IncomingMessage['headers'] }): void {
  const by_page = headers.origin !== undefined || headers['sec-fetch-site'] !== undefined;
  if (by_page && method !== 'GET' && method !== 'HEAD')
    throw new Unauthorised({
      why: 'A page of a browser changes this kernel only with its token ("Authorize" in /docs)',
    });
}
