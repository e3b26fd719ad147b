/**
 * The lxc driver: every vault is an unprivileged LXC container with Node as its only process.
 *
 * What always holds: a vault has its own id range, no capabilities, no network of its own, a read-only root with
 * nothing of the host in it, limits that were read back from the kernel, and an allowlist of system calls without which
 * the handed-in listening socket would be a way into the host's network (see `seccomp.policy`). Names of containers
 * carry the node's id, so that agents on one machine never touch each other's.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type IsolationLevel, type Runtime, VaultFailed } from '@hauki/protocol';
import type { Driver, Offer, Pooling, Vault, VaultSpec } from '../../driver.ts';
import { Gates } from '../../gates/gates.ts';
import { list } from '../files.ts';
import type { Reaper } from '../reaper.ts';
import { twice } from '../trial.ts';
import { Cgroups } from './cgroups.ts';
import type { Trial } from './config.ts';
import { type Container, labelsDir, startContainer } from './container.ts';
import { listClaims } from './idmap.ts';
import { Lanes } from './lanes.ts';
import { Launcher } from './launcher.ts';
import { LANES, RUN_DIR, STAGE_DIR } from './limits.ts';
import { appArmorProfile, canFilter, lxcVersion, obstacle } from './probe.ts';
import { reapContainers } from './reaper.ts';
import { sweepViews, type View, viewOf } from './root-view.ts';
import { type Staged, stageRuntime, sweepStage } from './staging.ts';
import { type PythonSet, pythonObstacle, stagePython } from './staging-python.ts';
import { endDead } from './sweep.ts';

export interface LxcOptions {
  /** `[A-Za-z0-9_-]{1,40}`; part of every container's name. */
  node_id: string;
  data_dir: string;
  /** One bundled ES module, run inside with fd 3 = the listening socket and fd 4 = the control channel. */
  guest_file: string;
  /** Where read-only roots are staged; shared by all agents of the machine. */
  stage_dir?: string;
  log?: (line: string, fields?: object) => void;
  /** For tests only. */
  trial?: Trial;
  /** What Python vaults are made of; the system's interpreter and its library when left out. */
  python?: PythonSet;
  /** For vaults whose gate is outside. */
  gates?: Gates;
}

const NODE_ID = /^[A-Za-z0-9_-]{1,40}$/;
const VAULT_ID = /^[a-z0-9-]{1,40}$/;
const PROBE_MEMORY_MIB = 64;
/** LXC's own path. One for all agents, since LXC keeps a lock folder for each path it ever saw. */
const LXC_DIR = join(RUN_DIR, 'lxc');

export function createLxcDriver(options: LxcOptions): Driver {
  return new LxcDriver(options);
}

const SHARED_KERNEL = 'It shares the kernel, so it does not stop an exploit of the kernel itself.';
const HELD = `An unprivileged container with its own ids, no capabilities, no network, an allowlist of system calls and hard limits. ${SHARED_KERNEL}`;
const HELD_UNFILTERED =
  'An unprivileged container with its own ids, no capabilities, no network, no listening socket and hard limits, but no filter of system calls, which this machine cannot load: all of the kernel can be called, families of sockets without namespaces too.';

class LxcDriver implements Driver {
  readonly name = 'lxc';
  readonly #options: LxcOptions;
  readonly #files_dir: string;
  readonly #prefix: string;
  readonly #vaults = new Map<string, Promise<Container>>();
  #cgroups: Cgroups | undefined;
  readonly #staged = new Map<Runtime, Promise<Staged>>();
  readonly #views = new Set<Promise<View>>();
  #reaper: Reaper | undefined;
  readonly #gates: Gates;
  readonly #lanes = new Lanes(LANES);
  readonly #launcher: Launcher;
  #closed = false;
  #probes = 0;
  /** Whether vaults get the filter of system calls, and so a listening socket of their own. */
  #filtered: boolean;

  constructor(options: LxcOptions) {
    if (!NODE_ID.test(options.node_id))
      throw new Error(`node id ${JSON.stringify(options.node_id)} must match ${NODE_ID}`);
    this.#options = options;
    this.#gates = options.gates ?? new Gates();
    this.#filtered = canFilter() && options.trial?.no_filter !== true;
    this.#files_dir = join(options.data_dir, 'lxc');
    this.#launcher = new Launcher(LXC_DIR, this.#files_dir);
    // A dot is in neither kind of id, so no node's prefix begins another's.
    this.#prefix = `hauki.${options.node_id}.`;
  }

