/**
 * A storm over one agent: it is killed with -9 at random moments, while it starts, probes, sweeps and makes vaults for a
 * stream of clones, and is started again each time. After every kill its processes must be gone before it comes back;
 * after its next start nothing else may be left: no container, cgroup, mount, loop device, id claim or socket.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startCore } from '@hauki/cli';
import { connect, type Mesh } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { type DriverName, descendants, lives, processes, traces, until } from './mesh.ts';

export interface OrphanStorm {
  kills: number;
  drivers: DriverName[];
  /** Scripts that clone, one worker after another each. */
  scripts: number;
  /** The longest time from an agent's start, or from its being ready, to its death. */
  life_ms: number;
  /** Numbers in [0, 1). */
  random(): number;
  note?(text: string): void;
}

export interface OrphanReport {
  kills: number;
  /** Kills of an agent that had not finished its start. */
  at_start: number;
  /** Processes that agents had below them when they were killed. */
  processes: number;
  clones: Record<string, { answered: number; failed: number }>;
  /** The longest that a process outlived its agent. */
  slowest_ms: number;
}

/** Every kill's processes are to be gone within this; on a quiet machine it takes a few milliseconds. */
const GONE_MS = 10_000;

/** The share of agents that are killed without waiting until they are ready. */
const AT_START = 0.25;

const SOURCE = 'export const add = (a, b) => a + b; export const spin = () => { for (;;) {} };';
const MEMORY_MIB: Record<DriverName, number> = { lxc: 64, process: 64, quickjs: 8 };

/** Loop devices and sockets, which `traces` does not look at. */
function otherTraces(node: string, folder: string): string[] {
  const loops = globSync('/sys/block/loop*/loop/backing_file').filter((file) => {
    try {
      return readFileSync(file, 'utf8').includes(folder);
    } catch {
      return false;
    }
  });
  const sockets = readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .filter((line) => line.includes(node) || line.includes(folder));
  return [...loops, ...sockets];
}

export async function orphanStorm({
  kills,
  drivers,
  scripts,
  life_ms,
  random,
  note = () => {},
}: OrphanStorm): Promise<OrphanReport> {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-orphans-'));
  const core = await startCore(folder);
  const mesh = await connect({ core: core.url, token: core.token });
  const report: OrphanReport = { kills: 0, at_start: 0, processes: 0, clones: {}, slowest_ms: 0 };
  for (const driver of drivers) report.clones[driver] = { answered: 0, failed: 0 };

  let running: ChildProcess | undefined;
  const launch = (): { child: ChildProcess; ready: Promise<string | undefined>; ended: Promise<unknown> } => {
    const data_dir = join(folder, 'node');
    const options = {
      core_url: core.url,
      data_dir,
      token_file: nodeTokenFile(folder),
      name: `storm${process.pid}`,
      drivers,
    };
    const child = fork(fileURLToPath(import.meta.resolve('@hauki/node/main')), [], {
      env: { ...process.env, HAUKI_NODE_OPTIONS: JSON.stringify(options) },
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    running = child;
    child.stderr!.pipe(createWriteStream(join(folder, 'log'), { flags: 'a' }));
    const ended = once(child, 'exit');
    const ready = new Promise<string | undefined>((resolve) => {
      child.once('message', (message: { node?: string }) => resolve(message.node));
      child.once('exit', () => resolve(undefined));
    });
    return { child, ready, ended };
  };

  let over = false;
  const streams = Array.from({ length: scripts }, (_, i) => stream(mesh, drivers, random, report, i, () => over));
  let node: string | undefined;
  const seen = new Set<number>();
  try {
    while (report.kills < kills) {
      const agent = launch();
      let started = false;
      void agent.ready.then((name) => {
        started = name !== undefined;
        node ??= name;
      });
      // Some die while they start; the others, once they make vaults.
      if (random() >= AT_START) await agent.ready;
      await sleep(random() * life_ms);
      const below = descendants(agent.child.pid!);
      for (const pid of below) seen.add(pid);
      agent.child.kill('SIGKILL');
      const died = performance.now();
      await agent.ended;
      // Children of the very last moment are found by what stands in their command lines.
      const left = () => [...below.filter(lives), ...(node ? vaultsOf(node) : [])];
      await until('no process of the killed agent is left', () => left().length === 0, GONE_MS).catch((error) => {
        throw new Error(`${error.message}: ${left().map(commandOf).join('; ')}`);
      });
      report.kills++;
      if (!started) report.at_start++;
      report.processes += below.length;
      report.slowest_ms = Math.max(report.slowest_ms, Math.round(performance.now() - died));
      if (report.kills % 25 === 0) note(`${report.kills} kills, ${JSON.stringify(report.clones)}`);
    }
    over = true;
    await Promise.all(streams);
    const last = launch();
    node = (await last.ready) ?? node;
    assert.ok(node, 'the last agent did not start');
    // It has swept when it is ready; what carries its name now is its own.
    const own = new Set([last.child.pid!, ...descendants(last.child.pid!)].map(commandOf));
    await until('the sweep left nothing', () => traces(node!).every((trace) => own.has(trace)), GONE_MS);
    last.child.kill('SIGTERM');
    await last.ended;
    await until('nothing carries the name of the node', () => traces(node!).length === 0, GONE_MS).catch(() => {});
    assert.deepEqual([...traces(node), ...otherTraces(node, folder)], []);
    assert.deepEqual(
      [...seen]
        .filter(lives)
        .map(commandOf)
        .filter((text) => text.includes(node!)),
      [],
    );
  } finally {
    over = true;
    running?.kill('SIGKILL');
    await mesh.close();
    await core.stop();
    rmSync(folder, { recursive: true, force: true });
  }
  return report;
}

/** Living processes of vaults: their command lines have the node's name. What clears up after an agent is none. */
const vaultsOf = (node: string) =>
  processes(`.${node}.`)
    .filter(({ command }) => !command.includes('hauki-reaper'))
    .map(({ pid }) => pid);

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

/** One script: clones, calls, leaves some workers spinning, lets others go, whatever becomes of the agent. */
async function stream(
  mesh: Mesh,
  drivers: DriverName[],
  random: () => number,
  report: OrphanReport,
  number: number,
  over: () => boolean,
): Promise<void> {
  while (!over()) {
    const driver = drivers[Math.floor(random() * drivers.length)]!;
    const count = report.clones[driver]!;
    try {
      const ghost = mesh.clone<{ add(a: number, b: number): number; spin(): never }>(
        { source: SOURCE },
        {
          ...{ driver, memory_mib: MEMORY_MIB[driver], timeout_ms: 3_000, lease_ms: 5_000 },
          // Some with a volume: a mounted image.
          ...(random() < 0.3 ? { grants: { volume: { name: `storm-${number}`, quota_mib: 8 } } } : {}),
        },
      );
      assert.equal(await ghost.add(2, 3), 5);
      count.answered++;
      if (random() < 0.3) void Promise.resolve(ghost.spin()).catch(() => {});
      await sleep(random() * 200);
      await mesh.destruct(ghost);
    } catch {
      count.failed++;
      await sleep(50);
    }
  }
}
