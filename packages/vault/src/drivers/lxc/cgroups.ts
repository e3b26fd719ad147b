/**
 * The cgroups of containers: where they are, whether the limits in them are what was asked for, and their removal.
 *
 * Works on v1, v2 and the hybrid of both: each controller is looked up where this machine has it. LXC puts a
 * container's cgroups beside those of PID 1 (or of the caller, where that is not allowed), under names that begin with
 * `lxc.payload.` and `lxc.monitor.`; both places are looked at. Nothing here waits.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { writeFile as writeFileLater } from 'node:fs/promises';
import { join } from 'node:path';
import { read } from '../files.ts';
import {
  cgroupsIn,
  enableBelow,
  type Hierarchy,
  isThere,
  type Layout,
  readHierarchies,
  removeTree,
  thisMachine,
} from './hierarchies.ts';
import { CPU_PERIOD_US, PIDS_MAX } from './limits.ts';
import { useOf } from './use.ts';

export interface Limit {
  controller: string;
  version: 1 | 2;
  file: string;
  value: string;
}

/** How names of folders begin: the container's own first, LXC's monitor of it, where that goes while it cleans up. */
const LXC_KINDS = ['lxc.payload.', 'lxc.monitor.', 'lxc.pivot.'];

export class Cgroups {
  readonly #hierarchies: Hierarchy[];
  readonly #kinds: string[];
  #hastening = false;

  constructor(kinds = LXC_KINDS, layout: Layout = thisMachine()) {
    this.#kinds = kinds;
    this.#hierarchies = readHierarchies(layout);
  }