  get level(): IsolationLevel {
    return this.#filtered ? 'container' : 'process';
  }

  get isolation(): string {
    return this.#filtered ? HELD : `${HELD_UNFILTERED} ${SHARED_KERNEL}`;
  }

  async probe(): Promise<Offer> {
    const offer = await this.#tryAll();
    // An LXC that was built without filters; what it starts is held by the rest, and gets no socket.
    if (offer.available || !this.#filtered || !/seccomp/i.test(offer.reason)) return offer;
    this.#filtered = false;
    return this.#tryAll();
  }

  async #tryAll(): Promise<Offer> {
    const reason = obstacle();
    if (reason !== undefined) return { available: false, reason };
    const began = performance.now();
    try {
      await twice(() => this.#trial());
    } catch (error) {
      return { available: false, reason: `a trial vault did not start: ${(error as Error).message}` };
    }
    const took_ms = Math.round(performance.now() - began);
    const notes = [
      `LXC ${lxcVersion()}`,
      this.#filtered ? '' : 'no filter of system calls can be loaded: gates are outside',
      `trial ${took_ms} ms`,
    ];
    const no_python = await pythonObstacle(this.#options.python);
    if (no_python !== undefined) notes.push(`no Python: ${no_python}`);
    // The first time on a machine takes seconds: the first worker should not wait for that.
    else if (!list(this.#options.stage_dir ?? STAGE_DIR).some((name) => name.startsWith('python-library-')))
      this.#stage('python').catch(() => {});
    const runtimes: Runtime[] = no_python === undefined ? ['node', 'python'] : ['node'];
    return { available: true, note: notes.filter(Boolean).join(', '), runtimes };
  }

  /** Starts and ends a vault. It is held to be able only when the kernel shows it confined and limited. */
  async #trial(): Promise<void> {
    const vault = await this.start({
      id: `probe-${process.pid}-${this.#probes++}`,
      owner: 'probe',
      listen_host: '127.0.0.1',
      memory_mib: PROBE_MEMORY_MIB,
    });
    await vault.kill('the probe is over');
  }

  async start(spec: VaultSpec): Promise<Vault> {
    if (this.#closed) throw new VaultFailed({ driver: 'lxc', reason: 'the driver is closed' });
    if (!VAULT_ID.test(spec.id))
      throw new VaultFailed({ driver: 'lxc', reason: `bad vault id ${JSON.stringify(spec.id)}` });
    if (this.#vaults.has(spec.id))
      throw new VaultFailed({ driver: 'lxc', reason: `vault ${spec.id} is already there` });
    const starting = this.#start(spec);
    this.#vaults.set(spec.id, starting);
    try {
      const vault = await starting;
      void vault.exited.then(() => this.#vaults.delete(vault.id));
      // Closed meanwhile: `close` waits for it too, but its caller must not get a dying vault.
      if (this.#closed) {
        await vault.kill('the driver is closed');
        throw new VaultFailed({ driver: 'lxc', reason: 'the driver is closed' });
      }
      return vault;
    } catch (error) {
      this.#vaults.delete(spec.id);
      if (error instanceof VaultFailed) throw error;
      throw new VaultFailed({ driver: 'lxc', reason: (error as Error).message });
    }
  }

  /** V8's heap is as large as the memory it was started with, so memory is of the kind; the CPU's share is not. */
  readonly pooling: Pooling = {
    kind: ({ listen_host, memory_mib, runtime, volume }) =>
      volume ? undefined : JSON.stringify([listen_host, memory_mib, runtime ?? 'node']),
    assign: async (vault, spec) => {
      const container = await this.#vaults.get(vault.id);
      if (container !== vault) throw new VaultFailed({ driver: 'lxc', reason: 'the vault that was ready has ended' });
      if (!VAULT_ID.test(spec.id) || this.#vaults.has(spec.id)) {
        await vault.kill('it could not be handed out');
        throw new VaultFailed({ driver: 'lxc', reason: `vault ${spec.id} is already there` });
      }
      this.#vaults.set(spec.id, Promise.resolve(container));
      this.#vaults.delete(vault.id);
      try {
        await container.assign(spec);
      } catch (error) {
        this.#vaults.delete(spec.id);
        throw error;
      }
    },
  };

  async #start(spec: VaultSpec): Promise<Container> {
    const reason = obstacle();
    if (reason !== undefined) throw new VaultFailed({ driver: 'lxc', reason });
    this.#cgroups ??= new Cgroups();
    mkdirSync(LXC_DIR, { recursive: true, mode: 0o755 });
    // Before anything is made that it would have to clear.
    this.#reaper ??= reapContainers({
      ...{ prefix: this.#prefix, lxc_dir: LXC_DIR, files_dir: this.#files_dir },
      stage_dir: this.#options.stage_dir ?? STAGE_DIR,
    });
    const staged = await this.#stage(spec.runtime ?? 'node');
    const leave = await this.#lanes.enter();
    try {
      if (this.#closed) throw new VaultFailed({ driver: 'lxc', reason: 'the driver is closed' });
      const container = await this.#startNow(spec, staged);
      void container.spoke().then(() => {
        leave();
        if (this.#filtered) this.#launcher.soon(spec.listen_host);
      });
      return container;
    } catch (error) {
      leave();
      throw error;
    }
  }

  #startNow(spec: VaultSpec, staged: Staged): Promise<Container> {
    const { log = () => {}, trial } = this.#options;
    return startContainer(`${this.#prefix}${spec.id}`, spec, {
      cgroups: this.#cgroups!,
      staged: this.#filtered ? staged : { ...staged, seccomp_profile: undefined, gate_outside: true },
      files_dir: join(this.#files_dir, spec.id),
      lxc_dir: LXC_DIR,
      apparmor: appArmorProfile(),
      gates: this.#gates,
      launcher: this.#launcher,
      log,
      trial,
    });
  }

  #stage(runtime: Runtime): Promise<Staged> {
    const { stage_dir = STAGE_DIR, guest_file } = this.#options;
    const staging =
      this.#staged.get(runtime) ??
      (runtime === 'python' ? stagePython(stage_dir, this.#options.python) : stageRuntime(stage_dir, guest_file)).then(
        (staged) => this.#view(staged),
      );
    this.#staged.set(runtime, staging);
    // After a failure the next start may find its cause removed.
    staging.catch(() => this.#staged.delete(runtime));
    return staging;
  }

  /** A vault sees where its root lies on the host only where that cannot be hidden. */
  async #view(staged: Staged): Promise<Staged> {
    if (this.#closed) throw new VaultFailed({ driver: 'lxc', reason: 'the driver is closed' });
    const making = viewOf(staged.rootfs);
    this.#views.add(making);
    try {
      return { ...staged, rootfs: (await making).path };
    } catch (error) {
      this.#options.log?.(`vaults can read where their root lies on this machine: ${(error as Error).message}`);
      return staged;
    }
  }

  async sweep(): Promise<number> {
    if (obstacle() !== undefined) return 0;
    this.#cgroups ??= new Cgroups();
    const claims = listClaims(this.#prefix);
    // Another process with this node id that lives (or this driver itself) keeps its vaults.
    const kept = new Set(claims.filter((claim) => claim.alive).map((claim) => claim.container));
    const dead = new Set(claims.filter((claim) => !claim.alive).map((claim) => claim.container));
    for (const container of this.#cgroups.containers(this.#prefix)) if (!kept.has(container)) dead.add(container);
    for (const name of list(LXC_DIR)) if (name.startsWith(this.#prefix) && !kept.has(name)) dead.add(name);
    for (const name of list(this.#files_dir)) {
      if (!kept.has(`${this.#prefix}${name}`)) dead.add(`${this.#prefix}${name}`);
    }
    await endDead(dead, claims, this.#cgroups, (container) => this.#forget(container), this.#options.log);
    await sweepStage(this.#options.stage_dir ?? STAGE_DIR);
    return dead.size + (await sweepViews());
  }

  /** Removes the files of one of which nothing runs. */
  #forget(container: string): void {
    rmSync(join(this.#files_dir, container.slice(this.#prefix.length)), { recursive: true, force: true });
    rmSync(join(LXC_DIR, container), { recursive: true, force: true });
    for (const label of list(labelsDir())) if (label.startsWith(`${container}=`)) rmSync(join(labelsDir(), label));
  }

  async close(): Promise<void> {
    this.#closed = true;
    const all = await Promise.allSettled(this.#vaults.values());
    await Promise.all(all.map((one) => one.status === 'fulfilled' && one.value.kill('the driver was closed')));
    await this.#launcher.close();
    const views = await Promise.allSettled(this.#views);
    await Promise.all(views.map((one) => one.status === 'fulfilled' && one.value.close()));
    await this.#reaper?.dismiss();
  }
}
