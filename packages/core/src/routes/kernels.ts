/** The kernels of the mesh, and evolving modules on them. */
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { MeshFs } from '@hauki/meshfs';
import {
  BadInput,
  type GrantRequest,
  isError,
  MODULE_NAME,
  normaliseGrants,
  PointerUnknown,
  type RolloutRequest,
  readTarget,
  WORKER_LANGUAGES,
} from '@hauki/protocol';
import { encode } from '@hauki/rpc';
import { leaving } from '@hauki/rpc/node';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Kernels } from '../kernels/kernels.ts';
import type { Rollouts } from '../kernels/rollouts.ts';
import { covers, demand, demandGrants, type Principal, reachesNode } from '../rights.ts';

interface KernelRoutesPowers {
  kernels: Kernels;
  rollouts: Rollouts;
  meshfs: Pick<MeshFs, 'resolve'>;
}

export const kernelRoutes: FastifyPluginAsyncTypebox<KernelRoutesPowers> = async (
  app,
  { kernels, rollouts, meshfs },
) => {
  // What a kernel told may be short on the wire and endless when written out: this writer has a bound.
  app.setReplySerializer(encode);
  app.get(
    '/api/v2/kernels',
    { config: { scope: ['read', 'evolve'] }, schema: { tags: ['kernels'], summary: 'Kernels, and what each holds' } },
    async () => ({ status: 'success', kernels: kernels.list() }),
  );

  /** A kernel's own answer, as its port would give it: a kernel in a sandbox has no other way to be asked. */
  const own = async (request: FastifyRequest, reply: FastifyReply) => {
    const { principal, method, raw, body } = request;
    const target = readTarget(raw.url ?? '');
    if (target.kind === 'refused') throw new BadInput({ what: 'the request target', why: target.why });
    // Over the link it is as none.
    if (body === null) throw new BadInput({ what: 'the body', why: 'null was given; expected is an object' });
    const [, named = '', path = ''] = /^\/api\/v2\/kernels\/([^/?]+)\/(.*)$/.exec(target.path + target.query) ?? [];
    const asked = [method as 'GET', `/api/${path}`, body, principal.name] as const;
    const [status, answer] = await kernels.own(named, reachOf(principal), ...asked);
    return reply.status(status).send(answer);
  };
  // The last show sources, and let serve what was granted more than who asks may grant.
  const OWN = [
    ['GET', 'status', ['read', 'evolve'], 'The modules of one kernel, and how each of them does'],
    ['GET', 'history', ['read', 'evolve'], 'The journal of one kernel, of all or of one module'],
    ['GET', 'modules/:module/versions', 'admin', 'All versions of a module on one kernel'],
    ['GET', 'modules/:module/versions/:version', 'admin', 'One version, with its source'],
    ['GET', 'modules/:module/diff', 'admin', 'What differs between two versions'],
    ['GET', 'modules/:module/log', 'admin', 'What the versions of a module say on one kernel'],
    ['POST', 'modules/:module/rollback', 'admin', 'Let an earlier version serve again on one kernel'],
    ['POST', 'modules/:module/weights', 'admin', 'Which versions serve how much on one kernel'],
    ['POST', 'modules/:module/pin', 'admin', 'Refuse changes of a module on one kernel, or take them again'],
  ] as const;
  for (const [method, path, scope, summary] of OWN) {
    const url = `/api/v2/kernels/:kernel/${path}`;
    app.route({ method, url, config: { scope }, schema: { tags: ['kernels'], summary }, handler: own });
  }

  for (const url of ['/api/evolve_plugin', '/api/evolve'])
    app.post(
      url,
      {
        config: { scope: 'evolve' },
        schema: {
          tags: ['kernels'],
          summary: 'Evolve a module on a kernel or on several, in waves; the first that fails takes all back',
          description:
            'Beside these, all that a kernel itself takes: `content`, or `edits` with `base_digest`; `grants`, `tests`, `driver`, `memory_mib`, `dry_run`, `weight`, `bounds`, `alias`, as its own /docs says. Left out, `kernel` is one of the mesh',
          body: Type.Object(
            {
              target_module: Type.String({ maxLength: 1024, description: 'as in data_scraper.ts' }),
              pointer: Type.Optional(Type.String({ maxLength: 1024, description: 'of the source, in MeshFS' })),
              kernel: Type.Optional(
                Type.String({ maxLength: 32, description: 'this one alone, as in Microkernel-77' }),
              ),
              replicas: Type.Optional(
                Type.Union([Type.Literal('all'), Type.Integer({ minimum: 1, maximum: 4096 })], {
                  description: 'how many kernels hold it then, as the core chooses them: not beside `kernel`',
                }),
              ),
              wave: Type.Optional(
                Type.Integer({ minimum: 1, maximum: 4096, description: 'kernels at once; left out: 1' }),
              ),
              watch_ms: Type.Optional(
                Type.Integer({ minimum: 0, maximum: 600_000, description: 'how long each wave must do well' }),
              ),
            },
            // What else there is the kernel checks.
            { additionalProperties: true },
          ),
        },
      },
      async (request) => {
        const { principal } = request;
        const asked = await withSource(withinRights(request.body as RolloutRequest, principal), principal, meshfs);
        const rolled = await rollouts.rollOut(asked, principal.name, reachOf(principal), leaving(request.raw));
        return { status: 'success', ...rolled };
      },
    );

  app.delete(
    '/api/v2/modules/:module',
    {
      config: { scope: 'evolve' },
      schema: {
        tags: ['kernels'],
        summary: 'Remove a module from the kernels that hold it, or from one: it finishes what it has begun',
        params: Type.Object({ module: Type.String({ pattern: MODULE_NAME.source }) }),
        querystring: Type.Object(
          { kernel: Type.Optional(Type.String({ maxLength: 32 })) },
          { additionalProperties: false },
        ),
      },
    },
    async ({ principal, params, query }) => {
      const removed = await rollouts.remove(params.module, query.kernel, principal.name, reachOf(principal));
      return { status: 'success', ...removed };
    },
  );
};

