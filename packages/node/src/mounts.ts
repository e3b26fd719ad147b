/**
 * File systems in image files, as a node's volumes are kept: made, mounted, grown, let go of. Everything here acts on
 * the system through its own tools, each with a deadline; who may do what with which image is decided elsewhere. A tool
 * dies with whoever runs it: one that went on would write to an image beside those of the next agent.
 *
 * What always holds: an image has one loop device at most, since two drivers of one file system would destroy it. Whatever
 * makes a mount namespace of its own, as every vault does at its start, has a copy of each mount for a while or for good:
 * an image whose device such a copy still holds is mounted again from that very device, which is the same file system.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { boundTo } from '@hauki/vault';
import { place } from './volume-note.ts';

const MIB = 1024 * 1024;
const INODES = { per_mib: 64, least: 1024, most: 262_144, bytes: 256 };
/** A small file system has no room for a journal of large blocks. */
const SMALL_MIB = 8;
const TOOL_MS = 60_000;
const WAIT_MS = { poll: 10, most: 15_000, swept: 500 };
/** Nothing in it is a device, runs, or runs as somebody else. */
const OPTIONS = 'nosuid,nodev,noexec,noatime';
/** What e2fsck answers when it has set something right. */
const repaired = (code: number) => code === 1;
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';
export const TOOLS = ['setpriv', 'mkfs.ext4', 'e2fsck', 'resize2fs', 'losetup', 'mount', 'umount'];

export const hasTool = (name: string): boolean => PATH.split(':').some((folder) => existsSync(join(folder, name)));

async function tool(
  name: string,
  args: string[],
  fine: (code: number) => boolean = () => false,
  cwd?: string,
): Promise<void> {
  const [command, ...first] = boundTo(process.pid);
  try {
    await promisify(execFile)(command!, [...first, name, ...args], {
      cwd,
      env: { PATH, LC_ALL: 'C' },
      timeout: TOOL_MS,
      killSignal: 'SIGKILL',
    });
  } catch (thrown) {
    const { code, stderr, message } = thrown as { code?: number; stderr?: string; message: string };
    if (typeof code === 'number' && fine(code)) return;
    throw new Error(`${name}: ${stderr?.trim().split('\n').at(-1) || message}`);
  }
}

/** A tool of the file system's, on an image. By its last name: in a path a `?` would begin options. */
const onImage = (name: string, flags: string[], image: string, fine?: (code: number) => boolean) =>
  tool(name, [...flags, basename(image)], fine, dirname(image));

const failureOf = (work: Promise<void>) =>
  work.then(
    () => undefined,
    (error: Error) => error,
  );

/** What a file system takes for itself, but for its bitmaps: it comes on top of the quota, so that nobody has more than that. */
const ownBytes = (block: number, inodes: number) => journalMib(block) * MIB + inodes * INODES.bytes;
const journalMib = (block: number) => (block === 1024 ? 1 : 4);

/** How a new file system is laid out of which `quota_mib` are left for files. */
function layoutOf(quota_mib: number): { args: string[]; bytes: number } {
  const inodes = Math.min(Math.max(quota_mib * INODES.per_mib, INODES.least), INODES.most);
  const block = quota_mib < SMALL_MIB ? 1024 : 4096;
  const args = ['-b', String(block), '-J', `size=${journalMib(block)}`, '-m', '0'];
  args.push('-N', String(inodes), '-I', String(INODES.bytes));
  return { args, bytes: quota_mib * MIB + ownBytes(block, inodes) };
}

/** How large the file system in an image becomes of which `quota_mib` are left for files; never smaller than it is. */
async function grownBytes(image: FileHandle, quota_mib: number): Promise<number> {
  // Of its superblock: s_inodes_count and s_log_block_size.
  const { buffer } = await image.read(Buffer.alloc(28), 0, 28, 1024);
  const bytes = quota_mib * MIB + ownBytes(1024 << buffer.readUInt32LE(24), buffer.readUInt32LE(0));
  return Math.max(bytes, (await image.stat()).size);
}