  /**
   * The kernel moves a process to another cgroup only after a pause for all processors (5–15 ms), and for a moment
   * afterwards others without one. Writing this process to where it is already changes nothing, but has that pause go by
   * beside other work instead of in LXC's way. Returns at once.
   */
  hasten(): void {
    const path = this.#hierarchies[0]?.own;
    if (path === undefined || this.#hastening) return;
    this.#hastening = true;
    void writeFileLater(join(path, 'cgroup.procs'), '0', { flag: 'r+' })
      .catch(() => {})
      .finally(() => {
        this.#hastening = false;
      });
  }

  /** Makes the payload's cgroups, where nothing else does, with these limits; gives their folders. Throws if it may not. */
  create(container: string, limits: Limit[]): string[] {
    const folders = new Set<string>();
    for (const { controller, file, value } of limits) {
      const base = this.#carrying(controller)!.bases[0]!;
      const folder = join(base, `${this.#kinds[0]}${container}`);
      if (!folders.has(folder)) {
        mkdirSync(folder);
        folders.add(folder);
      }
      writeFileSync(join(folder, file), value, { flag: 'r+' });
    }
    // Nothing is limited there: on v1 it alone counts what was computed, also after the last process has ended.
    const counting = this.#carrying('cpuacct');
    const counter = counting?.version === 1 && join(counting.bases[0]!, `${this.#kinds[0]}${container}`);
    if (counter && !folders.has(counter)) mkdirSync(counter);
    if (counter) folders.add(counter);
    return [...folders];
  }

  /**
   * The limits to set and read back, in the words of the generation that carries each controller here. `cpu`: a share
   * of a core.
   */
  limits(memory_mib: number, cpu = 1, pids = PIDS_MAX): Limit[] {
    const quota_us = Math.round(cpu * CPU_PERIOD_US);
    const bytes = String(memory_mib * 1024 * 1024);
    const wanted: Record<string, { v1: [string, string][]; v2: [string, string][] }> = {
      memory: {
        v1: [
          ['memory.limit_in_bytes', bytes],
          ['memory.memsw.limit_in_bytes', bytes],
        ],
        v2: [
          ['memory.max', bytes],
          ['memory.swap.max', '0'],
        ],
      },
      pids: { v1: [['pids.max', String(pids)]], v2: [['pids.max', String(pids)]] },
      cpu: {
        v1: [
          ['cpu.cfs_period_us', String(CPU_PERIOD_US)],
          ['cpu.cfs_quota_us', String(quota_us)],
        ],
        v2: [['cpu.max', `${quota_us} ${CPU_PERIOD_US}`]],
      },
    };
    const withheld = this.#hierarchies.filter(({ version }) => version === 2).flatMap(enableBelow);
    return Object.entries(wanted).flatMap(([controller, files]) => {
      const hierarchy = this.#carrying(controller);
      if (!hierarchy)
        throw new Error(`this machine has no cgroup controller "${controller}", so nothing would be limited`);
      if (hierarchy.version === 2 && withheld.includes(controller))
        throw new Error(
          `"${controller}" cannot be limited below ${hierarchy.bases[0]}: this is not the agent's to do, or processes stand in that cgroup itself, as in a container; cgroup v2 wants them moved to one below it first`,
        );
      return files[`v${hierarchy.version}`]
        .filter(([file]) => isThere(hierarchy, file))
        .map(([file, value]) => ({ controller, version: hierarchy.version, file, value }));
    });
  }

  /** Changes limits of a running container; they are to be read back (`mismatches`). Throws where it may not. */
  write(container: string, limits: Limit[]): void {
    for (const { controller, file, value } of limits) {
      const dir = this.#payload(container, controller)[0];
      if (dir === undefined) throw new Error(`${container} has no cgroup of "${controller}"`);
      if (read(join(dir, file))?.trim() !== value) writeFileSync(join(dir, file), value, { flag: 'r+' });
    }
  }

  /** On v1 device access is a controller; on v2 LXC loads a program for the same rules. */
  get devicesVersion(): 1 | 2 | undefined {
    return this.#carrying('devices')?.version ?? (this.#hierarchies.some((h) => h.version === 2) ? 2 : undefined);
  }

  /** What differs from `limits` in the payload cgroups of `container`; nothing when all is as asked. */
  mismatches(container: string, limits: Limit[]): string[] {
    return limits.flatMap(({ controller, file, value }) => {
      const found = this.#payload(container, controller).map((dir) => read(join(dir, file))?.trim());
      const got = found.find((text) => text !== undefined);
      return got === value ? [] : [`${file} is ${got ?? 'not there'}, asked for ${value}`];
    });
  }

  /** The path of the payload's memory event counter: `oom_kill N`. */
  oomFile(container: string): string | undefined {
    const hierarchy = this.#carrying('memory');
    if (!hierarchy) return undefined;
    const file = hierarchy.version === 1 ? 'memory.oom_control' : 'memory.events';
    // Before the container exists the first base is the place where LXC will put it.
    const dir = this.#payload(container, 'memory')[0] ?? join(hierarchy.bases[0]!, `${this.#kinds[0]}${container}`);
    return join(dir, file);
  }

  /** What is to be copied before LXC removes the cgroups, for `keptIn`: the counter of memory's end, and what was used. */
  keeps(container: string): string[] {
    const of = (controller: string, v1: string, v2: string) => {
      const hierarchy = this.#carrying(controller);
      if (!hierarchy) return [];
      return [join(hierarchy.bases[0]!, `${this.#kinds[0]}${container}`, hierarchy.version === 1 ? v1 : v2)];
    };
    const oom = this.oomFile(container);
    const memory = this.#carrying('memory');
    const most = memory?.version === 2 && isThere(memory, 'memory.peak') ? 'memory.peak' : 'memory.current';
    return [
      ...(oom === undefined ? [] : [oom]),
      ...of('memory', 'memory.max_usage_in_bytes', most),
      ...(this.#carrying('cpuacct') ? of('cpuacct', 'cpuacct.usage', 'cpu.stat') : of('cpu', 'cpu.stat', 'cpu.stat')),
    ];
  }

  /** The most memory that the container has had, as far as the kernel tells. */
  mostMemory(container: string): number {
    const files = ['memory.max_usage_in_bytes', 'memory.peak'];
    const found = this.#payload(container, 'memory').flatMap((dir) =>
      files.map((file) => Number(read(join(dir, file)) ?? 0)),
    );
    return Math.max(0, ...found);
  }

  /** Processes of the payload (the vault itself), as this machine's pids; the first is its init. */
  payloadPids(container: string): number[] {
    return this.#payload(container, 'pids').flatMap(procs);
  }

  /** Every cgroup folder of `container`. */
  folders(container: string): string[] {
    return this.#bases().flatMap((base) =>
      this.#kinds.map((kind) => join(base, `${kind}${container}`)).filter((dir) => existsSync(dir)),
    );
  }

