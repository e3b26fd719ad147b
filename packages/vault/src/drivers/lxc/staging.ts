/**
 * Stages the read-only root that all vaults of this machine share: Node's binary, exactly its libraries, the guest,
 * empty mount points, and an /etc that names nobody. Nothing else of the host is in it.
 *
 * A root is named by the digest of all that is in it, is made in a temporary folder and renamed into place, and never
 * changes afterwards; so agents may race, and may run different versions side by side. Large files are kept once, by
 * their digest, and linked into the roots. The folders are owned by root and may be entered by anybody, because the
 * vault's own (mapped) root is nobody to them; no other user may write there.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { chmod, copyFile, link, mkdir, readdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ownerLives, ownName } from '../owner.ts';
import { compiledCode, MAIN } from './code-cache.ts';

export interface Staged {
  rootfs: string;
  seccomp_profile: string;
  /** The command inside; Node's where it is left out. */
  init?: string;
  /** The guest has no listening socket; its gate is outside. */
  gate_outside?: boolean;
}

/** Where things lie inside the root. */
export const NODE_INSIDE = '/bin/node';
/** What Node runs there: it starts the guest, from its compiled code where that was kept. */
export const GUEST_INSIDE = '/hauki/main.cjs';
/** All that Node must be able to read for it. */
export const GUEST_FOLDER = '/hauki';
export const DEVICES = ['null', 'zero', 'random', 'urandom'] as const;

export const POLICY_FILE = fileURLToPath(new URL('./seccomp.policy', import.meta.url));
const LDD = '/usr/bin/ldd';
const MAKING = '.making-';
/** Empty ones, to be mounted over, and those that hold what is ours. */
const FOLDERS = ['proc', 'dev', 'tmp', 'etc', 'root', 'hauki'];
export const SMALL_FILES: Record<string, string> = {
  'etc/passwd': 'root:x:0:0::/tmp:/bin/false\n',
  'etc/group': 'root:x:0:\n',
  'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files\n',
  'etc/hosts': '127.0.0.1 localhost\n',
};

