/**
 * What end-to-end tests share: a real mesh of processes in a temporary folder, and the proof that nothing is left of it.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { type LocalMesh, type LocalMeshOptions, startCore, startMesh } from '@hauki/cli';
import { connect, type Mesh } from '@hauki/mesh';
import { keptPort } from './ports.ts';

export type DriverName = 'lxc' | 'quickjs' | 'process';
export const DRIVERS: DriverName[] = ['quickjs', 'lxc', 'process'];

/** Why tests with this driver cannot run here, or false. In CI there is no such excuse. */
export function missing(driver: DriverName): string | false {
  if (driver === 'quickjs' || process.env.CI === 'true') return false;
  // Without it the driver runs too, but isolates nothing.
  if (driver === 'process') return existsSync('/usr/bin/bwrap') ? false : 'bubblewrap is not installed';
  if (process.getuid?.() !== 0) return 'lxc vaults need root';
  return existsSync('/usr/bin/lxc-start') ? false : 'lxc is not installed';
}

/** Waits until `check` holds; fails with `what` after `timeout_ms`. */
export async function until(what: string, check: () => boolean | Promise<boolean>, timeout_ms = 20_000): Promise<void> {
  const deadline = Date.now() + timeout_ms;
  while (!(await check())) {
    if (Date.now() > deadline) assert.fail(`not within ${timeout_ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Whether a process lives; a zombie does not, once its last thread is gone: until then it holds its descriptors. */
export function lives(pid: number): boolean {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return !/^State:\s+Z/m.test(status) || !/^Threads:\s+[01]$/m.test(status);
  } catch {
    return false;
  }
}

/** This process and those that it stems from: no test started them, whatever texts stand in their command lines. */
function lineage(): Set<number> {
  const found = new Set([process.pid]);
  for (let pid = process.ppid; pid > 0 && !found.has(pid); ) {
    found.add(pid);
    pid = Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);
  }
  return found;
}

/** Living processes whose command line has all of the texts, but for those that this one stems from. */
export function processes(...texts: string[]): { pid: number; command: string }[] {
  const own = lineage();
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && !own.has(Number(name)))
    .map((name) => {
      try {
        return { pid: Number(name), command: readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ') };
      } catch {
        return { pid: 0, command: '' };
      }
    })
    .filter(({ pid, command }) => pid > 0 && texts.every((text) => command.includes(text)) && lives(pid));
}

/** Descendants of a process, itself left out. */
export function descendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    } catch {
      // Gone meanwhile.
    }
  }
  const found: number[] = [];
  const add = (of: number) => {
    for (const [child, parent] of parents)
      if (parent === of) {
        found.push(child);
        add(child);
      }
  };
  add(pid);
  return found.filter(lives);
}

/** Everything on this machine that carries the text in its name: cgroups, mounts, loop devices, container and id claims. */
export function traces(text: string): string[] {
  const found: string[] = [];
  const look = (folder: string, depth: number) => {
    let names: string[];
    try {
      names = readdirSync(folder);
    } catch {
      return;
    }
    for (const name of names) {
      if (name.includes(text)) found.push(`${folder}/${name}`);
      if (depth > 0 && !name.includes('.')) look(`${folder}/${name}`, depth - 1);
    }
  };
  look('/sys/fs/cgroup', 3);
  look('/run/hauki', 3);
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n'))
    if (line.includes(text)) found.push(line);
  const devices = existsSync('/sys/block') ? readdirSync('/sys/block') : [];
  for (const name of devices.filter((device) => device.startsWith('loop'))) {
    const file = `/sys/block/${name}/loop/backing_file`;
    // One that another test has just let go of.
    try {
      if (existsSync(file) && readFileSync(file, 'utf8').includes(text)) found.push(`/dev/${name}`);
    } catch {}
  }
  for (const { command } of processes(text)) found.push(command);
  return found;
}

export interface TestMesh {
  local: LocalMesh;
  mesh: Mesh;
  /** Text of the log of all its processes so far. */
  log(): string;
}

/** Starts a mesh before the tests of a suite, stops it after them, and asserts that nothing of it is left. */
export function useMesh(
  // `below`: the data folder lies so in one that nobody else may enter.
  { below = '', ...options }: Omit<Partial<LocalMeshOptions>, 'data_dir' | 'log'> & { below?: string } = {},
): TestMesh {
  const used = {} as TestMesh;
  let folder: string;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-test-'));
    const file = join(folder, 'log');
    used.local = await startMesh({ port: await keptPort(), ...options, data_dir: join(folder, below), log: { file } });
    used.mesh = await connect({ core: used.local.url, token: used.local.token });
    used.log = () => (existsSync(file) ? readFileSync(file, 'utf8') : '');
  });
  after(async () => {
    await used.mesh?.close();
    await used.local?.stop();
    const names = used.local?.nodes.map((node) => node.node) ?? [];
    assert.deepEqual(traces(folder), [], 'something of the mesh is left');
    rmSync(folder, { recursive: true, force: true });
    for (const name of names) {
      await until(`nothing of node ${name} is left`, () => traces(name).length === 0).catch(() => {});
      assert.deepEqual(traces(name), [], `something of node ${name} is left`);
    }
    assert.deepEqual(
      processes(folder).map((p) => p.command),
      [],
      'a process of the mesh is left',
    );
  });
  return used;
}

/** Kills a core as a crash would, where it still runs, and starts it again over the same folder, at the same port. */
export async function restartCore(local: LocalMesh, options: { node_grace_ms?: number } = {}): Promise<void> {
  await local.core.kill();
  local.core = await startCore(local.data_dir, { port: Number(new URL(local.url).port), ...options });
}

/** A worker for most tests. */
export const CALCULATOR = `
  export const add = (a, b) => a + b;
  export const fail = (text) => { throw new RangeError(text); };
  export const never = () => new Promise(() => {});
  export const spin = () => { for (;;) {} };
`;

export interface Calculator {
  add(a: number, b: number): number;
  fail(text: string): never;
  never(): never;
  spin(): never;
}
