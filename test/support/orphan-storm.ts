/**
 * A storm over agents: each is killed with -9 at random moments of its own, while it starts, probes, sweeps, fills its pool
 * and makes vaults for a stream of clones, and is started again each time. After every kill its processes must be gone
 * before it comes back. Some come back at once; before others do, what outlives an agent must have cleared up after it by
 * itself. In the end nothing may be left: no container, cgroup, mount, loop device, id claim, file or socket.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startCore } from '@hauki/cli';
import { connect, type Mesh } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { ownerOf } from '../../packages/vault/src/drivers/owner.ts';
import { type DriverName, descendants, processes, traces } from './mesh.ts';

export interface OrphanStorm {
  kills: number;
  /** Agents that live, and die, side by side. */
  agents: number;
  /** No kill is begun after this; for ever when left out. */
  for_ms?: number;
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
  /** Kills after which nobody started until all was cleared up. */
  cleared: number;
  /** The longest that a process outlived its agent. */
  slowest_ms: number;
}

/** Every kill's processes are to be gone within this; on a quiet machine it takes a few milliseconds. */
const GONE_MS = 30_000;
const LOOK_MS = 100;
/** A start that takes longer has failed. */
const READY_MS = 120_000;

/** The share of agents that are killed without waiting until they are ready. */
const AT_START = 0.25;
/** The share of kills after which nobody starts until what is left has been cleared up. */
const CLEARED = 0.2;

const SOURCE = 'export const add = (a, b) => a + b; export const spin = () => { for (;;) {} };';
const MEMORY_MIB: Record<DriverName, number> = { lxc: 64, process: 64, quickjs: 8 };

