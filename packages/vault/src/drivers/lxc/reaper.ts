/**
 * What is left when an agent is killed: its vaults die with it, but their cgroups, claims and files have nobody, nor have
 * the mounts of its roots. A small shell, in a session of its own, waits for the end of a pipe that only the agent holds,
 * clears what bears the dead agent's name, and ends. It touches nothing of an agent that lives: names tell their owner's
 * pid and start time (`owner.ts`). Where it is killed too, the next agent does the same.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ownerOf } from '../owner.ts';
import { RUN_DIR } from './limits.ts';
import { VIEWS_DIR } from './root-view.ts';
import { STARTERS } from './sweep.ts';

// $1 claims' folder, $2 owner, $3 prefix of container names, $4 LXC's folder, $5 the agent's folder of vault
// files, $6 what the names of cgroups begin with, $7 the folder of views, $8 the folder of stages.
// Names were checked when they were made: letters, digits, dots, dashes, underscores.
const SCRIPT = `
trap '' INT HUP TERM
read -r _
# The pipe ends a moment before the agent does; only then have its children been signalled.
lives() {
  { read -r stat <"/proc/\${owner%.*}/stat"; } 2>/dev/null || return 1
  set -- \${stat##*) }
  [ "$1" != Z ] && [ "$1" != X ] && [ "\${20}" = "\${owner#*.}" ]
}
owner=$2; tries=0
while lives; do
  [ $tries -lt 600 ] || exit 1
  tries=$((tries + 1)); sleep 0.1
done
for claim in "$1"/*."$2".*; do
  [ -f "$claim" ] || continue
  name=$(cat "$claim")
  [ -n "$name" ] || rm -f "$claim"
  case $name in "$3"*) ;; *) continue ;; esac
  tries=0
  while [ $tries -lt 50 ]; do
    left=$(find /sys/fs/cgroup -maxdepth 6 -type d -name "$6$name" 2>/dev/null)
    for dir in $left; do
      for pid in $(cat "$dir/cgroup.procs" 2>/dev/null); do [ "$pid" -gt 1 ] && kill -9 "$pid"; done
      [ -f "$dir/freezer.state" ] && echo THAWED > "$dir/freezer.state"
      find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null
    done
    for file in $(grep -lszxF -f "$claim" /proc/[0-9]*/cmdline); do
      grep -qszxF ${STARTERS.map((starter) => `-e ${starter}`).join(' ')} "$file" || continue
      left=$file; file=\${file#/proc/}; kill -9 "\${file%/*}"
    done
    [ -n "$left" ] || break
    tries=$((tries + 1)); sleep 0.1
  done
  # What could not be ended keeps its claim: the next agent tries again.
  [ -z "$left" ] || continue
  rm -f "$1/../vaults/$name="*
  rm -rf "$4/$name" "$5/\${name#"$3"}" "$claim"
done
for view in "$7/$2".*; do
  tries=0
  while [ -d "$view" ] && [ $tries -lt 50 ]; do
    rmdir "$view" 2>/dev/null || umount -l "$view" 2>/dev/null || sleep 0.1
    tries=$((tries + 1))
  done
done
rm -rf "$8"/.making-"$2".*`;

export interface Reaper {
  /** The agent ends in order and has cleared up itself. Resolves when the reaper is gone. */
  dismiss(): Promise<void>;
}

export interface ReaperOptions {
  /** How the names of this process's containers begin. */
  prefix: string;
  lxc_dir: string;
  files_dir: string;
  stage_dir: string;
  /** How the names of cgroups begin, as a pattern. */
  kind?: string;
}

/** Starts the reaper of this process. */
export function startReaper({ prefix, lxc_dir, files_dir, stage_dir, kind = 'lxc.*.' }: ReaperOptions): Reaper {
  const owner = ownerOf(process.pid);
  const args = [join(RUN_DIR, 'idmap'), owner, prefix, lxc_dir, files_dir, kind, VIEWS_DIR, stage_dir];
  const child = spawn('/bin/sh', ['-c', SCRIPT, 'hauki-reaper', ...args], {
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
