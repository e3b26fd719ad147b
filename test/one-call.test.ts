/**
 * One call through the whole house, hop by hop, in reading order: script → mesh → core (matchmaker, ticket) → node
 * (forge) → vault (driver, guest) → session → and back. Read it beside ARCHITECTURE.md.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TicketBody } from '@hauki/mesh';
import { readTicketBody } from '@hauki/rpc';
import { DRIVERS, missing, traces, until, useMesh } from './support/mesh.ts';

for (const driver of DRIVERS) {
  describe(`one call, into a ${driver} vault`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver], labels: { zone: 'north' } }] });

    it('goes from a script to a vaulted worker and back', async () => {
      const { mesh, local } = used;

      // The script asks; what comes back at once is callable, and makes no call by being looked at.
      const ghost = mesh.clone<{ greet(name: string): string }>(
        { source: 'export const greet = (name: string): string => "hello, " + name;', language: 'typescript' },
        { driver, labels: { zone: 'north' }, grants: { fetch: ['example.org:443'] } },
      );
      const answer = ghost.greet('Ada');

      // The core placed it on the one node, whose forge made the vault; the registry knows both.
      const { worker, node, route, methods } = await mesh.details(ghost);
      assert.deepEqual([node, route, methods], [local.nodes[0]!.node, 'direct', ['greet']]);
      const known = (await mesh.registry()).workers.find((w) => w.worker === worker)!;
      assert.deepEqual(
        [known.driver, known.owner, known.grants.fetch.map(({ to }) => to)],
        [driver, 'admin', ['example.org:443']],
      );
      await until('the event is in the log', () =>
        new RegExp(`"worker":"${worker}".*SPAWN_DISTRIBUTED`).test(used.log()),
      );

      // A visitor's ticket, as the owner's, names worker, node, routes, lease and grants, and is signed by the core.
      const response = await fetch(`${local.url}/api/v2/ephemeral/${worker}/ticket`, {
        method: 'POST',
        headers: { authorization: `Bearer ${local.token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ audience: 'A'.repeat(43) }),
      });
      const { ticket } = (await response.json()) as { ticket: { signed: string } };
      const body = readTicketBody<TicketBody>(ticket.signed);
      assert.deepEqual(
        [body.role, body.worker, body.node, body.routes.direct.port],
        ['visitor', worker, node, known.direct.port],
      );

      // The first call rode with the request; from then on calls are carried straight to the worker.
      assert.equal(await answer, 'hello, Ada');
      assert.equal(await ghost.greet('Bob'), 'hello, Bob');
      assert.ok(mesh.stats().direct_bytes > 0);
      assert.equal((await mesh.registry()).relay_bytes, 0);

      // And it is gone when destruct returns.
      await mesh.destruct(ghost);
      assert.deepEqual(traces(worker), []);
    });
  });

  describe(`a ${driver} vault off loopback`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver], tls: true }] });

    it('is called inside TLS keyed by the ticket, on both routes', async () => {
      const ghost = used.mesh.clone<{ add(a: number, b: number): number }>({
        source: 'export const add = (a, b) => a + b',
      });
      assert.equal(await ghost.add(1, 2), 3);
      const { worker, route } = await used.mesh.details(ghost);
      assert.equal(route, 'direct');
      assert.equal(
        await used.mesh.visit<{ add(a: number, b: number): number }>(worker, { routing: 'relay_only' }).add(2, 3),
        5,
      );
      await used.mesh.destruct(ghost);
    });
  });
}

describe('a script that ends', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });

  it('lets go of what it owns by itself, and is not held up by idle workers', async () => {
    const { execFile } = await import('node:child_process');
    const { promisify } = await import('node:util');
    const script = `import { connect } from '@hauki/mesh';
      const mesh = await connect();
      const ghost = mesh.clone({ source: 'export const hi = () => "hi"' });
      console.log(await ghost.hi());`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
      cwd: new URL('..', import.meta.url),
      env: { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token },
      timeout: 20_000,
    });
    assert.equal(stdout, 'hi\n');
    assert.deepEqual((await used.mesh.registry()).workers, []);
  });
});