  /** The names of all containers that have cgroups here and begin with `prefix`. */
  containers(prefix: string): string[] {
    const found = new Set<string>();
    for (const base of this.#bases()) {
      for (const name of cgroupsIn(base)) {
        const kind = this.#kinds.find((begin) => name.startsWith(begin + prefix));
        if (kind !== undefined) found.add(name.slice(kind.length));
      }
    }
    return [...found];
  }

  /** Stops all that runs in the container, or lets it go on. False where this machine has no freezer. */
  freeze(container: string, frozen: boolean): boolean {
    let done = false;
    for (const { dir, file, words } of this.#freezers(container)) {
      try {
        writeFileSync(join(dir, file), words[frozen ? 0 : 1]!, { flag: 'r+' });
        done = true;
      } catch {
        // Gone already, or of another kind.
      }
    }
    return done;
  }

  /** Whether all that runs in the container stands. */
  isFrozen(container: string): boolean {
    return this.#freezers(container).some(({ dir, state }) => state.test(read(join(dir, state.file)) ?? ''));
  }

  /** CPU time of all that ran in the container, and its memory now, as far as it is there. */
  usage(container: string): { cpu_ms: number; memory_bytes: number } | undefined {
    const of = (controller: string, file: string) =>
      this.#payload(container, controller)
        .map((dir) => read(join(dir, file)))
        .find((text) => text !== undefined);
    const memory = of('memory', 'memory.usage_in_bytes') ?? of('memory', 'memory.current');
    return useOf(of('cpuacct', 'cpuacct.usage'), of('cpu', 'cpu.stat'), memory);
  }

  /** The payload's freezer: of its own on v1, in every cgroup on v2. */
  #freezers(container: string) {
    const v1 = this.#payload(container, 'freezer').map((dir) => ({
      dir,
      file: 'freezer.state',
      words: ['FROZEN', 'THAWED'],
      state: { file: 'freezer.state', test: (text: string) => text.trim() === 'FROZEN' },
    }));
    if (v1.length > 0) return v1;
    return this.#payload(container, 'memory').map((dir) => ({
      dir,
      file: 'cgroup.freeze',
      words: ['1', '0'],
      state: { file: 'cgroup.events', test: (text: string) => /^frozen 1$/m.test(text) },
    }));
  }

  /** Kills all that runs in the container's cgroups, its monitor too. */
  kill(container: string): void {
    for (const dir of this.folders(container)) {
      try {
        writeFileSync(join(dir, 'cgroup.kill'), '1', { flag: 'r+' });
      } catch {
        // v1 has no such file: the processes are killed one by one.
      }
      for (const pid of procs(dir)) sigkill(pid);
    }
    // On v1 what is frozen dies only when it is thawed: at once, without a step of its own.
    this.freeze(container, false);
  }

  /** Removes what can be removed now; true when nothing of the container is left. */
  remove(container: string): boolean {
    let gone = true;
    for (const dir of this.folders(container)) if (!removeTree(dir)) gone = false;
    return gone;
  }

  #carrying(controller: string): Hierarchy | undefined {
    return this.#hierarchies.find((h) => h.controllers.includes(controller));
  }

  #payload(container: string, controller: string): string[] {
    const bases = this.#carrying(controller)?.bases ?? [];
    return bases.map((base) => join(base, `${this.#kinds[0]}${container}`)).filter((dir) => existsSync(dir));
  }

  #bases(): string[] {
    return [...new Set(this.#hierarchies.flatMap((h) => h.bases))];
  }
}

function procs(dir: string): number[] {
  return (read(join(dir, 'cgroup.procs')) ?? '').split('\n').filter(Boolean).map(Number);
}

/** Ends a process that is somebody else's; one that has ended is let be. */
export function sigkill(pid: number): void {
  try {
    if (pid > 1 && pid !== process.pid) process.kill(pid, 'SIGKILL');
  } catch {
    // Dead already.
  }
}
