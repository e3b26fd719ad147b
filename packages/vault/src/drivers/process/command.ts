/**
 * The command line of one vault. Pure. A chain of programs that each exec the next, so that the agent's child is in the
 * end bubblewrap's monitor: join the cgroups, become patient, set limits, leave root for an id of the vault's own, make a
 * mount namespace with the vault's /tmp, and hand over to bubblewrap, which starts Node as process 1.
 */
import { fileURLToPath } from 'node:url';
import { PATIENT } from '../bound.ts';
import { HEAP_SHARE, NOFILE, PIDS_MAX, TMP_INODES, TMP_SIZE } from '../lxc/limits.ts';
import { DEVICES, GUEST_FOLDER, GUEST_INSIDE, NODE_INSIDE } from '../lxc/staging.ts';
import { PYTHON_COMMAND } from '../lxc/staging-python.ts';
import { RESERVED_MIB } from './limits.ts';

/** What tests change to show that they would notice a hole; never set outside tests. */
export interface Trial {
  /** Host files to bind: source, and where inside (below a folder that is there). */
  binds?: [string, string][];
  /** Runs instead of Node with its permission model. */
  init?: string[];
  without_seccomp?: boolean;
  without_permission?: boolean;
  /** Each of bubblewrap's options that is left out. */
  without?: string[];
}

export interface Shape {
  /** Stands in the command lines of all processes of the vault. */
  name: string;
  memory_mib: number;
  /** The pid of the process that starts it, with which it ends. */
  agent: number;
  /** Folders of cgroups to join; empty where none can be written. */
  cgroups: string[];
  /** The host's id that the vault runs as; undefined: the agent's own, which is an ordinary user's. */
  uid: number | undefined;
  rootfs: string;
  /** Runs instead of Node. */
  init?: string[] | undefined;
  volume?: { path: string; inside: string } | undefined;
  trial?: Trial | undefined;
}

/** Descriptors that bubblewrap takes itself and that the vault does not get. */
export const SECCOMP_FD = 5;
export const STATUS_FD = 6;

export const TOOLS = {
  bwrap: '/usr/bin/bwrap',
  setpriv: '/usr/bin/setpriv',
  prlimit: '/usr/bin/prlimit',
  unshare: '/usr/bin/unshare',
  ldd: '/usr/bin/ldd',
  /** Only for volumes. */
  perl: '/usr/bin/perl',
};

const IDMAP_MOUNT = fileURLToPath(new URL('./idmap-mount.pl', import.meta.url));
const UNSHARE_NUMBER = process.arch === 'arm64' ? 97 : 272;

// $1 how many folders, then the folders, then the command.
const JOIN = `n=$1; shift
while [ "$n" -gt 0 ]; do echo 0 >"$1/cgroup.procs" || exit 97; shift; n=$((n - 1)); done`;
const GO_ON = 'exec "$@"';
// The vault's mount namespace begins as a copy of the host's, and bubblewrap's monitor stays in it: it would hold the
// volumes of others, mounted at the time, for as long as the vault lives. $1 is the volume that it may keep, as that table writes it.
const LET_GO = `keep=$1; shift
others=$(while read -r device at rest; do
  case $at in "$keep") ;; */volumes/mounted/*) printf '%b\\n' "$at" ;; esac
done </proc/self/mounts)
set -f; IFS='
'; [ -z "$others" ] || /bin/umount -l $others; unset IFS`;
// bubblewrap can bound the size of a tmpfs, but neither its inodes nor execution from it. Before: who is not the agent's
// child any more asked too late to die with it. Nor does it bind devices so that they can be written to while what the
// host has of them, such as their times, is read-only. $1 is the agent, $2 the root.
const MOUNT = `[ "$PPID" = "$1" ] && root=$2 && shift 2 || exit 98
for device in ${DEVICES.join(' ')}; do /bin/mount -o bind,ro,nosuid,noexec "/dev/$device" "$root/dev/$device" || exit 98; done
/bin/mount -t tmpfs -o "size=${TMP_SIZE},nr_inodes=${TMP_INODES},mode=1777,nosuid,nodev,noexec" tmpfs "$root/tmp" && exec "$@"`;

/** A path as /proc/mounts has it. */
const inMountTable = (path: string) =>
  path.replaceAll(/[ \t\n\\]/g, (sign) => `\\${sign.charCodeAt(0).toString(8).padStart(3, '0')}`);

