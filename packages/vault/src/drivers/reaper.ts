/**
 * What outlives an agent to clear up after it: a small shell in a session of its own, which waits for the end of a pipe
 * that only the agent holds, then for the agent's own end, clears what bears the dead agent's name, and ends.
 *
 * What always holds: it is started before anything is made that it would have to clear, and touches nothing of an agent
 * that lives, since names tell their owner's pid and start time (`owner.ts`). Where it is killed too, the next agent does
 * the same. What is to be cleared is the caller's to say: each has a script of its own, and a reaper.
 */
import { spawn } from 'node:child_process';
import { ownerOf } from './owner.ts';

// $1 the owner, then what the script behind takes, as its own $1 and so on.
const PRELUDE = `
trap '' INT HUP TERM
owner=$1; shift
read -r _
# The pipe ends a moment before the agent does; only then have its children been signalled.
lives() {
  { read -r stat <"/proc/\${owner%.*}/stat"; } 2>/dev/null || return 1
  set -- \${stat##*) }
  [ "$1" != Z ] && [ "$1" != X ] && [ "\${20}" = "\${owner#*.}" ]
}
tries=0
while lives; do
  [ $tries -lt 600 ] || exit 1
  tries=$((tries + 1)); sleep 0.1
done
# Of a folder where the owner mounted something, or was about to: once the folder is gone nothing can be mounted there any
# more, and while something is, it cannot be removed. Lazily: whoever has a copy of the mount notices nothing.
unmount() {
  tries=0
  while [ -d "$1" ] && [ $tries -lt 50 ]; do
    rmdir "$1" 2>/dev/null || umount -l "$1" 2>/dev/null || sleep 0.1
    tries=$((tries + 1))
  done
}
`;

/** For a reaper that has nothing to do but that: $1 is the folder of mount points, whose names end with their owner's. */
export const UNMOUNT_ALL = 'for at in "$1"/*."$owner".*; do unmount "$at"; done';

export interface Reaper {
  /** The agent ends in order and has cleared up itself. Resolves when the reaper is gone. */
  dismiss(): Promise<void>;
}

/** Starts a reaper of this process. `script`: what it does when this is dead, for sh, with `args` and with $owner. */
export function startReaper(script: string, ...args: string[]): Reaper {
  const owner = ownerOf(process.pid);
  const child = spawn('/bin/sh', ['-c', PRELUDE + script, 'hauki-reaper', owner, ...args], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  const { promise: gone, resolve } = Promise.withResolvers<void>();
  child.on('exit', () => resolve());
  // Without it the next start of this node sweeps instead.
  child.on('error', () => resolve());
  child.stdin.on('error', () => {});
  child.unref();
  (child.stdin as unknown as { unref?: () => void }).unref?.();
  return {
    dismiss() {
      child.ref();
      child.kill('SIGKILL');
      return gone;
    },
  };
}
