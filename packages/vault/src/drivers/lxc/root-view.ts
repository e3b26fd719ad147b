/**
 * A staged root as a file system of its own, so that a vault's list of its mounts tells no path of the host: of a
 * folder that is bound, the kernel tells where it lies. An overlay that has nothing above it, given by relative names,
 * tells those alone. It is mounted once for each root, belongs to no vault and no agent, and goes with the reboot, like
 * the folder that it is mounted in.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { RUN_DIR } from './limits.ts';

/** An overlay without an upper folder wants two below: this one is empty. */
const EMPTY = 'none';
const MOUNT_TIMEOUT_MS = 5_000;

/**
 * Where the root is to be taken from; `over`: another one, staged beside it, whose files are seen above. Rejects where no
 * overlay can be mounted.
 */
export async function viewOf(rootfs: string, over?: string): Promise<string> {
  const home = dirname(rootfs);
  const layers = over === undefined ? [rootfs] : [over, rootfs];
  const view = join(RUN_DIR, 'roots', layers.map((layer) => basename(dirname(layer))).join('+'));
  if (existsSync(join(view, 'proc'))) return view;
  mkdirSync(view, { recursive: true, mode: 0o755 });
  mkdirSync(join(home, EMPTY), { recursive: true, mode: 0o755 });
  // Of two agents that do this at once both succeed, one above the other, and both see the same.
  const below = [...layers, join(home, EMPTY)].map((layer) => relative(home, layer));
  const options = ['-t', 'overlay', 'root', '-o', `ro,lowerdir=${below.join(':')}`, view];
  await promisify(execFile)('/bin/mount', options, { cwd: home, timeout: MOUNT_TIMEOUT_MS });
  return view;
}