/** Node's own options: heap, and what its permission model leaves. */
export function nodeOptions(memory_mib: number, guest: string, folder: string): string[] {
  return [
    `--max-old-space-size=${Math.floor(memory_mib * HEAP_SHARE)}`,
    '--permission',
    // For the listening socket that is handed in; there is no network behind it.
    '--allow-net',
    `--allow-fs-read=${guest}`,
    `--allow-fs-read=${folder}/*`,
    `--allow-fs-write=${folder}/*`,
    '--disable-warning=ExperimentalWarning',
    '--disable-warning=SecurityWarning',
  ];
}

const volumeOptions = (folder: string | undefined): string[] =>
  folder === undefined ? [] : [`--allow-fs-read=${folder}/*`, `--allow-fs-write=${folder}/*`];

/** In bubblewrap. */
export function sandboxed(shape: Shape): string[] {
  const { name, memory_mib, agent, cgroups, uid, rootfs, volume, init, trial = {} } = shape;
  const tmp = `${rootfs}/tmp`;
  const limits = ['--core=0', `--nofile=${NOFILE}`];
  if (uid !== undefined) limits.push(`--nproc=${PIDS_MAX}`);
  if (cgroups.length === 0) limits.push(`--data=${(memory_mib + RESERVED_MIB) * 1024 * 1024}`);
  const leave =
    uid === undefined
      ? []
      : [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--inh-caps=-all', '--no-new-privs'];
  const options = [
    ...['--unshare-user', '--unshare-pid', '--unshare-net', '--unshare-ipc', '--unshare-uts', '--unshare-cgroup'],
    ...['--uid 0', '--gid 0', '--hostname vault', '--new-session', '--die-with-parent', '--as-pid-1'],
    ...['--cap-drop ALL', '--clearenv'],
  ]
    .filter((option) => !trial.without?.includes(option))
    .flatMap((option) => option.split(' '));
  const home = volume && uid !== undefined ? `${rootfs}${volume.inside}` : (volume?.path ?? '');
  const mapped =
    volume && uid !== undefined
      ? [...[TOOLS.perl, IDMAP_MOUNT, String(UNSHARE_NUMBER), String(uid), volume.path, home]]
      : [];
  const join = [String(cgroups.length), ...cgroups];
  return [
    ...(uid === undefined
      ? ['/bin/sh', '-c', `${JOIN}\n${GO_ON}`, name, ...join]
      : [
          ...[TOOLS.unshare, '--mount', '--propagation=private', '--'],
          ...['/bin/sh', '-c', `${JOIN}\n${LET_GO}\n${GO_ON}`, name, ...join, inMountTable(volume?.path ?? '')],
        ]),
    ...PATIENT,
    ...[TOOLS.prlimit, ...limits, '--'],
    ...mapped,
    ...[TOOLS.setpriv, '--pdeathsig=KILL', ...leave, '--'],
    ...[TOOLS.unshare, '--user', '--map-root-user', '--mount', '--'],
    ...['/bin/sh', '-c', MOUNT, name, String(agent), rootfs],
    ...[TOOLS.bwrap, ...options],
    ...['--ro-bind', rootfs, '/', '--bind', tmp, '/tmp'],
    // As they were bound below it: bound like the rest they could not be opened.
    ...DEVICES.flatMap((device) => ['--dev-bind', `${rootfs}/dev/${device}`, `/dev/${device}`]),
    ...(volume ? ['--bind', home, volume.inside, '--setenv', 'HOME', volume.inside] : []),
    ...(trial.binds ?? []).flatMap(([source, inside]) => ['--ro-bind', source, inside]),
    ...['--chdir', volume?.inside ?? '/tmp', '--json-status-fd', String(STATUS_FD)],
    ...(trial.without_seccomp ? [] : ['--seccomp', String(SECCOMP_FD)]),
    '--',
    ...(trial.init ??
      (init && [...init, name]) ?? [
        NODE_INSIDE,
        ...nodeOptions(memory_mib, `${GUEST_FOLDER}/*`, '/tmp').filter(
          (o) => !trial.without_permission || !/permission|allow/.test(o),
        ),
        ...volumeOptions(volume?.inside),
        GUEST_INSIDE,
        name,
      ]),
  ];
}

/**
 * Without bubblewrap: Node's permission model alone, which is no wall against code that means harm. `folder` is for
 * temporary files, `volume` a lasting one.
 */
export function unsandboxed(shape: {
  name: string;
  memory_mib: number;
  guest: string;
  folder: string;
  volume?: string | undefined;
}): string[] {
  const { name, memory_mib, guest, folder, volume } = shape;
  return [process.execPath, ...nodeOptions(memory_mib, guest, folder), ...volumeOptions(volume), guest, name];
}

/** Python without bubblewrap, inside somebody's sandbox: nothing of its own holds it. */
export const containedPython = (name: string): string[] => [...PYTHON_COMMAND, '--no-processes', name];
