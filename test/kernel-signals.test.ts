/** What a terminal does to a kernel: Ctrl-C reaches the whole group of its processes, its vaults' too. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connectKernel } from '@hauki/mesh';
import { kernelTokenFile } from '@hauki/mesh/data-dir';
import { DRIVERS, missing, processes, traces } from './support/mesh.ts';

const CLI = fileURLToPath(new URL('../apps/cli/bin/hauki.js', import.meta.url));

describe('a kernel in a terminal', () => {
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-signals-'));
  const id = `s${process.pid.toString(36)}`;
  const drivers = DRIVERS.filter((driver) => !missing(driver));
  const open: number[] = [];
  const start = async () => {
    const args = ['kernel', '--port', '0', '--id', id, '--data', data_dir, '--json'];
    // A group of its own, as a shell gives it.
    const child = spawn(process.execPath, [CLI, ...args], { stdio: ['ignore', 'pipe', 'ignore'], detached: true });
    open.push(child.pid!);
    const [text] = (await once(child.stdout!, 'data')) as [Buffer];
    const { url, data_dir: folder } = JSON.parse(String(text));
    const token = readFileSync(kernelTokenFile(folder), 'utf8').trim();
    const ask = async (module: string) => {
      const headers = { authorization: `Bearer ${token}` };
      return (await fetch(`${url}/api/plugins/${module}/`, { headers })).text();
    };
    const end = async (signal: NodeJS.Signals) => {
      const exited = once(child, 'exit');
      process.kill(-child.pid!, signal);
      await exited;
      open.pop();
    };
    return { door: connectKernel({ url, token }), ask, end };
  };
  after(() => {
    for (const pid of open) process.kill(-pid, 'SIGKILL');
    rmSync(data_dir, { recursive: true, force: true });
    assert.deepEqual(traces(`kernel-${id}.`), []);
    assert.deepEqual(processes(data_dir), []);
  });

  it('keeps the states of its modules, whatever holds them, when all its processes are told to end', async () => {
    let kernel = await start();
    for (const driver of drivers) {
      const content = 'export const state = { n: 0 }; export default { fetch: () => new Response(String(++state.n)) };';
      await kernel.door.evolve({ target_module: `counts_${driver}`, content, driver });
    }
    const all = (n: number) =>
      Promise.all(drivers.map(async (d) => assert.equal(await kernel.ask(`counts_${d}`), `${n}`)));
    await all(1);
    for (const [i, signal] of (['SIGINT', 'SIGTERM'] as const).entries()) {
      await kernel.end(signal);
      kernel = await start();
      await all(i + 2);
    }
    await kernel.end('SIGINT');
  });
});
