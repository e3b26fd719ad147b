/** Health, keys, schemas, and the picture of the mesh. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { LIMITS, TICKET_BODY_SCHEMA, TICKET_SCHEMA } from '@hauki/protocol';
import type { Callers } from '../callers.ts';
import { NODE_LIMITS } from '../limits.ts';
import { loadOf } from '../matchmaker.ts';
import { workersOf } from '../node-told.ts';
import type { Registry } from '../registry.ts';
import type { Relay } from '../relay.ts';

export interface SystemPowers {
  registry: Registry;
  relay: Relay;
  callers: Callers;
  keys: object;
  core_id: string;
  started_at: number;
}

export const systemRoutes: FastifyPluginAsyncTypebox<SystemPowers> = async (app, powers) => {
  const { registry, relay, callers, keys, core_id, started_at } = powers;
  const open = { config: { open: true } };

  app.get(
    '/health',
    { ...open, schema: { tags: ['system'], summary: 'Whether the core works', security: [] } },
    () => ({
      status: 'ok',
      core: core_id,
      nodes: registry.nodes.size,
      workers: registry.workers.size,
      uptime_s: Math.round((Date.now() - started_at) / 1000),
    }),
  );

  app.get(
    '/.well-known/jwks.json',
    { ...open, schema: { tags: ['system'], summary: 'The keys that sign tickets (RFC 7517)', security: [] } },
    () => keys,
  );

  app.get(
    '/api/v2/schemas/ticket.json',
    { ...open, schema: { tags: ['system'], summary: 'JSON Schemas of the Capability Ticket', security: [] } },
    () => ({ delivered: TICKET_SCHEMA, signed_body: TICKET_BODY_SCHEMA }),
  );

  const registry_route = {
    config: { scope: 'read' as const },
    schema: { tags: ['swarm'], summary: 'Nodes and workers' },
  };
  app.get('/api/v2/service_registry', registry_route, async () => {
    // Leases and processes are the nodes' to know; a node that does not answer leaves its workers as last seen.
    await Promise.allSettled(
      registry.candidates().map(async (node) => {
        let asked = 0;
        const until = performance.now() + NODE_LIMITS.pages_ms;
        for (let after = ''; performance.now() < until; ) {
          const page = workersOf(await node.session.call('workers', [true, after], { timeout_ms: 1_000 }));
          // Also one whose birth the core never heard of: its answer was lost.
          for (const info of page) if (!registry.isDead(info)) registry.learn(info, node.info.node);
          asked += page.length;
          // One answer may not hold all of them. How many there are is the node's word too.
          if (page.length === 0 || asked >= Math.min(node.load.workers, LIMITS.vaults_per_node)) break;
          after = page.at(-1)!.worker;
        }
      }),
    );
    return {
      status: 'success',
      nodes: registry.candidates().map((node) => ({
        ...node.info,
        ...node.load,
        load: Number(loadOf(node).toFixed(3)),
        since: node.since,
      })),
      workers: [...registry.workers.values()],
      relay_bytes: relay.carried_bytes,
    };
  });

  app.get(
    '/api/v2/sessions',
    {
      config: { scope: 'read' as const },
      schema: {
        tags: ['swarm'],
        summary: 'Who calls whom: sessions with workers, as their nodes tell, and callers over HTTP',
      },
    },
    async () => {
      const asked = registry.candidates().map(async ({ rpc, info }) => {
        const found = await rpc.sessions();
        return found.map((session) => callers.known({ ...session, node: info.node }));
      });
      const told = await Promise.allSettled(asked);
      const calls = callers.atTheDoor().map((one) => ({ ...one, node: registry.workers.get(one.worker)?.node ?? '' }));
      const sessions = told.flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
      return { status: 'success', sessions: [...sessions, ...calls] };
    },
  );
};
