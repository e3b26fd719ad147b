/**
 * A sandbox: an LXC container for a whole program of ours, such as a microkernel, in place of one vault's guest. Like a
 * vault it has ids of its own, no capabilities, a read-only root, limits that were read back, and leaves nothing. Unlike
 * a vault it may start processes and use sockets, in a network namespace that is its own and has a loopback and nothing
 * else; what goes beyond that goes over Unix sockets in a folder that it shares with whoever started it.
 *
 * What always holds: no socket of the host's network is inside, so that nothing in there can be turned into a way out.
 */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VaultFailed } from '@hauki/protocol';
import type { VaultExit } from '../../driver.ts';
import { Gates } from '../../gates/gates.ts';
import type { Reaper } from '../reaper.ts';
import { Cgroups } from './cgroups.ts';
import { startContainer } from './container.ts';
import { listClaims } from './idmap.ts';
import { RUN_DIR, STAGE_DIR } from './limits.ts';
import { appArmorProfile, obstacle } from './probe.ts';
import { reapContainers } from './reaper.ts';
import { sweepViews, type View, viewOf } from './root-view.ts';
import { NODE_INSIDE, stageRuntime } from './staging.ts';
import { pythonObstacle, stagePython } from './staging-python.ts';
import { endDead } from './sweep.ts';

export interface SandboxOptions {
  /** What they are for, `[a-z]{1,20}`: it is in their names. What the dead of the same kind left goes with the first start. */
  kind: string;
  data_dir: string;
  /** What is run inside, as it lies on the host: a folder with all that it needs, and the program in it. */
  code_dir: string;
  program: string;
  memory_mib: number;
  cpu: number;
  log(line: string, fields?: object): void;
}

export interface SandboxSpec {
  id: string;
  /** Folders of the host that it may read, by their paths inside, such as `tmp/net`: it can connect to sockets in them. */
  folders: Readonly<Record<string, string>>;
  /** A file of the host with an ext4 file system, and the folders in it that it may write, by their paths inside. */
  disk: { image: string; folders: readonly string[] };
  environment: Readonly<Record<string, string>>;
}

export interface Sandbox {
  readonly id: string;
  readonly pid: number;
  readonly exited: Promise<VaultExit>;
  /** Resolves when nothing of it is left. */
  kill(reason: string): Promise<void>;
}

const LXC_DIR = join(RUN_DIR, 'lxc');
/** Where code and folders are bound before LXC's own mounts: the way to them on the host may be closed to a sandbox's root. */
const CODE = join(RUN_DIR, 'code');
const SHARED = join(RUN_DIR, 'shared');
/** A list of what is refused: more than a vault's guest, a whole program needs nearly all that there is. */
const SECCOMP = fileURLToPath(new URL('./sandbox.policy', import.meta.url));
const UNSHARE = '/usr/bin/unshare';
const IP = '/sbin/ip';
const DISK = join(SHARED, 'disk');
/**
 * Its own network and mounts; both end with the last process in them. $1: the code; $2: the image; $3: how many folders;
 * then each by its name and its path, empty for one of the image's; then the command.
 */
const STARTER = `code=$1; image=$2; n=$3; shift 3
/bin/mount --bind "$code" ${CODE} && /bin/mount -t tmpfs -o size=64k,mode=755 tmpfs ${SHARED} || exit 96
/bin/mkdir ${DISK} && /bin/mount -t ext4 -o loop,nosuid,nodev,noatime "$image" ${DISK} || exit 96
while [ "$n" -gt 0 ]; do
  if [ -z "$2" ]; then /bin/mkdir "${DISK}/$1"
  else /bin/mkdir "${SHARED}/$1" && /bin/mount --bind "$2" "${SHARED}/$1"
  fi || exit 96
  shift 2; n=$((n - 1))
done
${IP} link set lo up && exec "$@"`;

export const CODE_INSIDE = '/tmp/code';

/** Why there can be no sandboxes on this machine, or undefined. */
export function sandboxObstacle(): string | undefined {
  const missing = [UNSHARE, IP].find((file) => !existsSync(file));
  return obstacle() ?? (missing && `${missing} is not there; install lxc, iproute2 and util-linux`);
}

export class Sandboxes {
  readonly #options: SandboxOptions;
  readonly #files_dir: string;
  readonly #prefix: string;
  /** Those that live, and those that are being started. */
  readonly #all = new Set<Promise<Sandbox>>();
  #closed = false;
  #cgroups: Cgroups | undefined;
  #reaper: Reaper | undefined;
  #swept: Promise<void> | undefined;
  #rootfs: Promise<string> | undefined;
  #view: View | undefined;

