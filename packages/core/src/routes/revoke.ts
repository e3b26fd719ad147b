/** Taking grants away from a worker while it lives. */
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { BadInput, type EventName, LIMITS, type Revocation, revokeGrants } from '@hauki/protocol';
import type { Lasting } from '../lasting/lasting.ts';
import type { Registry } from '../registry.ts';
import { demandEnd } from '../rights.ts';
import type { Swarm } from '../swarm.ts';

export interface RevokeRoutesPowers {
  registry: Registry;
  swarm: Pick<Swarm, 'narrow'>;
  lasting: Pick<Lasting, 'revoke'>;
  emit(name: EventName, fields: object): void;
}

const strict = { additionalProperties: false };
const All = Type.Literal(true);
const Some = Type.Optional(
  Type.Union([All, Type.Array(Type.String({ maxLength: 1024 }), { minItems: 1, maxItems: LIMITS.grants })]),
);
const What = Type.Object(
  {
    fetch: Some,
    connect: Some,
    meshfs: Type.Optional(Type.Object({ read: Some, write: Some }, strict)),
    secrets: Some,
    volume: Type.Optional(All),
    clone: Type.Optional(All),
  },
  { ...strict, minProperties: 1 },
);

export const revokeRoutes: FastifyPluginAsyncTypebox<RevokeRoutesPowers> = async (app, powers) => {
  const { registry, swarm, lasting, emit } = powers;
  app.post(
    '/api/v2/ephemeral/:worker/revoke',
    {
      config: { scope: ['destruct', 'spawn.pointer', 'provision'] },
      schema: {
        tags: ['swarm'],
        summary: 'Take grants from a worker and its clones, from its next effect on; true: all of a kind',
        params: Type.Object({ worker: Type.String({ pattern: '^[a-z0-9-]{1,64}$' }) }),
        body: What,
      },
    },
    async (request) => {
      const { worker } = request.params;
      const known = registry.known(worker);
      const { owner } = known;
      demandEnd(request.principal, known);
      const what = request.body as Revocation;
      const driver = registry.workers.get(worker)?.driver;
      if (what.volume && driver !== undefined && driver !== 'quickjs')
        throw new BadInput({
          what: 'revoke volume',
          why: `a ${driver} vault has it mounted for as long as it lives: destruct the worker`,
        });
      const grants =
        (await lasting.revoke(worker, what)) ??
        (await swarm.narrow(worker, revokeGrants(registry.find(worker).grants, what)));
      emit('GRANTS_REVOKED', { worker, owner, by: request.principal.name, kinds: Object.keys(what) });
      return { status: 'success', worker, grants };
    },
  );
};
