/**
 * From a module to a plugin: its default export's `fetch(request)` (the WinterTC shape) behind a few methods that a
 * microkernel calls. Requests and answers cross as short lists: a Request and a Response are made in here.
 *
 * What always holds: whatever the module answers becomes `[status, headers, body]` or an error of this call; a body that
 * is there at once goes along whole, any other is a stream whose reader's leaving ends it.
 */
import { type Answer, type Body, type FlatHeaders, type PluginForKernel, SourceRejected } from '@hauki/protocol';
import { Gathered, isClass, type Served } from '@hauki/rpc';
import { leftBehind, portable, takeOver } from './plugin-state.ts';
import { joinClient, PairSocket, WebSocketPair } from './plugin-websocket.ts';
import type { WorkerObject } from './worker-object.ts';

type Handler = (request: Request, env: object, context: object) => unknown;
/** A line of these values in the module's log. */
type WriteLog = (level: string, values: unknown[]) => void;
/** Says in the log what was thrown, and throws it. */
type Failed = (error: unknown) => never;
/** The call that brings a request. */
type Call = Pick<Served, 'signal' | 'abort' | 'onabort'>;

const ROUTES = 512;
const EMPTY = new Set([101, 204, 205, 304]);
/** Whose requests have no body, whatever their client sends: no Request can be made of one. */
const BODILESS = new Set(['GET', 'HEAD']);

/** Makes the plugin of a module; `env` is what its handler gets beside the request. Throws SourceRejected. */
export function pluginObject(
  module: Record<string, unknown>,
  env: { call?: Call; log?(text: string): void; write_log?: WriteLog },
  make: MakeRequest = plainRequest,
): WorkerObject {
  const made = isClass(module.default) ? new (module.default as new (env: object) => object)(env) : module.default;
  const app = made as { fetch?: Handler; routes?: unknown } | undefined;
  const handler = typeof app === 'function' ? (app as Handler) : app?.fetch;
  if (typeof handler !== 'function')
    throw new SourceRejected({
      stage: 'exports',
      reason: `a plugin's default export has a method fetch(request); this module exports ${Object.keys(module).join(', ') || 'nothing'}`,
    });
  Object.assign(globalThis, { WebSocketPair });
  const { dehydrate, hydrate } = module as Record<'dehydrate' | 'hydrate', any>;
  const hooks = typeof dehydrate === 'function' && typeof hydrate === 'function';
  const half = !hooks && (dehydrate !== undefined || hydrate !== undefined);
  // Looked up anew each time: a module may give it another value.
  const keeps = !hooks && !half && typeof module.state === 'object' && module.state !== null;
  const context = {
    waitUntil: (work: unknown) => void Promise.resolve(work).catch((error) => said('waitUntil():', error)),
    passThroughOnException() {},
  };
  /** Its caller hears in short what failed; its log shows where. */
  const said = (what: string, error: unknown) => env.write_log?.('error', [what, error]);

  /** Not async: what a handler has at once is answered at once. */
  const serve = (method: string, url: string, headers: FlatHeaders, body: Body, call: Call | undefined) => {
    const socket = isUpgrade(headers) ? body : undefined;
    const has_body = socket === undefined && !BODILESS.has(method);
    const request = make(method, url, headers, has_body ? body : null, call);
    const failed = (error: unknown): never => {
      // The client has gone, mostly.
      if ((error as Partial<Error> | null | undefined)?.name !== 'AbortError')
        said(`${method} ${url.split('?', 1)[0]}:`, error);
      throw error;
    };
    const answered = (answer: unknown) => {
      try {
        return answerOf(answer, socket, call, failed);
      } catch (error) {
        return failed(error);
      }
    };
    let given: { then?: unknown } | null | undefined;
    try {
      given = Reflect.apply(handler, app, [request, env, context]) as typeof given;
    } catch (error) {
      return failed(error);
    }
    return typeof given?.then === 'function' ? Promise.resolve(given).then(answered, failed) : answered(given);
  };
  const gathered = new Gathered((method, url, headers, body, call) => {
    const before = env.call;
    env.call = call;
    try {
      return serve(method, url, headers, body, call);
    } finally {
      if (before) env.call = before;
      else delete env.call;
    }
  });
  const plugin: Required<PluginForKernel> = {
    fetch: (method, url, headers, body) => serve(method, url, headers, body, env.call),
    fetchAll: (first, requests) => gathered.fetchAll(first, requests),
    lateAnswer: (number, gone) => gathered.lateAnswer(number, gone, env.call),
    describe: () => ({
      routes: routesOf(module, app),
      state: hooks ? 'hooks' : half ? 'half' : keeps ? 'export' : 'none',
      together: true,
    }),
    dehydrate: async () => (hooks ? dehydrate() : keeps ? portable(module.state) : undefined),
    async hydrate(given, from_version) {
      if (hooks) await hydrate(given, from_version);
      else if (keeps) {
        const left = leftBehind(takeOver(module.state, given));
        if (left) env.log?.(left);
      }
    },
  };
  rehearse(make);
  const methods = Object.keys(plugin) as (keyof PluginForKernel)[];
  return {
    self: app as object,
    methods,
    call: (method, params) => (plugin[method as keyof PluginForKernel] as any)(...(params as unknown[])),
    async end(reason) {
      if (typeof module.onEnd === 'function') await (module.onEnd as (reason: string) => unknown)(reason);
    },
  };
}