/** Makes the root for this Node and this guest, unless it is there; returns where it is. */
export async function stageRuntime(stage_dir: string, guest_file: string, node = process.execPath): Promise<Staged> {
  await mkdir(join(stage_dir, 'blobs'), { recursive: true, mode: 0o755 });
  // An ordinary user's vaults run as that user.
  if (process.getuid?.() === 0) assertTraversable(stage_dir);
  const files = new Map<string, string>([[NODE_INSIDE, await realpath(node)]]);
  for (const library of await libraries(node)) files.set(library, await realpath(library));
  const digests = new Map<string, string>();
  for (const [inside, source] of files) digests.set(inside, await digestOf(source, stage_dir));
  const guest = await readFile(guest_file);
  const policy = await readFile(POLICY_FILE);
  const digest = createHash('sha256');
  digest.update(JSON.stringify([[...digests], SMALL_FILES, DEVICES, FOLDERS]));
  digest.update(guest).update(policy).update(MAIN);
  const home = join(stage_dir, digest.digest('hex').slice(0, 24));
  const staged: Staged = { rootfs: join(home, 'rootfs'), seccomp_profile: join(home, 'seccomp.policy') };
  if (existsSync(home)) return staged;

  const temporary = making(stage_dir);
  try {
    const root = join(temporary, 'rootfs');
    for (const dir of FOLDERS) await mkdir(join(root, dir), { recursive: true });
    for (const device of DEVICES) await writeFile(join(root, 'dev', device), '');
    for (const [path, text] of Object.entries(SMALL_FILES)) await writeFile(join(root, path), text);
    for (const [inside, source] of files) {
      const target = join(root, inside);
      await mkdir(dirname(target), { recursive: true });
      await link(await blob(stage_dir, source, digests.get(inside)!), target);
    }
    await writeFile(join(root, GUEST_INSIDE), MAIN);
    await writeFile(join(root, GUEST_FOLDER, 'guest.mjs'), guest);
    const code = await compiledCode(node, join(root, GUEST_FOLDER), guest.toString('latin1'), making(stage_dir));
    if (code) await writeFile(join(root, GUEST_FOLDER, 'guest.code'), code);
    await writeFile(join(temporary, 'seccomp.policy'), policy);
    for (const dir of [
      '',
      'rootfs',
      'rootfs/proc',
      'rootfs/dev',
      'rootfs/tmp',
      'rootfs/root',
      'rootfs/etc',
      'rootfs/hauki',
    ]) {
      await chmod(join(temporary, dir), 0o755);
    }
    await rename(temporary, home);
  } catch (error) {
    // Another agent may have been faster: its root has the same content.
    if (!existsSync(home)) throw error;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return staged;
}

/** The name of something that is being made, in the folder of stages. Whoever makes it removes it, or renames it into place. */
export const making = (stage_dir: string): string => join(stage_dir, `${MAKING}${ownName()}`);

/** Removes what those who died were making. */
export async function sweepStage(stage_dir: string): Promise<void> {
  for (const name of await readdir(stage_dir).catch(() => []))
    if (name.startsWith(MAKING) && ownerLives(name) === false)
      await rm(join(stage_dir, name), { recursive: true, force: true });
}

/** The libraries and the loader that the kernel and the loader would use here. */
export async function libraries(...programs: string[]): Promise<string[]> {
  const { stdout } = await promisify(execFile)(LDD, programs, { env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' } });
  if (/not found/.test(stdout)) throw new Error(`a library of ${programs[0]} is missing:\n${stdout}`);
  return [...new Set(stdout.split('\n').flatMap((line) => /(\/\S+) \(0x/.exec(line)?.[1] ?? []))];
}

/** The content of `source` in the store of files, put there once. */
async function blob(stage_dir: string, source: string, digest: string): Promise<string> {
  const path = join(stage_dir, 'blobs', digest);
  if (existsSync(path)) return path;
  const temporary = making(stage_dir);
  try {
    await copyFile(source, temporary);
    if ((await digestOf(temporary)) !== digest) throw new Error(`${source} changed while it was staged`);
    await chmod(temporary, 0o755);
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
  return path;
}

/**
 * The digest of a file, remembered by its identity in a folder that only root may write: hashing Node's 150 MB costs
 * 0.2 s, and an agent starts often while one develops. A changed file has another identity (ctime cannot be set).
 */
async function digestOf(path: string, stage_dir?: string): Promise<string> {
  const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
  const note = stage_dir && join(stage_dir, 'blobs', `id-${[dev, ino, size, mtimeNs, ctimeNs].join('-')}`);
  const noted = note && (await readFile(note, 'utf8').catch(() => ''));
  if (noted && /^[0-9a-f]{64}$/.test(noted)) return noted;
  const digest = await hash(path);
  if (note) {
    const temporary = making(stage_dir);
    await writeFile(temporary, digest, { mode: 0o600 });
    await rename(temporary, note);
  }
  return digest;
}

async function hash(path: string): Promise<string> {
  const sum = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) sum.update(chunk as Buffer);
  return sum.digest('hex');
}

/** The vault's root is nobody here: every folder above must let others enter, and let nobody else write. */
export function assertTraversable(dir: string): void {
  for (let path = dir; ; path = dirname(path)) {
    const { mode, uid } = statSync(path);
    if ((mode & 0o001) === 0) {
      throw new Error(
        `${path} may not be entered by others (mode ${(mode & 0o777).toString(8)}), as vaults' users must: chmod o+x ${path}`,
      );
    }
    const sticky = (mode & 0o1000) !== 0;
    if (uid !== 0 || ((mode & 0o022) !== 0 && !sticky)) {
      throw new Error(`${path} can be changed by users other than root, so vaults must not run what lies in it`);
    }
    if (path === dirname(path)) return;
  }
}
