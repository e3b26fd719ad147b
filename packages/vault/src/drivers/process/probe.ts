/** Whether this machine can put a process into bubblewrap, and if not, why; told in words for its owner. */
import { existsSync } from 'node:fs';
import { CHRT } from '../bound.ts';
import { TOOLS } from './command.ts';
import type { SeccompArch } from './seccomp.ts';

/** What can be told without starting anything: a reason why not, or nothing. */
export function obstacle(): string | undefined {
  if (process.platform !== 'linux') return `bubblewrap needs Linux; this is ${process.platform}`;
  if (!existsSync(TOOLS.bwrap)) return `${TOOLS.bwrap} is missing; install it: apt-get install bubblewrap`;
  for (const tool of [TOOLS.setpriv, TOOLS.prlimit, TOOLS.unshare, CHRT])
    if (!existsSync(tool)) return `${tool} is missing; install it: apt-get install util-linux`;
  if (!existsSync(TOOLS.ldd)) return `${TOOLS.ldd} is missing; install it: apt-get install libc-bin`;
  if (!existsSync('/proc/self/ns/user')) return 'the kernel has no user namespaces';
  if (!arch()) return `no filter of system calls is known for ${process.arch}`;
  return undefined;
}

export function arch(): SeccompArch | undefined {
  return process.arch === 'x64' || process.arch === 'arm64' ? process.arch : undefined;
}