  constructor(options: SandboxOptions) {
    this.#options = options;
    this.#files_dir = join(options.data_dir, 'lxc');
    this.#prefix = `hauki.${options.kind}-${process.pid.toString(36)}.`;
  }

  /** Starts one. Rejects with VaultFailed; then nothing of it is left. */
  async start(spec: SandboxSpec): Promise<Sandbox> {
    if (this.#closed) throw new VaultFailed({ driver: 'lxc', reason: 'it is closed' });
    const starting = this.#start(spec);
    this.#all.add(starting);
    const gone = () => this.#all.delete(starting);
    starting.then(({ exited }) => exited.then(gone), gone);
    return starting;
  }

  async #start({ id, folders, disk, environment }: SandboxSpec): Promise<Sandbox> {
    const reason = sandboxObstacle();
    if (reason !== undefined) throw new VaultFailed({ driver: 'lxc', reason });
    const { code_dir, program, memory_mib, cpu, log } = this.#options;
    this.#cgroups ??= new Cgroups();
    // Before anything is made that it would have to clear.
    this.#reaper ??= reapContainers({
      ...{ prefix: this.#prefix, lxc_dir: LXC_DIR, files_dir: this.#files_dir, stage_dir: STAGE_DIR },
    });
    this.#swept ??= this.#sweep(this.#cgroups);
    await this.#swept;
    this.#rootfs ??= this.#stage();
    const rootfs = await this.#rootfs;
    for (const dir of [LXC_DIR, CODE, SHARED]) mkdirSync(dir, { recursive: true, mode: 0o755 });
    const all = [...Object.entries(folders), ...disk.folders.map((path) => [path, ''] as const)];
    const named = all.map(([path, folder]) => ({ path, name: path.replaceAll('/', '-'), folder }));
    const shared = [disk.image, String(named.length), ...named.flatMap(({ name, folder }) => [name, folder])];
    const mount = (from: string, to: string, options: string) =>
      `${from} ${to} none bind,${options},nosuid,nodev,create=dir 0 0`;
    return startContainer(
      `${this.#prefix}${id}`,
      { id, owner: this.#options.kind, listen_host: '127.0.0.1', memory_mib, cpu },
      {
        cgroups: this.#cgroups,
        staged: {
          rootfs,
          seccomp_profile: SECCOMP,
          init: [NODE_INSIDE, '--disable-warning=ExperimentalWarning', `${CODE_INSIDE}/${program}`].join(' '),
        },
        files_dir: join(this.#files_dir, id),
        lxc_dir: LXC_DIR,
        apparmor: appArmorProfile(),
        gates: new Gates(),
        log,
        sandbox: {
          mounts: [
            mount(CODE, CODE_INSIDE.slice(1), 'ro'),
            ...named.map(({ name, path, folder }) =>
              folder === ''
                ? mount(join(DISK, name), path, 'rw,idmap=container')
                : mount(join(SHARED, name), path, 'ro,idmap=container'),
            ),
          ],
          environment: Object.entries(environment).map(([name, value]) => `${name}=${value}`),
          starter: [UNSHARE, '--net', '--mount', '/bin/sh', '-c', STARTER, 'hauki-sandbox', code_dir, ...shared],
        },
      },
    );
  }

  /** What those left whose reaper was killed too. */
  async #sweep(cgroups: Cgroups): Promise<void> {
    const claims = listClaims(`hauki.${this.#options.kind}-`).filter(({ alive }) => !alive);
    const dead = new Set(claims.map(({ container }) => container));
    const forget = (container: string) => rmSync(join(LXC_DIR, container), { recursive: true, force: true });
    await endDead(dead, claims, cgroups, forget, this.#options.log);
    await sweepViews();
  }

  /** The root of all: Node's, and Python's over it where the machine has one. */
  async #stage(): Promise<string> {
    const { code_dir, log } = this.#options;
    const { rootfs } = await stageRuntime(STAGE_DIR, join(code_dir, 'package.json'));
    const without = (why: string) => {
      log(`no Python in the sandboxes: ${why}`);
      return rootfs;
    };
    const obstacle = await pythonObstacle();
    if (obstacle !== undefined) return without(obstacle);
    try {
      this.#view = await viewOf(rootfs, (await stagePython(STAGE_DIR)).rootfs);
      return this.#view.path;
    } catch (error) {
      return without((error as Error).message);
    }
  }

  /** Ends all. Resolves when nothing of them is left. */
  async close(): Promise<void> {
    this.#closed = true;
    const all = await Promise.allSettled(this.#all);
    await Promise.all(all.map((one) => one.status === 'fulfilled' && one.value.kill('the swarm ends')));
    await this.#view?.close();
    await this.#reaper?.dismiss();
  }
}