/**
 * Goes the way of a request once without the module, for a version that is staged: what is compiled and loaded on first
 * use is there when it takes over. A module that has changed the platform's own may be in the way; then it is left out.
 */
function rehearse(make: MakeRequest): void {
  try {
    const gathered = new Gathered((method, url, headers, body, call) => {
      const request = make(method, url, headers, body, call);
      return answerOf(new Response(request.method), undefined, call, failed);
    });
    gathered.fetchAll(0, ['GET', 'http://staging/', 0]);
  } catch {
    // As above.
  }
}

const failed: Failed = (error) => {
  throw error;
};

/** Makes the request that a handler gets; Node's guest has a quicker one of its own. Its signal is the call's. */
export type MakeRequest = (method: string, url: string, headers: FlatHeaders, body: Body, call?: Call) => Request;

const plainRequest: MakeRequest = (method, url, flat, body, call) => {
  const headers = new Headers();
  for (let i = 0; i + 1 < flat.length; i += 2) headers.append(flat[i]!, flat[i + 1]!);
  const request = new Request(url, { method, headers, ...(body === null ? {} : { body: body as BodyInit }) });
  // Made when it is asked for.
  return call ? Object.defineProperty(request, 'signal', { get: () => call.signal, configurable: true }) : request;
};

const isUpgrade = (headers: FlatHeaders): boolean =>
  headers.some((text, i) => i % 2 === 0 && text === 'upgrade' && headers[i + 1]?.toLowerCase() === 'websocket');

/** What crosses of an answer. `socket`: the client's messages, where it asked for a WebSocket; `failed`: told of a stream that fails. */
function answerOf(answer: unknown, socket: Body | undefined, call: Call | undefined, failed: Failed): Answer {
  const client = (answer as { webSocket?: unknown } | null | undefined)?.webSocket;
  if (client instanceof PairSocket) {
    if (socket === undefined || socket === null) throw new TypeError('the request did not ask for a WebSocket');
    const protocol = (answer as Response).headers?.get('sec-websocket-protocol');
    return [101, protocol ? ['sec-websocket-protocol', protocol] : [], joinClient(client, socket)];
  }
  if (!(answer instanceof Response))
    throw new TypeError(`fetch() must return a Response, but it returned ${answer === null ? 'null' : typeof answer}`);
  if (answer.status === 0)
    throw new TypeError('fetch() returned Response.error(), which cannot be sent: answer with a status');
  if (answer.bodyUsed) throw new TypeError('fetch() returned a Response whose body has already been read');
  const at_once = (answer as { whole?(): Answer | undefined }).whole?.();
  if (at_once) return at_once;
  const headers: string[] = [];
  for (const [name, value] of answer.headers) headers.push(name, value);
  const { status, body } = answer;
  if (body === null || EMPTY.has(status)) return [status, headers, null];
  const length = answer.headers.get('content-length');
  const said = length !== null && /^\d{1,15}$/.test(length) ? Number(length) : undefined;
  return [status, headers, chunksOf(body, call, failed, said)];
}

/** A chunk as bytes; what is no chunk ends the answer's stream with an error. */
function bytesOf(chunk: unknown): Uint8Array {
  if (chunk instanceof Uint8Array) return chunk;
  if (typeof chunk === 'string') return new TextEncoder().encode(chunk);
  throw new TypeError('a chunk of the answer is neither bytes nor text');
}

/**
 * The chunks of an answer; `length`: what its header says, to which it is held, or its client would hear of half an answer
 * and nobody else. No generator: one that waits for a chunk could not be left before it comes.
 */
function chunksOf(
  body: Pick<ReadableStream, 'getReader'>,
  call: Call | undefined,
  failed: Failed,
  length?: number,
): AsyncIterableIterator<Uint8Array> {
  let given = 0;
  const { source } = body as { source?: ReadableStream };
  const reader = (source?.getReader ? source : body).getReader();
  return {
    async next() {
      try {
        const { done, value } = await reader.read();
        const chunk = done ? undefined : bytesOf(value);
        given += chunk?.length ?? 0;
        if (length !== undefined && (chunk ? given > length : given < length))
          throw new TypeError(
            `its content-length is ${length}, but ${given} bytes ${chunk ? 'have come, and not all' : 'came'}`,
          );
        return chunk ? { done: false, value: chunk } : { done: true, value: undefined };
      } catch (error) {
        await reader.cancel().catch(() => {});
        return failed(error);
      }
    },
    async return() {
      call?.abort(Object.assign(new Error('the client has gone'), { name: 'AbortError' }));
      await reader.cancel();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** Routes as Hono and its like list them, or as the module exports them. */
function routesOf(module: Record<string, unknown>, app: { routes?: unknown } | undefined): string[] {
  const list = Array.isArray(module.routes) ? module.routes : app?.routes;
  if (!Array.isArray(list)) return ['* /*'];
  const texts = list.slice(0, ROUTES).map((route: any) => {
    if (typeof route === 'string') return route.startsWith('/') ? `* ${route}` : route.replace(/^ALL /i, '* ');
    const method = String(route?.method ?? '*').toUpperCase();
    const path = String(route?.path ?? '/*');
    return `${method === 'ALL' ? '*' : method} ${path === '*' ? '/*' : path}`;
  });
  return [...new Set(texts.map((text) => text.slice(0, 200)))];
}
