/**
 * Whether this machine can run lxc vaults, and if not, what to do about it; told in words for its owner.
 */
import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { CHRT } from '../bound.ts';
import { read } from '../files.ts';

/** What can be told without starting anything: a reason why not, or nothing. */
export function obstacle(): string | undefined {
  if (process.platform !== 'linux') return `LXC needs Linux; this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'the node agent must run as root to make lxc vaults (it does not)';
  for (const [file, how] of [
    ['/usr/bin/lxc-start', 'apt-get install --no-install-recommends lxc'],
    ['/usr/bin/setpriv', 'apt-get install util-linux'],
    [CHRT, 'apt-get install util-linux'],
    ['/usr/bin/ldd', 'apt-get install libc-bin'],
  ] as const) {
    if (!existsSync(file)) return `${file} is missing; install it: ${how}`;
  }
  if (!existsSync('/proc/self/ns/user')) return 'the kernel has no user namespaces';
  try {
    accessSync('/sys/fs/cgroup', constants.W_OK);
  } catch {
    return '/sys/fs/cgroup is not mounted or not writable, so nothing could be limited';
  }
  return undefined;
}

export function lxcVersion(): string {
  try {
    return execFileSync('/usr/bin/lxc-start', ['--version'], { encoding: 'utf8', timeout: 2_000 }).trim();
  } catch {
    return 'of unknown version';
  }
}

/**
 * Where the kernel has AppArmor, LXC confines a container by a profile unless told otherwise. What holds a vault does not
 * rest on one: a profile generated for each would take ten times as long as the rest of a start, and stay in the kernel
 * when its monitor is killed; the profile that LXC ships is for whole systems. Undefined: no AppArmor here.
 */
export function appArmorProfile(): 'unconfined' | undefined {
  return read('/sys/module/apparmor/parameters/enabled')?.trim() === 'Y' ? 'unconfined' : undefined;
}

/** Whether the kernel can filter system calls; whether this LXC can, a trial vault shows. */
export const canFilter = () => existsSync('/proc/sys/kernel/seccomp');
