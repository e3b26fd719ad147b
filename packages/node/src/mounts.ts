/**
 * File systems in image files, as a node's volumes are kept: made, mounted, grown, let go of. Everything here acts on
 * the system through its own tools, each with a deadline; who may do what with which image is decided elsewhere.
 *
 * What always holds: an image that some loop device still has is not mounted again, since two mounts of one file system
 * would destroy it.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const MIB = 1024 * 1024;
const INODES = { per_mib: 64, least: 1024, most: 262_144 };
/** A small file system has no room for a journal of large blocks. */
const SMALL_MIB = 8;
const TOOL_MS = 60_000;
/** A vault that is being started, by whomever, has a copy of every mount for as long as that takes. */
const WAIT_MS = { poll: 10, most: 15_000, swept: 500 };
/** Nothing in it is a device, runs, or runs as somebody else. */
const OPTIONS = 'loop,nosuid,nodev,noexec,noatime';
/** What e2fsck answers when it has set something right. */
const repaired = (code: number) => code === 1;
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';
export const TOOLS = ['mkfs.ext4', 'e2fsck', 'resize2fs', 'losetup', 'mount', 'umount'];

export const hasTool = (name: string): boolean => PATH.split(':').some((folder) => existsSync(join(folder, name)));

async function tool(name: string, args: string[], fine: (code: number) => boolean = () => false): Promise<void> {
  try {
    await promisify(execFile)(name, args, { env: { PATH, LC_ALL: 'C' }, timeout: TOOL_MS, killSignal: 'SIGKILL' });
  } catch (thrown) {
    const { code, stderr, message } = thrown as { code?: number; stderr?: string; message: string };
    if (typeof code === 'number' && fine(code)) return;
    throw new Error(`${name}: ${stderr?.trim().split('\n').at(-1) || message}`);
  }
}

/** How a file system is laid out of which about `quota_mib` are left for files. */
function layoutOf(quota_mib: number): { args: string[]; bytes: number } {
  const inodes = Math.min(Math.max(quota_mib * INODES.per_mib, INODES.least), INODES.most);
  const [block, journal_mib] = quota_mib < SMALL_MIB ? [1024, 1] : [4096, 4];
  const own_mib = journal_mib + Math.ceil((inodes * 256) / MIB) + 1;
  const args = ['-b', String(block), '-J', `size=${journal_mib}`, '-m', '0', '-N', String(inodes)];
  return { args, bytes: (quota_mib + own_mib) * MIB };
}

/** Makes an image with an empty file system, whole or not at all, taking room on the disk only as it fills. */
export async function makeImage(image: string, quota_mib: number): Promise<void> {
  const temporary = `${image}.making`;
  await rm(temporary, { force: true });
  try {
    const file = await open(temporary, 'wx', 0o600);
    const { args, bytes } = layoutOf(quota_mib);
    await file.truncate(bytes).finally(() => file.close());
    await tool('mkfs.ext4', ['-q', '-F', ...args, '-E', 'nodiscard,root_owner=0:0', temporary]);
    const made = await open(temporary, 'r');
    await made.sync().finally(() => made.close());
    await rename(temporary, image);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Mounts an image at a folder, after replaying and checking what a crash left. */
export async function mountImage(image: string, at: string): Promise<void> {
  await check(image);
  await tool('mount', ['-t', 'ext4', '-o', OPTIONS, image, at]);
}

/** Gives an image that is not mounted more room. It is done to a copy: killed at any moment, it is as it was or as it shall be. */
export async function growImage(image: string, quota_mib: number): Promise<void> {
  await check(image);
  const copy = `${image}.making`;
  try {
    await tool('cp', ['--sparse=always', '--reflink=auto', '--', image, copy]);
    const file = await open(copy, 'r+');
    try {
      await file.truncate(layoutOf(quota_mib).bytes);
      await tool('e2fsck', ['-f', '-p', copy], repaired);
      await tool('resize2fs', [copy]);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(copy, image);
  } finally {
    await rm(copy, { force: true });
  }
}

/** That nobody has it, and that it is whole. */
async function check(image: string): Promise<void> {
  if (!(await freed(image))) throw new Error('an earlier mount of it has not ended yet');
  await tool('e2fsck', ['-p', image], repaired);
}

/** Mounts an empty image and unmounts it: whether that can be done here. It leaves nothing, or what a sweep removes. */
export async function tryMount(image: string, at: string): Promise<void> {
  await makeImage(image, 1);
  try {
    await tool('mount', ['-t', 'ext4', '-o', OPTIONS, image, at]);
    await tool('umount', [at]);
  } finally {
    await rm(image, { force: true });
  }
}

/** Unmounts; resolves when no loop device has the image. */
export async function unmountImage(image: string, at: string): Promise<void> {
  const until = performance.now() + WAIT_MS.most;
  for (;;) {
    try {
      await tool('umount', [at]);
      break;
    } catch (error) {
      if (!mountsBelow(at).includes(at)) break;
      if (performance.now() > until) throw error;
      await sleep(WAIT_MS.poll);
    }
  }
  if (!(await freed(image))) throw new Error('a loop device still has it');
}

/** Unmounts all below a folder and lets go of all loop devices of images below it: what a killed agent left. */
export async function sweepMounts(folder: string): Promise<number> {
  let swept = 0;
  for (const at of mountsBelow(folder).toReversed()) {
    await tool('umount', [at]).catch(() => tool('umount', ['-l', at]));
    swept++;
  }
  const left = (file: string) => file.startsWith(`${folder}/`);
  const until = performance.now() + WAIT_MS.swept;
  while (loopsOf(left).length > 0 && performance.now() < until) await sleep(WAIT_MS.poll);
  for (const device of loopsOf(left)) {
    await tool('losetup', ['-d', device]).catch(() => {});
    swept++;
  }
  return swept;
}

/** Whether no loop device has the image, after a while at most: the kernel lets go of them a moment later. */
async function freed(image: string): Promise<boolean> {
  const until = performance.now() + WAIT_MS.most;
  while (loopsOf((file) => file === image).length > 0) {
    if (performance.now() > until) return false;
    await sleep(WAIT_MS.poll);
  }
  return true;
}

/** Loop devices by the file behind them. */
function loopsOf(fits: (file: string) => boolean): string[] {
  return readdirSync('/sys/block')
    .filter((name) => name.startsWith('loop'))
    .filter((name) => {
      try {
        return fits(readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').replace(/\n$/, ''));
      } catch {
        return false;
      }
    })
    .map((name) => `/dev/${name}`);
}

/** Mount points at or below a folder, in the order in which they were mounted. */
function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
    .map((path) => path.replaceAll(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))))
    .filter((path) => path === folder || path.startsWith(`${folder}/`));
}
