/**
 * The LXC configuration of one vault. Pure: text in, text out; the driver reads back what the kernel made of it.
 */
import { GATE_OUTSIDE } from '../../guest/inner-shell.ts';
import type { Limit } from './cgroups.ts';
import { HEAP_SHARE, NOFILE, TMP_INODES, TMP_SIZE } from './limits.ts';
import { DEVICES, GUEST_INSIDE, NODE_INSIDE } from './staging.ts';

/** What tests change to show that they would notice a hole; never set outside tests. */
export interface Trial {
  /** `lxc.mount.entry` values; the targets may be made below tmp. */
  extra_mounts?: string[];
  /** Runs instead of the guest. */
  init_cmd?: string;
  without_seccomp?: boolean;
  /** As on a machine where no filter can be loaded: the driver is to do without a socket inside. */
  no_filter?: boolean;
}

export type AppArmor = 'unconfined' | undefined;

export interface VaultConfig {
  name: string;
  rootfs: string;
  /** Node and the guest where it is left out. */
  init?: string | undefined;
  /** Missing where no filter can be loaded; then nothing may be handed in that it would have to guard. */
  seccomp_profile?: string | undefined;
  gate_outside?: boolean | undefined;
  ids: { base: number; size: number };
  memory_mib: number;
  /** A host's folder, mounted with its quota, and where it goes. */
  volume?: { path: string; inside: string } | undefined;
  limits: Limit[];
  devices_version: 1 | 2 | undefined;
  /** Copies files of the cgroups into a folder before LXC removes the cgroups. */
  keep?: { from: readonly string[]; to: string } | undefined;
  apparmor: AppArmor;
  /** A sandbox: it has the network namespace that it is started in, and these mounts (`lxc.mount.entry`). */
  sandbox?: { mounts: readonly string[]; environment: readonly string[] } | undefined;
  trial?: Trial | undefined;
}

/** Device numbers of null, zero, random, urandom: nothing else can be opened, whatever node is there. */
const DEVICE_NUMBERS = ['c 1:3 rw', 'c 1:5 rw', 'c 1:8 rw', 'c 1:9 rw'];

const VOLUME_OPTIONS = 'bind,rw,nosuid,nodev,noexec,idmap=container';
/** As in fstab(5): nothing in a path ends its field. */
const escaped = (path: string) =>
  path.replaceAll(/[\s\\#]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`);

export function renderConfig(config: VaultConfig): string {
  const { rootfs, ids, volume, sandbox, trial = {} } = config;
  const heap_mib = Math.floor(config.memory_mib * HEAP_SHARE);
  const init =
    trial.init_cmd ??
    config.init ??
    [NODE_INSIDE, `--max-old-space-size=${heap_mib}`, '--disable-warning=ExperimentalWarning', GUEST_INSIDE]
      .concat(config.gate_outside ? [GATE_OUTSIDE] : [])
      .join(' ');
  const lines = [
    `lxc.rootfs.path = dir:${rootfs}`,
    'lxc.rootfs.options = ro',
    'lxc.rootfs.managed = 0',
    // See ONE_ARCHITECTURE in container.ts.
    ...(process.arch === 'x64' ? ['lxc.arch = x86_64'] : []),
    'lxc.uts.name = vault',
    // Where a monitor goes while it removes its own cgroups; by default one folder for all, which nobody removes.
    `lxc.cgroup.dir.monitor.pivot = lxc.pivot.${config.name}`,
    `lxc.init.cmd = ${init}`,
    `lxc.init.cwd = ${volume?.inside ?? '/tmp'}`,
    // subset=pid hides cmdline, meminfo, sys, sysrq-trigger and all else of the host; Node needs /proc/self only.
    'lxc.mount.entry = proc proc proc nosuid,nodev,noexec,subset=pid 0 0',
    `lxc.mount.entry = tmpfs tmp tmpfs nosuid,nodev,noexec,size=${TMP_SIZE},nr_inodes=${TMP_INODES},mode=1777 0 0`,
    // They can be written to all the same; what is read-only is what the host has of them, such as their times.
    ...DEVICES.map((name) => `lxc.mount.entry = /dev/${name} dev/${name} none bind,ro,nosuid,noexec 0 0`),
    // Its ids on disk are the vault's own, 0 and up, whatever range the vault has this time.
    ...(volume
      ? [`lxc.mount.entry = ${escaped(volume.path)} ${volume.inside.slice(1)} none ${VOLUME_OPTIONS} 0 0`]
      : []),
    ...(volume ? [`lxc.environment = HOME=${volume.inside}`] : []),
    ...[...(sandbox?.mounts ?? []), ...(trial.extra_mounts ?? [])].map((entry) => `lxc.mount.entry = ${entry}`),
    ...(sandbox?.environment ?? []).map((entry) => `lxc.environment = ${entry}`),
    'lxc.autodev = 0',
    'lxc.tty.max = 0',
    'lxc.pty.max = 0',
    'lxc.console.path = none',
    // An own, empty network namespace; "none" would share the host's.
    `lxc.net.0.type = ${sandbox ? 'none' : 'empty'}`,
    `lxc.idmap = u 0 ${ids.base} ${ids.size}`,
    `lxc.idmap = g 0 ${ids.base} ${ids.size}`,
    'lxc.cap.keep = none',
    'lxc.no_new_privs = 1',
    'lxc.prlimit.core = 0',
    `lxc.prlimit.nofile = ${NOFILE}`,
    // The vault stays uid 0 of its own id range: a switch to another id would clear the parent-death signal.
    'lxc.monitor.signal.pdeath = SIGKILL',
    ...config.limits.map(({ version, file, value }) => `lxc.cgroup${version === 2 ? '2' : ''}.${file} = ${value}`),
  ];
  if (config.devices_version !== undefined) {
    const key = `lxc.cgroup${config.devices_version === 2 ? '2' : ''}.devices`;
    lines.push(`${key}.deny = a`, ...DEVICE_NUMBERS.map((device) => `${key}.allow = ${device}`));
  }
  if (config.keep && config.keep.from.length > 0) {
    const { from, to } = config.keep;
    // Version 1 passes the hook's facts in the environment and leaves the arguments alone.
    lines.push('lxc.hook.version = 1', `lxc.hook.stop = /bin/cp ${from.map((file) => `'${file}'`).join(' ')} '${to}'`);
  }
  if (config.apparmor !== undefined) lines.push(`lxc.apparmor.profile = ${config.apparmor}`);
  if (config.seccomp_profile !== undefined && !trial.without_seccomp)
    lines.push(`lxc.seccomp.profile = ${config.seccomp_profile}`);
  return `${lines.join('\n')}\n`;
}
