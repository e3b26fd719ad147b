/**
 * What the reaper of a driver does for containers when their agent was killed: they die with it, but their cgroups, claims
 * and files have nobody, nor have the mounts of its roots.
 */
import { join } from 'node:path';
import { type Reaper, startReaper } from '../reaper.ts';
import { LOOK } from './hierarchies.ts';
import { RUN_DIR } from './limits.ts';
import { VIEWS_DIR } from './root-view.ts';
import { STARTERS } from './sweep.ts';

// $1 claims' folder, $2 prefix of container names, $3 LXC's folder, $4 the agent's folder of vault files, $5 what the names
// of cgroups begin with, $6 the folder of views, $7 the folder of stages.
// Names were checked when they were made: letters, digits, dots, dashes, underscores.
const SCRIPT = `
for claim in "$1"/*."$owner".*; do
  [ -f "$claim" ] || continue
  name=$(cat "$claim")
  [ -n "$name" ] || rm -f "$claim"
  case $name in "$2"*) ;; *) continue ;; esac
  tries=0
  while [ $tries -lt 50 ]; do
    left=$(find /sys/fs/cgroup -maxdepth 6 -type d -name "$5$name" 2>/dev/null)
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
  rm -rf "$3/$name" "$4/\${name#"$2"}" "$claim"
done
for view in "$6/$owner".*; do unmount "$view"; done
find /sys/fs/cgroup -maxdepth 6 -type d -name "${LOOK}$owner.*" -exec rmdir {} + 2>/dev/null
rm -rf "$7"/.making-"$owner".*`;

export interface Cleared {
  /** How the names of this process's containers begin. */
  prefix: string;
  lxc_dir: string;
  files_dir: string;
  stage_dir: string;
  /** How the names of cgroups begin, as a pattern. */
  kind?: string;
}

/** Starts the reaper of this process's containers. */
export const reapContainers = ({ prefix, lxc_dir, files_dir, stage_dir, kind = 'lxc.*.' }: Cleared): Reaper =>
  startReaper(SCRIPT, join(RUN_DIR, 'idmap'), prefix, lxc_dir, files_dir, kind, VIEWS_DIR, stage_dir);
