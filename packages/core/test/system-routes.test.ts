/** The picture of the mesh over HTTP, where a node tells what is not so. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LIMITS, NO_GRANTS } from '@hauki/protocol';
import Fastify from 'fastify';
import { type RegisteredNode, Registry } from '../src/registry.ts';
import { type SystemPowers, systemRoutes } from '../src/routes/system.ts';

describe('the list of nodes and workers', () => {
  it('is answered although a node has ever one more to tell of', { timeout: 20_000 }, async (t) => {
    const registry = new Registry();
    let pages = 0;
    const told = { epoch: 1, isolation: 'vm', grants: NO_GRANTS, pid: 1, born_at: 0, lease_until: 0 };
    const call = async () => {
      if (++pages > 2 * LIMITS.vaults_per_node) return [];
      return [{ ...told, worker: `w-${pages}`, direct: { host: 'x', port: 1, tls: false } }];
    };
    const node = {
      ...{ info: { node: 'liar', labels: {}, drivers: {}, memory_mib: 1, cores: 1 }, since: 0 },
      ...{ load: { workers: 2 ** 32, memory_used_mib: 0, cpu: 0 }, session: { call } },
    } as unknown as RegisteredNode;
    registry.register(node, []);
    const app = Fastify();
    t.after(() => app.close());
    await app.register(systemRoutes, { registry, relay: { carried_bytes: 0 } } as unknown as SystemPowers);
    const { nodes, workers } = (await app.inject('/api/v2/service_registry')).json();
    assert.deepEqual([nodes.length, workers.length, pages], [1, 0, LIMITS.vaults_per_node]);
  });
});