/** Makes an image with an empty file system, whole or not at all, taking room on the disk only as it fills. */
export async function makeImage(image: string, quota_mib: number): Promise<void> {
  const temporary = `${image}.making`;
  await rm(temporary, { force: true });
  try {
    const file = await open(temporary, 'wx', 0o600);
    const { args, bytes } = layoutOf(quota_mib);
    await file.truncate(bytes).finally(() => file.close());
    await onImage('mkfs.ext4', ['-q', '-F', ...args, '-E', 'nodiscard,root_owner=0:0'], temporary);
    const made = await open(temporary, 'r');
    await made.sync().finally(() => made.close());
    await place(temporary, image);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Mounts an image at a folder, after replaying and checking what a crash left. */
export async function mountImage(image: string, at: string): Promise<void> {
  const until = performance.now() + WAIT_MS.most;
  for (;;) {
    const device = loopOf(image);
    if (device === undefined) {
      await onImage('e2fsck', ['-p'], image, repaired);
      return mount(image, at);
    }
    // The device may be let go of at any moment, and be another image's when it is mounted.
    const failed = await failureOf(mount(device, at));
    if (!failed) {
      if (loopOf(image) === device) return;
      await tool('umount', [at]);
    }
    if (performance.now() > until) throw failed ?? new Error(`${device} came and went`);
    await sleep(WAIT_MS.poll);
  }
}

const mount = (what: string, at: string) =>
  tool('mount', ['-t', 'ext4', '-o', what.startsWith('/dev/') ? OPTIONS : `loop,${OPTIONS}`, what, at]);

const copySparse = (image: string, to: string) => tool('cp', ['--sparse=always', '--reflink=auto', '--', image, to]);

/** Gives an image that is not mounted more room. It is done to a copy: killed at any moment, it is as it was or as it shall be. */
export async function growImage(image: string, quota_mib: number): Promise<void> {
  if (!(await freed(image))) throw new Error('it cannot grow while an earlier mount of it has not ended');
  const copy = `${image}.making`;
  try {
    await onImage('e2fsck', ['-p'], image, repaired);
    await copySparse(image, copy);
    const file = await open(copy, 'r+');
    try {
      await file.truncate(await grownBytes(file, quota_mib));
      await onImage('e2fsck', ['-f', '-p'], copy, repaired);
      await onImage('resize2fs', [], copy);
      await file.sync();
    } finally {
      await file.close();
    }
    await place(copy, image);
  } finally {
    await rm(copy, { force: true });
  }
}

/**
 * Copies an image as it is now, whole or not at all, also while it is mounted (`at`) and written to: what was on its way
 * then is as after a power cut, and the copy is repaired.
 */
export async function copyImage(image: string, to: string, at: string | undefined): Promise<void> {
  const copy = `${to}.making`;
  try {
    if (at !== undefined) await tool('sync', ['-f', at]);
    await copySparse(image, copy);
    await onImage('e2fsck', ['-f', '-y'], copy, repaired);
    await rename(copy, to);
  } finally {
    await rm(copy, { force: true });
  }
}

/** Mounts an empty image and unmounts it: whether that can be done here. It leaves nothing, or what a sweep removes. */
export async function tryMount(image: string, at: string): Promise<void> {
  await makeImage(image, 1);
  try {
    await mount(image, at);
    await tool('umount', [at]);
  } finally {
    await rm(image, { force: true });
  }
}

/** Unmounts; what was written is on the disk, also where somebody else has a copy of the mount. */
export async function unmountImage(at: string): Promise<void> {
  const unwritten = await failureOf(tool('sync', ['-f', at]));
  const until = performance.now() + WAIT_MS.most;
  for (;;) {
    const failed = await failureOf(tool('umount', [at]));
    if (!failed || !mountPoints().includes(at)) break;
    if (performance.now() > until) throw failed;
    await sleep(WAIT_MS.poll);
  }
  if (unwritten) throw unwritten;
}

/** Unmounts all that is `left` by its path, and lets go of all loop devices of images that are: what a killed agent left. */
export async function sweepMounts(left: (path: string) => boolean): Promise<number> {
  let swept = 0;
  for (const at of mountPoints().filter(left).toReversed()) {
    const failed = await failureOf(tool('umount', [at]).catch(() => tool('umount', ['-l', at])));
    // A reaper may be at it too.
    if (failed && mountPoints().includes(at)) throw failed;
    swept++;
  }
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
  while (loopOf(image) !== undefined) {
    if (performance.now() > until) return false;
    await sleep(WAIT_MS.poll);
  }
  return true;
}

const loopOf = (image: string): string | undefined => loopsOf((file) => file === image)[0];

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

/** All mount points, in the order in which they were mounted. */
function mountPoints(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
    .map((path) => path.replaceAll(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))));
}
