/** What tests of microkernels share: a real one, a process of its own in a temporary folder, and that nothing is left. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { type StartedKernel, startKernel } from '@hauki/cli';
import { connectKernel, type KernelDoor } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { processes, type TestMesh, traces, until } from './mesh.ts';
import { keptPort } from './ports.ts';

export interface TestKernel {
  process: StartedKernel;
  door: KernelDoor;
  data_dir: string;
  /** A request to a module, or to any path that begins with /api or /docs. */
  get(path: string, init?: RequestInit): Promise<Response>;
  json(path: string, init?: RequestInit): Promise<any>;
  /** Kills it as a crash would, or asks it to end, and starts it again over the same folder and port. */
  restart(how?: { kill: boolean }): Promise<void>;
}

let count = 0;

/** Starts a kernel before the tests of a suite and stops it after them. `prepare`: what its folder has before that. */
export function useKernel({
  prepare,
  ...options
}: {
  drivers?: string[];
  open?: boolean;
  prepare?(data_dir: string): void;
} = {}): TestKernel {
  const used = {} as TestKernel;
  // Unique on this machine: it names the kernel's vaults.
  const id = `t${process.pid.toString(36)}${(++count).toString(36)}`;
  const start = async (port: number) => {
    used.process = await startKernel({ data_dir: used.data_dir, id, port, ...options });
    used.door = connectKernel({ url: used.process.url, token: used.process.token });
  };
  before(async () => {
    used.data_dir = mkdtempSync(join(tmpdir(), 'hauki-kernel-'));
    prepare?.(used.data_dir);
    await start(await keptPort());
  });
  used.get = (path, init = {}) => {
    const headers = { authorization: `Bearer ${used.process.token}`, ...init.headers };
    const whole = path.startsWith('/') ? path : `/api/plugins/${path}`;
    return fetch(used.process.url + whole, { ...init, headers });
  };
  used.json = async (path, init) => (await used.get(path, init)).json();
  used.restart = async ({ kill } = { kill: true }) => {
    const port = Number(new URL(used.process.url).port);
    await (kill ? used.process.kill() : used.process.stop());
    await start(port);
  };
  after(async () => {
    await used.process?.stop();
    rmSync(used.data_dir, { recursive: true, force: true });
    await until(`nothing of kernel-${id} is left`, () => traces(`kernel-${id}.`).length === 0).catch(() => {});
    assert.deepEqual(traces(`kernel-${id}.`), [], 'a vault of the kernel is left');
    assert.deepEqual(processes(used.data_dir), [], 'a process of the kernel is left');
  });
  return used;
}

/** Kernels of a mesh, for quickjs vaults: by number, in the order in which they were started first; ended with the suite. */
export interface JoinedKernels {
  all: StartedKernel[];
  /** As the kernel of that number is listed. */
  name(i: number): string;
  /** Starts one, or again one that has ended: then over the same folder. */
  start(i: number): Promise<StartedKernel>;
}

/** `tag` tells them from those of other suites. */
export function useJoinedKernels(used: TestMesh, tag: string): JoinedKernels {
  const folder = mkdtempSync(join(tmpdir(), `hauki-kernels-${tag}-`));
  const all: StartedKernel[] = [];
  const id = (i: number) => `${tag}${process.pid.toString(36)}-${i}`;
  after(async () => {
    await Promise.all(all.map((kernel) => kernel.stop()));
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    all,
    name: (i) => `Microkernel-${id(i)}`,
    async start(i) {
      all[i] = await startKernel({
        data_dir: join(folder, String(i)),
        id: id(i),
        port: 0,
        drivers: ['quickjs'],
        core_url: used.local.url,
        token_file: nodeTokenFile(used.local.data_dir),
      });
      return all[i];
    },
  };
}
