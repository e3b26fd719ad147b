/** Act 3: a script that owns ten clones is killed; when its lease has run out nothing of them is left. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { WorkerDetails } from '@hauki/mesh';
import { type Act, holds, progress, table } from '../stage.ts';

const CLONES = 10;
const LEASE_MS = 5_000;
const PATIENCE_MS = 20_000;

const answers = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });

/** Whether a process lives; one that is dead and only not yet reaped (state Z) does not. */
function lives(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return existsSync('/proc') ? false : process.kill(pid, 0);
  }
}

function cgroupsOf(workers: string[]): string[] {
  const root = '/sys/fs/cgroup';
  const folders = existsSync(root) ? readdirSync(root).flatMap((c) => readdirIfAny(`${root}/${c}`)) : [];
  return folders.filter((name) => workers.some((worker) => name.includes(worker)));
}

function readdirIfAny(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

export const silence: Act = {
  title: `Silence: the owner of ${CLONES} clones is killed with -9`,
  async play({ mesh, local, driver }) {
    const owner = fork(
      new URL('../owner.ts', import.meta.url),
      [JSON.stringify({ driver, lease_ms: LEASE_MS, count: CLONES })],
      {
        env: { ...process.env, HAUKI_URL: local.url, HAUKI_TOKEN: local.token },
        execArgv: ['--disable-warning=ExperimentalWarning'],
      },
    );
    const [details] = (await once(owner, 'message')) as [WorkerDetails[]];
    const names = details.map((d) => d.worker);
    const clones = (await mesh.registry()).workers.filter((w) => names.includes(w.worker));
    const ports = clones.map((w) => w.direct.port);
    const pids = driver === 'lxc' ? clones.map((w) => w.pid) : [];
    holds('the clones live', clones.length === CLONES && (await Promise.all(ports.map(answers))).every(Boolean));
    console.log(`  ${CLONES} clones live; their owner is process ${owner.pid}; its lease is ${LEASE_MS / 1000} s`);
    owner.kill('SIGKILL');
    await once(owner, 'exit');
    const killed_at = performance.now();

    let left = clones;
    while (left.length > 0) {
      holds('the clones end when the lease has run out', performance.now() - killed_at < PATIENCE_MS);
      await new Promise((resolve) => setTimeout(resolve, 250));
      left = (await mesh.registry()).workers.filter((w) => names.includes(w.worker));
      const until = Math.max(...left.map((w) => w.lease_until));
      progress(
        left.length > 0
          ? `killed ${((performance.now() - killed_at) / 1000).toFixed(1)} s ago; ${left.length} clones, lease ends in ${Math.max(0, (until - Date.now()) / 1000).toFixed(1)} s`
          : `all gone ${((performance.now() - killed_at) / 1000).toFixed(1)} s after the kill`,
        left.length === 0,
      );
    }
    const found: [string, number][] = [
      ['workers in the registry', left.length],
      ['ports that still answer', (await Promise.all(ports.map(answers))).filter(Boolean).length],
      ['processes of their vaults', pids.filter(lives).length],
      ['cgroups of their vaults', cgroupsOf(names).length],
    ];
    table(['looked for', 'found'], found);
    for (const [what, count] of found) holds(`no ${what}`, count === 0);
  },
};
