/**
 * Where this machine has each controller of cgroups, and what its kernel can, as the kernel itself tells it. Apart from
 * `cgroups.ts`, which asks only for what is said here.
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { read } from '../files.ts';
import { ownerLives, ownName } from '../owner.ts';

export interface Hierarchy {
  /** Empty for the unified (v2) hierarchy. */
  controllers: string[];
  version: 1 | 2;
  /** Folders that a container's cgroups may be in. */
  bases: string[];
  /** Whether the kernel has a file, as far as it was looked for. */
  files: Map<string, boolean>;
  /** The folder of the cgroup that this process is in. */
  own?: string | undefined;
}

/** The kernel's own words about this machine's cgroups; tests give those of another. */
export interface Layout {
  /** `/proc/self/mountinfo` */
  mountinfo: string;
  /** `/proc/self/cgroup` */
  own: string;
  /** `/proc/1/cgroup` */
  init: string;
}

export function thisMachine(): Layout {
  const text = (path: string) => read(path) ?? '';
  return { mountinfo: text('/proc/self/mountinfo'), own: text('/proc/self/cgroup'), init: text('/proc/1/cgroup') };
}

export function readHierarchies(layout: Layout): Hierarchy[] {
  const mounts = layout.mountinfo.split('\n').flatMap((line) => {
    const [left = '', right = ''] = line.split(' - ');
    const [, , , , point] = left.split(' ');
    const [type, , options = ''] = right.split(' ');
    return point && (type === 'cgroup' || type === 'cgroup2') ? [{ point, type, options: options.split(',') }] : [];
  });
  const own = cgroupsOf(layout.own);
  const init = cgroupsOf(layout.init);
  return mounts.map(({ point, type, options }) => {
    const matches = ([id, names]: [string, string[]]) =>
      type === 'cgroup2' ? id === '0' : id !== '0' && names.some((name) => options.includes(name));
    const at = (all: Map<string, [string, string[], string]>) =>
      [...all.values()]
        .filter(([id, names]) => matches([id, names]))
        .map(([, , path]) => join(point, path).replace(/\/$/, ''));
    const beside = at(init).map((path) => path.replace(/\/init\.scope$/, ''));
    const bases = [...new Set([...beside, ...at(own), point])].filter((path) => existsSync(path));
    const controllers =
      type === 'cgroup2' ? (read(join(point, 'cgroup.controllers')) ?? '').trim().split(' ').filter(Boolean) : options;
    const version = type === 'cgroup2' ? 2 : 1;
    return { controllers, version, bases, files: new Map(), own: at(own).find((path) => existsSync(path)) };
  });
}

/** `/proc/<pid>/cgroup`: id, controllers, path. */
function cgroupsOf(text: string): Map<string, [string, string[], string]> {
  const lines = text.trim().split('\n');
  return new Map(
    lines.map((line) => {
      const [id = '', names = '', ...path] = line.split(':');
      return [id, [id, names.split(','), path.join(':')]];
    }),
  );
}

/** What not every kernel has: swap may be left out or switched off, and v2 tells the most memory only since 5.19. */
const SOME_HAVE = ['memory.memsw.limit_in_bytes', 'memory.swap.max', 'memory.peak'];

/** How the names of cgroups begin that are made to look. */
export const LOOK = 'hauki.look.';

/** Whether this kernel has the file. v2 has it in children only: where no child has the controller yet, one is made to look. */
export function isThere(hierarchy: Hierarchy, file: string): boolean {
  if (!SOME_HAVE.includes(file)) return true;
  const known = hierarchy.files.get(file);
  if (known !== undefined) return known;
  const { bases, version, files } = hierarchy;
  // What somebody left who was killed while looking.
  if (version === 2)
    for (const name of cgroupsIn(bases[0]!))
      if (name.startsWith(LOOK) && ownerLives(name) === false) removeTree(join(bases[0]!, name));
  const among = (folders: string[]) => folders.some((folder) => existsSync(join(folder, file)));
  let found = bases.some((base) => among([base, ...cgroupsIn(base).map((name) => join(base, name))]));
  if (!found && version === 2) {
    enableBelow(hierarchy);
    const trial = join(bases[0]!, `${LOOK}${ownName()}`);
    try {
      mkdirSync(trial);
      found = among([trial]);
    } catch {
      // Where none can be made, no vault's can be either, and its start says so.
    } finally {
      removeTree(trial);
    }
  }
  files.set(file, found);
  return found;
}

/** What vaults are limited by. */
const NEEDED = ['memory', 'pids', 'cpu'];

/** On v2 a controller is there for the cgroups below only where it is said so. Gives those for which it may not be said. */
export function enableBelow({ bases, controllers }: Hierarchy): string[] {
  if (!NEEDED.some((name) => controllers.includes(name))) return [];
  const file = join(bases[0]!, 'cgroup.subtree_control');
  const missing = () => {
    const on = (read(file) ?? '').split(/\s+/);
    return NEEDED.filter((name) => controllers.includes(name) && !on.includes(name));
  };
  const wanted = missing();
  if (wanted.length === 0) return [];
  try {
    writeFileSync(file, wanted.map((name) => `+${name}`).join(' '), { flag: 'r+' });
  } catch {
    // Not ours, or processes stand in this cgroup.
  }
  return missing();
}

export function removeTree(dir: string): boolean {
  try {
    rmdirSync(dir);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true;
  }
  // Busy: either a process is still dying, or something made cgroups below.
  for (const entry of cgroupsIn(dir)) removeTree(join(dir, entry));
  try {
    rmdirSync(dir);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

/** The names of the cgroups in a folder. */
export function cgroupsIn(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return [];
  }
}
