/**
 * MeshFS as a plugin, the first one for an empty kernel: text written to pointers, and read from them.
 *
 *   hauki evolve plugins/meshfs_controller.ts --alias /api/v2/meshfs/ \
 *     --read gem-pointer://wiki/ --write gem-pointer://wiki/
 *
 * It may do what it was granted: `--read` and `--write` name pointer prefixes and may be repeated; what lies elsewhere is
 * refused (403). With the alias it answers at `/api/v2/meshfs/…` too, where the design notes have it; without, below
 * `/api/plugins/meshfs_controller/` alone. Durability, versions and what a pointer may be are the kernel's own MeshFS.
 */
declare const hauki: {
  meshfs: {
    resolve(pointer: string): Promise<{ pointer: string; content: string }>;
    write(pointer: string, content: string, media_type?: string): Promise<object>;
  };
};

interface Failure {
  name: string;
  code: number;
  message: string;
  fields?: object;
  retryable?: boolean;
}

/** The HTTP status of what may go wrong; everything else is this module's fault, 500. */
const STATUS: Record<string, number> = {
  BadInput: 400,
  PointerMissing: 400,
  PointerInvalid: 400,
  GrantMissing: 403,
  NoSuchMethod: 404,
  PointerUnknown: 404,
  PayloadLost: 410,
  PointerDeleted: 410,
  TooLarge: 413,
  NotText: 415,
  Overloaded: 429,
  StorageFailed: 507,
};

/** An error in the form that all of Hauki's HTTP answers have. */
const failed = ({ name, code, message, fields = {}, retryable = false }: Failure): Response =>
  Response.json(
    { status: 'error', error: { code, message, data: { name, retryable, fields } } },
    { status: STATUS[name] ?? 500 },
  );

const missing = (): Response =>
  failed({
    name: 'PointerMissing',
    code: -32040,
    message: 'No pointer was given. A pointer looks like gem-pointer://wiki/project/page',
  });

const badInput = (what: string, why: string): Response =>
  failed({ name: 'BadInput', code: -32011, message: `${what}: ${why}`, fields: { what, why } });

async function write(request: Request): Promise<Response> {
  const body: unknown = await request.json().catch(() => undefined);
  if (typeof body !== 'object' || body === null) return badInput('the body', 'it must be JSON: {pointer, content}');
  const { pointer, content, media_type } = body as Record<string, unknown>;
  if (pointer === undefined || pointer === '') return missing();
  if (typeof pointer !== 'string') return badInput('pointer', 'it must be a text');
  if (typeof content !== 'string') return badInput('content', 'it must be a text');
  if (media_type !== undefined && typeof media_type !== 'string') return badInput('media_type', 'it must be a text');
  return Response.json({ status: 'success', ...(await hauki.meshfs.write(pointer, content, media_type)) });
}

async function resolve(request: Request): Promise<Response> {
  const pointer = new URL(request.url).searchParams.get('pointer');
  if (!pointer) return missing();
  return Response.json({ status: 'success', ...(await hauki.meshfs.resolve(pointer)) });
}

const HANDLERS: Record<string, (request: Request) => Promise<Response>> = {
  'POST /write': write,
  'GET /resolve': resolve,
};

/** Under the alias it is asked for by the whole path. */
const ALIAS = '/api/v2/meshfs';

export const routes = Object.keys(HANDLERS).flatMap((route) => [route, route.replace(' ', ` ${ALIAS}`)]);

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const path = pathname.startsWith(`${ALIAS}/`) ? pathname.slice(ALIAS.length) : pathname;
    const handler = HANDLERS[`${request.method} ${path}`];
    if (!handler) {
      const message = `${request.method} ${pathname} is none of ${routes.join(', ')}`;
      return failed({ name: 'NoSuchMethod', code: -32601, message, fields: { method: pathname } });
    }
    try {
      return await handler(request);
    } catch (error) {
      return failed(error as Failure);
    }
  },
};