/** Which kernels a token reaches: as of nodes. */
const reachOf = (principal: Principal) => (kernel: string) =>
  reachesNode(principal.targets.nodes, kernel.toLowerCase());

/**
 * The request with the text that its pointer points to, so that all kernels get the same. What the mesh's MeshFS does not
 * have, a kernel's own may. Throws Forbidden where the sender may not read it.
 */
async function withSource(
  { pointer, ...request }: RolloutRequest,
  principal: Principal,
  meshfs: Pick<MeshFs, 'resolve'>,
): Promise<RolloutRequest> {
  if (pointer === undefined) return request;
  if (request.content !== undefined || request.edits !== undefined) return { pointer, ...request };
  demand(principal, { scope: 'meshfs.read', pointer });
  const found = await meshfs.resolve(pointer).catch((error) => {
    if (isError(error, PointerUnknown)) return undefined;
    throw error;
  });
  if (!found) return { pointer, ...request };
  const language = request.language ?? WORKER_LANGUAGES.find((one) => one === found.language);
  const named = /\.[a-z]+$/.test(request.target_module);
  return { ...request, content: found.content, ...(language && !named ? { language } : {}) };
}

/**
 * The request with no more grants than its sender has. Left out they would be those of the version before, which may be
 * more: only who may do everything takes them over. Throws Forbidden.
 */
function withinRights(request: RolloutRequest, principal: Principal): RolloutRequest {
  const grants: GrantRequest | undefined = request.grants ?? (covers(principal.scopes, 'admin') ? undefined : {});
  if (grants === undefined) return request;
  demandGrants(principal, normaliseGrants(grants));
  return { ...request, grants };
}