/** Loop devices and sockets, which `traces` does not look at. */
export function otherTraces(node: string, folder: string): string[] {
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

/** Where everything is that bears its owner's pid and start time. */
const OWNED = ['/run/hauki/idmap', '/run/hauki/views', '/run/hauki/volumes/mounted', '/var/lib/hauki/runtime'];

/** What bears the name of a dead agent. */
export const ownedBy = (owner: string): string[] =>
  OWNED.filter((dir) => existsSync(dir)).flatMap((dir) =>
    readdirSync(dir)
      .filter((name) => `.${name.replace('-', '.')}`.includes(`.${owner}.`))
      .map((name) => `${dir}/${name}`),
  );

interface Storm extends OrphanStorm {
  folder: string;
  core: { url: string };
  report: OrphanReport;
  over(): boolean;
}

/** One agent of many lives: its node's name stays, its process does not. */
class Victim {
  readonly #storm: Storm;
  readonly #number: number;
  #node: string | undefined;
  #child: ChildProcess | undefined;
  /** All processes that were ever below it: pid and start time. */
  readonly #seen = new Set<string>();
  /** What its processes were. */
  readonly #owners: string[] = [];

  constructor(storm: Storm, number: number) {
    this.#storm = storm;
    this.#number = number;
  }

  #launch() {
    const { folder, core, drivers } = this.#storm;
    const options = {
      core_url: core.url,
      data_dir: join(folder, `node-${this.#number}`),
      token_file: nodeTokenFile(folder),
      name: `storm${process.pid}x${this.#number}`,
      drivers,
    };
    const child = fork(fileURLToPath(import.meta.resolve('@hauki/node/main')), [], {
      // Most of a start is reading the sources; who ends in order leaves them compiled for the others.
      env: {
        ...process.env,
        HAUKI_NODE_OPTIONS: JSON.stringify(options),
        NODE_COMPILE_CACHE: join(folder, 'compiled'),
      },
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#child = child;
    child.stderr!.pipe(createWriteStream(join(folder, `log-${this.#number}`), { flags: 'a' }));
    const owner = ownerOf(child.pid!);
    this.#owners.push(owner);
    const ended = once(child, 'exit');
    const ready = new Promise<boolean>((resolve) => {
      child.once('message', (message: { node?: string }) => {
        this.#node = message.node ?? this.#node;
        resolve(true);
      });
      child.once('exit', () => resolve(false));
    });
    return { child, pid: child.pid!, owner, ready, ended };
  }

  /** A first start that is waited for, and ended in order. */
  async begin(): Promise<void> {
    const first = this.#launch();
    await within(READY_MS, first.ready, `agent ${this.#number} is ready for the first time`);
    first.child.kill('SIGTERM');
    await within(READY_MS, first.ended, 'the first agent ends');
  }

  async dieAgainAndAgain(): Promise<void> {
    const { report, random, life_ms, over } = this.#storm;
    while (!over()) {
      const { pid, child, owner, ready, ended } = this.#launch();
      let started = false;
      void ready.then((well) => {
        started = well;
      });
      // Some die while they start; the others, once they make vaults.
      if (random() >= AT_START) {
        await within(READY_MS, ready, `agent ${this.#number} is ready`);
        assert.ok(started, `agent ${this.#number} ended by itself: ${this.log()}`);
      }
      await sleep(random() * life_ms);
      const below = descendants(pid).map(ownerOf);
      for (const one of below) this.#seen.add(one);
      child.kill('SIGKILL');
      const died = performance.now();
      await ended;
      // Children of the very last moment are found by what stands in their command lines.
      const left = () => [...below.filter(stillThere).map(pidOf), ...(this.#node ? vaultsOf(this.#node) : [])];
      await settled('no process of the killed agent is left', () => left().map(commandOf));
      report.slowest_ms = Math.max(report.slowest_ms, Math.round(performance.now() - died));
      if (random() < CLEARED) {
        await settled('nothing of the killed agent is left, with nobody starting', () => this.#uncleared(owner));
        report.cleared++;
      }
      if (!started) report.at_start++;
      report.processes += below.length;
      report.kills++;
      if (report.kills % 25 === 0) this.#storm.note?.(`${report.kills} kills, ${JSON.stringify(report.clones)}`);
    }
  }

  /** What its reapers should have cleared, and they themselves: all that there is but for files in its own folder. */
  #uncleared(owner: string): string[] {
    return [...ownedBy(owner), ...processes('hauki-reaper', owner).map(({ command }) => command), ...this.#named()];
  }

  /** What bears the node's name, or its folder's. */
  #named(): string[] {
    const folder = join(this.#storm.folder, `node-${this.#number}`);
    return this.#node ? [...new Set([...traces(this.#node), ...otherTraces(this.#node, folder)])] : [];
  }

  /** Starts once more, and ends in order: then nothing may be left of all its lives. */
  async end(): Promise<void> {
    const last = this.#launch();
    await within(READY_MS, last.ready, `agent ${this.#number} is ready for the last time`);
    assert.ok(this.#node, `the last agent did not start: ${this.log()}`);
    last.child.kill('SIGTERM');
    await within(READY_MS, last.ended, 'the last agent ends');
    await settled('nothing is left', () => [
      ...this.#named(),
      ...this.#owners.flatMap(ownedBy),
      ...[...this.#seen].filter(stillThere).map((one) => commandOf(pidOf(one))),
    ]);
  }

  /** Its last lines. */
  log(): string {
    return readFileSync(join(this.#storm.folder, `log-${this.#number}`), 'utf8').slice(-2_000);
  }

  kill(): void {
    this.#child?.kill('SIGKILL');
  }
}

export async function orphanStorm(options: OrphanStorm): Promise<OrphanReport> {
  const { kills, agents, drivers, scripts, random, for_ms = Number.POSITIVE_INFINITY } = options;
  const folder = mkdtempSync(join(tmpdir(), 'hauki-orphans-'));
  const core = await startCore(folder);
  const mesh = await connect({ core: core.url, token: core.token });
  const report: OrphanReport = { kills: 0, at_start: 0, processes: 0, clones: {}, cleared: 0, slowest_ms: 0 };
  for (const driver of drivers) report.clones[driver] = { answered: 0, failed: 0 };
  const began = performance.now();
  let stop = false;
  // Those that are under way are counted too: up to one more for each agent.
  const over = () => stop || report.kills >= kills || performance.now() - began > for_ms;
  const storm = { ...options, folder, core, report, over };
  const victims = Array.from({ length: agents }, (_, i) => new Victim(storm, i));
  const streams = Array.from({ length: scripts }, (_, i) => stream(mesh, drivers, random, report, i, () => stop));
  try {
    await victims[0]!.begin();
    await Promise.all(victims.map((victim) => victim.dieAgainAndAgain()));
    stop = true;
    await Promise.all(streams);
    for (const victim of victims) await victim.end();
  } finally {
    stop = true;
    for (const victim of victims) victim.kill();
    await mesh.close();
    await core.stop();
    rmSync(folder, { recursive: true, force: true });
  }
  return report;
}

/** Waits until there is nothing to tell; fails with what there was. */
export async function settled(what: string, left: () => string[]): Promise<void> {
  const until = performance.now() + GONE_MS;
  for (let found = left(); found.length > 0; found = left()) {
    if (performance.now() > until) throw new Error(`not within ${GONE_MS} ms: ${what}. Left:\n  ${found.join('\n  ')}`);
    // Looking takes the processor from those that are looked for.
    await sleep(LOOK_MS);
  }
}

async function within<T>(timeout_ms: number, work: Promise<T>, what: string): Promise<T> {
  const timeout = new AbortController();
  const late = sleep(timeout_ms, undefined, { signal: timeout.signal }).then(() =>
    assert.fail(`not within ${timeout_ms} ms: ${what}`),
  );
  late.catch(() => {});
  return Promise.race([work, late]).finally(() => timeout.abort());
}

export const pidOf = (owner: string): number => Number(owner.split('.')[0]);
/** Whether that very process lives, and no later one of its pid. */
export const stillThere = (owner: string): boolean => ownerOf(pidOf(owner)) === owner && !owner.endsWith('.0');

/** Living processes of vaults: their command lines have the node's name. What clears up after an agent is none. */
const vaultsOf = (node: string) =>
  processes(`.${node}.`)
    .filter(({ command }) => !command.includes('hauki-reaper'))
    .map(({ pid }) => pid);

export function commandOf(pid: number): string {
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
          ...{ driver, memory_mib: MEMORY_MIB[driver], timeout_ms: 5_000, lease_ms: 5_000 },
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
      await sleep(random() * 300);
    }
  }
}
