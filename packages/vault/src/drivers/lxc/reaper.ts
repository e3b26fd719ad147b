/**
 * What is left when an agent is killed: its vaults die with it, but their cgroups, claims and files have nobody. A small
 * shell, in a session of its own, waits for the end of a pipe that only the agent holds, clears what bears the dead
 * agent's claims, and ends. It touches nothing of an agent that lives: claims carry their owner's pid and start time.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ownerOf } from './idmap.ts';
import { RUN_DIR } from './limits.ts';

// $1 claims' folder, $2 owner, $3 prefix of container names, $4 LXC's folder, $5 the agent's folder of vault
// files, $6 what the names of cgroups begin with.
// Names were checked when they were made: letters, digits, dots, dashes, underscores.
const SCRIPT = `
trap '' INT HUP TERM
read -r _
for claim in "$1"/*."$2".*; do
  [ -f "$claim" ] || continue
  name=$(cat "$claim")
  case $name in "$3"*) ;; *) continue ;; esac
  tries=0
  while [ $tries -lt 50 ]; do
    dirs=$(find /sys/fs/cgroup -maxdepth 6 -type d -name "$6$name" 2>/dev/null)
    [ -n "$dirs" ] || break
    for dir in $dirs; do
      for pid in $(cat "$dir/cgroup.procs" 2>/dev/null); do [ "$pid" -gt 1 ] && kill -9 "$pid"; done
      [ -f "$dir/freezer.state" ] && echo THAWED > "$dir/freezer.state"
      find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null
    done
    tries=$((tries + 1))
    sleep 0.1
  done
  rm -f "$1/../vaults/$name="*
  rm -rf "$4/$name" "$5/\${name#"$3"}" "$claim"
done`;

export interface Reaper {
  /** The agent ends in order and has cleared up itself. Resolves when the reaper is gone. */
  dismiss(): Promise<void>;
}

/** Starts the reaper of this process. */
export function startReaper(prefix: string, lxc_dir: string, files_dir: string, kind = 'lxc.*.'): Reaper {
  const child = spawn(
    '/bin/sh',
    ['-c', SCRIPT, 'hauki-reaper', join(RUN_DIR, 'idmap'), ownerOf(process.pid), prefix, lxc_dir, files_dir, kind],
    {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    },
  );
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
