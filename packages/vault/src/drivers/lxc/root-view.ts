/**
 * A staged root as a file system of its own, so that a vault's list of its mounts tells no path of the host: of a
 * folder that is bound, the kernel tells where it lies. An overlay that has nothing above it, given by relative names,
 * tells those alone.
 *
 * What always holds: a view belongs to one process, which its name tells (`owner.ts`). That process lets go of it, or
 * anybody once it is dead: its reaper, or the next agent. None is shared, so nobody has to ask whether another still needs
 * it; vaults that were started have copies of the mount. What was done half is done again by whoever comes next.
 */
import { execFile } from 'node:child_process';
import { mkdirSync, rmdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { list } from '../files.ts';
import { ownerLives, ownName } from '../owner.ts';
import { RUN_DIR } from './limits.ts';

/** Views of earlier versions are in `roots`, shared, and go with the reboot. */
export const VIEWS_DIR = join(RUN_DIR, 'views');
/** An overlay without an upper folder wants two below: this one is empty. */
const EMPTY = 'none';
const MOUNT_TIMEOUT_MS = 5_000;
/** There is one mount at most to take away, and it may come at the last moment. */
const TRIES = 5;

export interface View {
  /** Where the root is to be taken from. */
  path: string;
  /** Takes it away. Resolves when neither mount nor folder is left. */
  close(): Promise<void>;
}

/**
 * Makes a view of a root; `over`: another one, staged beside it, whose files are seen above. Rejects where no overlay can
 * be mounted, and leaves nothing then.
 */
export async function viewOf(rootfs: string, over?: string, dir = VIEWS_DIR): Promise<View> {
  const home = dirname(rootfs);
  const layers = over === undefined ? [rootfs] : [over, rootfs];
  const below = [...layers, join(home, EMPTY)].map((layer) => relative(home, layer));
  const path = join(dir, ownName());
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  mkdirSync(join(home, EMPTY), { recursive: true, mode: 0o755 });
  mkdirSync(path, { mode: 0o755 });
  const options = ['-t', 'overlay', 'root', '-o', `ro,lowerdir=${below.join(':')}`, path];
  try {
    await promisify(execFile)('/bin/mount', options, { cwd: home, timeout: MOUNT_TIMEOUT_MS });
  } catch (error) {
    await letGo(path);
    throw error;
  }
  return { path, close: () => letGo(path) };
}

/** Takes away the views of dead processes, and tells how many. Rejects when one could not be taken away. */
export async function sweepViews(dir = VIEWS_DIR): Promise<number> {
  const dead = list(dir).filter((name) => ownerLives(name) === false);
  for (const name of dead) await letGo(join(dir, name));
  return dead.length;
}

/** The folder tells by itself whether something is mounted at it: while there is, it cannot be removed. */
async function letGo(path: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      rmdirSync(path);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return;
      if (code !== 'EBUSY' || tries > TRIES) throw error;
    }
    // Lazily: a vault that is dying may hold it for a moment more. Somebody else may have been faster.
    await promisify(execFile)('/bin/umount', ['-l', path], { timeout: MOUNT_TIMEOUT_MS }).catch(() => {});
  }
}
