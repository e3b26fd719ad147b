/** What asks for a node or a kernel that may come (back) at any moment waits for it, within bounds. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type CoreForKernel, type CoreForNode, type Job, KERNEL_LINK } from '@hauki/protocol';
import { encode, makeCallerKey, remote, Session } from '@hauki/rpc';
import { dialUpgrade, streamTransport } from '@hauki/rpc/node';
import { pino } from 'pino';
import { Comebacks } from '../src/comebacks.ts';
import { createCore } from '../src/core.ts';

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('what waits for one that comes back', () => {
  const setUp = (waiting: number) => {
    const clock = { now: 0 };
    return { clock, comebacks: new Comebacks({ back_ms: 100, waiting }, () => clock.now) };
  };

  it('waits until the next one comes, as often as it asks, and not where none is expected', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { clock, comebacks } = setUp(8);
    assert.equal(await comebacks.wait(), false);
    comebacks.expect();
    for (let times = 0; times < 3; times++) {
      let waited = false;
      const waiting = comebacks.wait().then((may) => {
        waited = may;
      });
      await turn();
      assert.equal(waited, false);
      comebacks.came();
      await waiting;
      assert.equal(waited, true);
    }
    clock.now = 99;
    const last = comebacks.wait();
    clock.now = 100;
    t.mock.timers.tick(1);
    // It may look once more; then nobody is expected.
    assert.equal(await last, true);
    assert.equal(await comebacks.wait(), false);
  });

  it('is of a bounded number, in which whoever has waited makes room', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { comebacks } = setUp(2);
    comebacks.expect();
    for (let times = 0; times < 2; times++) {
      const two = [comebacks.wait(), comebacks.wait()];
      assert.equal(await comebacks.wait(), false);
      comebacks.came();
      assert.deepEqual(await Promise.all(two), [true, true]);
    }
  });
});

describe('a core that has just begun', () => {
  it('has requests for its kernels and nodes wait until these have found it again', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-comebacks-'));
    const core = await createCore({ data_dir, logger: pino({ level: 'silent' }) });
    try {
      const url = await core.listen('127.0.0.1', 0);
      const tokens = ['admin', 'node'].map((name) => readFileSync(join(data_dir, `${name}.token`), 'utf8').trim());
      const [admin, of_node] = tokens as [string, string];
      const authorization = `Bearer ${admin}`;
      const { thumbprint: audience } = await makeCallerKey();
      const asked = [
        fetch(`${url}/api/plugins/m/`, { headers: { authorization } }),
        fetch(`${url}/api/v2/swarm_spawn_ephemeral`, {
          method: 'POST',
          headers: { authorization, 'content-type': 'application/json' },
          body: JSON.stringify({ source: 'export const f = () => 1;', audience }),
        }),
      ];
      const link = async (path: string, dispatch: (method: string, params: any) => unknown) => {
        const transport = streamTransport(await dialUpgrade(url, path, of_node, 5_000));
        return new Session({ transport, dispatch, literal: encode });
      };
      const kernel = await link(KERNEL_LINK, () => [200, [], 'served']);
      const modules = [{ module: 'm', version: 1, digest: 'd', serving: true }];
      await remote<CoreForKernel>(kernel).register({ kernel: 'Microkernel-1', url: 'http://127.0.0.1:1' }, modules);
      const node = await link('/api/v2/node/link', (method, [job]: [Job]) =>
        method !== 'provision'
          ? undefined
          : {
              ...{ worker: job.worker, epoch: 1, driver: job.driver, isolation: 'vm' },
              direct: { host: '127.0.0.1', port: 9, tls: false },
              ticket: { jti: 'a ticket', role: 'owner', secret: 's' },
            },
      );
      const drivers = { quickjs: { available: true, isolation: 'a VM', level: 'vm' as const } };
      const info = { node: 'one', labels: {}, drivers, memory_mib: 1_024, cores: 1 };
      const load = { workers: 0, memory_used_mib: 0, cpu: 0 };
      await remote<CoreForNode>(node).register(info, load, [], []);
      const [module, clone] = await Promise.all(asked);
      assert.deepEqual([module!.status, await module!.text()], [200, 'served']);
      const { node: home } = (await clone!.json()) as { node: string };
      assert.equal(home, 'one');
      for (const session of [kernel, node]) session.close();
    } finally {
      await core.close();
      rmSync(data_dir, { recursive: true, force: true });
    }
  });
});
