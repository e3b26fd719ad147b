/**
 * The process driver: every vault is a Node process under Node's permission model, in bubblewrap: namespaces of its own,
 * a read-only root with nothing of the host in it, no capabilities, an allowlist of system calls. It needs no root. Where
 * there is no bubblewrap (or a trial shows that it does not work) only the permission model is left: then the driver's
 * level is `none`, it says that it is for trusted code, and nothing chooses it by itself.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type IsolationLevel, type Runtime, VaultFailed } from '@hauki/protocol';
import type { Driver, Offer, Pooling, Vault, VaultSpec } from '../../driver.ts';
import { Gates } from '../../gates/gates.ts';
import { list } from '../files.ts';
import { Cgroups } from '../lxc/cgroups.ts';
import { type Claim, claimIds, listClaims } from '../lxc/idmap.ts';
import { STAGE_DIR } from '../lxc/limits.ts';
import { reapContainers } from '../lxc/reaper.ts';
import { stageRuntime, sweepStage } from '../lxc/staging.ts';
import { containedPythonObstacle, type PythonSet, pythonObstacle, stagePython } from '../lxc/staging-python.ts';
import { endDead } from '../lxc/sweep.ts';
import type { Reaper } from '../reaper.ts';
import { twice } from '../trial.ts';
import type { Trial } from './command.ts';
import { arch, obstacle } from './probe.ts';
import { type Powers, type Sandbox, startSandbox } from './sandbox.ts';
import { compilePolicy } from './seccomp.ts';

export interface ProcessOptions {
  /** `[A-Za-z0-9_-]{1,40}`; part of every vault's name. */
  node_id: string;
  data_dir: string;
  /** One bundled ES module, run with fd 3 = the listening socket and fd 4 = the control channel. */
  guest_file: string;
  /** Where read-only roots are staged. */
  stage_dir?: string;
  /** Whoever starts it is in a sandbox itself, as kernels of a swarm are: its vaults are contained by that. */
  contained?: boolean;
  /** Does without bubblewrap, as on a machine that has none. */
  without_sandbox?: boolean;
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
/** What the names of a vault's cgroups begin with. */
const KIND = 'hauki.vault.';
const IS_ROOT = process.getuid?.() === 0;

const HELD =
  'A Node process under its permission model, in bubblewrap: namespaces of its own, no network, no capabilities, an allowlist of system calls; a Python worker has all of this but the permission model, and no socket at all; it shares the kernel, so it does not stop an exploit of the kernel itself.';
const CONTAINED =
  'Child processes in the sandbox of whoever starts them: contained from the host, not from each other, nor their starter from them.';
const CONTAINED_NOTE = 'contained by its sandbox alone';
/** Behind the reason why. */
const OUTSIDE_NOTE = 'then start the swarm anew, or use a kernel outside: hauki kernel --join';
const NOT_HELD =
  'FOR TRUSTED CODE ONLY: a Node process under its permission model and nothing else; there is no wall against code that means harm.';

export function createProcessDriver(options: ProcessOptions): Driver {
  return new ProcessDriver(options);
}

class ProcessDriver implements Driver {
  readonly name = 'process';
  readonly #options: ProcessOptions;
  readonly #files_dir: string;
  readonly #prefix: string;
  readonly #vaults = new Map<string, Promise<Sandbox>>();
  /** Why there is no sandbox, once it is known. */
  #unsandboxed: string | undefined;
  readonly #cgroups = new Cgroups([KIND]);
  /** Whether they can be made and limited here, once that was tried. */
  #limiting: boolean | undefined;
  readonly #sandboxes = new Map<Runtime, Promise<NonNullable<Powers['sandbox']>>>();
  readonly #gates: Gates;
  #reaper: Reaper | undefined;
  #closed = false;
  #probes = 0;

  constructor(options: ProcessOptions) {
    if (!NODE_ID.test(options.node_id))
      throw new Error(`node id ${JSON.stringify(options.node_id)} must match ${NODE_ID}`);
    this.#options = options;
    this.#gates = options.gates ?? new Gates();
    this.#files_dir = join(options.data_dir, 'process');
    // A dot is in neither kind of id, so no node's prefix begins another's; lxc's begin with "hauki.".
    this.#prefix = `hauki-p.${options.node_id}.`;
    this.#unsandboxed = options.without_sandbox ? 'it was asked to do without' : obstacle();
  }

  get level(): IsolationLevel {
    return this.#unsandboxed === undefined ? 'process' : 'none';
  }

  get isolation(): string {
    if (this.#unsandboxed === undefined) return HELD;
    return this.#options.contained ? CONTAINED : `${NOT_HELD} Why: ${this.#unsandboxed}.`;
  }

  async probe(): Promise<Offer> {
    if (!this.#options.without_sandbox) this.#unsandboxed = obstacle();
    const began = performance.now();
    if (this.#unsandboxed === undefined) {
      try {
        await twice(() => this.#trial());
        const notes = ['bubblewrap', `trial ${Math.round(performance.now() - began)} ms`];
        if (!this.#limiting) notes.push('no cgroup can be written: memory is watched by the agent, CPU is not limited');
        const no_python = await pythonObstacle(this.#options.python);
        if (no_python !== undefined) notes.push(`no Python: ${no_python}`);
        const runtimes: Runtime[] = no_python === undefined ? ['node', 'python'] : ['node'];
        return { available: true, note: notes.join(', '), runtimes };
      } catch (error) {
        this.#unsandboxed = `a trial vault did not start: ${(error as Error).message}`;
        this.#options.log?.('no trial vault could be started in bubblewrap', { failure: this.#unsandboxed });
      }
    }
    try {
      await twice(() => this.#trial());
      if (!this.#options.contained) return { available: true, note: `for trusted code only: ${this.#unsandboxed}` };
      const no_python = await containedPythonObstacle();
      if (no_python === undefined) return { available: true, note: CONTAINED_NOTE, runtimes: ['node', 'python'] };
      return { available: true, note: `${CONTAINED_NOTE}; no Python: ${no_python}; ${OUTSIDE_NOTE}` };
    } catch (error) {
      return { available: false, reason: (error as Error).message };
    }
  }

  /** Starts and ends a vault: it is held to be able only when the kernel shows it confined and limited. */
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
    const failed = (reason: string) => new VaultFailed({ driver: 'process', reason });
    if (this.#closed) throw failed('the driver is closed');
    if (spec.runtime === 'python' && this.#unsandboxed !== undefined && !this.#options.contained)
      throw failed('Python workers run in bubblewrap only, which is not there');
    if (!VAULT_ID.test(spec.id)) throw failed(`bad vault id ${JSON.stringify(spec.id)}`);
    if (this.#vaults.has(spec.id)) throw failed(`vault ${spec.id} is already there`);
    const starting = this.#start(spec);
    this.#vaults.set(spec.id, starting);
    try {
      const vault = await starting;
      void vault.exited.then(() => this.#vaults.delete(vault.id));
      // Closed meanwhile: `close` waits for it too, but its caller must not get a dying vault.
      if (this.#closed) {
        await vault.kill('the driver is closed');
        throw failed('the driver is closed');
      }
      return vault;
    } catch (error) {
      this.#vaults.delete(spec.id);
      if (error instanceof VaultFailed) throw error;
      throw failed((error as Error).message);
    }
  }

  /** V8's heap is as large as the memory it was started with, so memory is of the kind; the CPU's share is not. */
  readonly pooling: Pooling = {
    kind: ({ listen_host, memory_mib, runtime, volume }) =>
      volume ? undefined : JSON.stringify([listen_host, memory_mib, runtime ?? 'node']),
    assign: async (vault, spec) => {
      const failed = (reason: string) => new VaultFailed({ driver: 'process', reason });
      const sandbox = await this.#vaults.get(vault.id);
      if (sandbox === undefined || sandbox !== vault) throw failed('the vault that was ready has ended');
      if (!VAULT_ID.test(spec.id) || this.#vaults.has(spec.id)) {
        await vault.kill('it could not be handed out');
        throw failed(`vault ${spec.id} is already there`);
      }
      this.#vaults.set(spec.id, Promise.resolve(sandbox));
      this.#vaults.delete(vault.id);
      try {
        await sandbox.assign(spec);
      } catch (error) {
        this.#vaults.delete(spec.id);
        throw error;
      }
    },
  };

  async #start(spec: VaultSpec): Promise<Sandbox> {
    const { guest_file, log = () => {}, trial } = this.#options;
    let sandbox: Powers['sandbox'];
    if (this.#unsandboxed === undefined) {
      const { runtime = 'node' } = spec;
      // Before anything is made that it would have to clear.
      if (IS_ROOT)
        this.#reaper ??= reapContainers({
          ...{ prefix: this.#prefix, lxc_dir: this.#files_dir, files_dir: this.#files_dir },
          ...{ stage_dir: this.#stage_dir, kind: KIND },
        });
      this.#limiting ??= canLimit(this.#cgroups, `${this.#prefix}trial-${process.pid}`);
      const staging = this.#sandboxes.get(runtime) ?? this.#stage(runtime);
      this.#sandboxes.set(runtime, staging);
      sandbox = await staging.catch((error: unknown) => {
        // The next start may find the cause removed.
        this.#sandboxes.delete(runtime);
        throw error;
      });
    }
    return startSandbox(`${this.#prefix}${spec.id}`, spec, {
      // Without bubblewrap there is no joining of cgroups before the guest runs, and no claim to protect.
      cgroups: sandbox && this.#limiting ? this.#cgroups : undefined,
      sandbox,
      guest_file,
      gates: this.#gates,
      files_dir: join(this.#files_dir, spec.id),
      log,
      trial,
    });
  }

  get #stage_dir(): string {
    return this.#options.stage_dir ?? (IS_ROOT ? STAGE_DIR : userStage());
  }

  /** The root that vaults share, and the filter of system calls, compiled from lxc's policy. */
  async #stage(runtime: Runtime): Promise<NonNullable<Powers['sandbox']>> {
    const stage_dir = this.#stage_dir;
    const staged =
      runtime === 'python'
        ? await stagePython(stage_dir, this.#options.python)
        : await stageRuntime(stage_dir, this.#options.guest_file);
    mkdirSync(this.#files_dir, { recursive: true, mode: 0o700 });
    const filter_file = join(this.#files_dir, `.filter-${runtime}`);
    writeFileSync(filter_file, compilePolicy(readFileSync(staged.seccomp_profile, 'utf8'), arch()!), { mode: 0o600 });
    const { rootfs, init, gate_outside = false } = staged;
    return { rootfs, filter_file, gate_outside, ...(init === undefined ? {} : { init: init.split(' ') }) };
  }

  async sweep(): Promise<number> {
    const claims = listClaims(this.#prefix);
    // Another process with this node id that lives (or this driver itself) keeps its vaults.
    const kept = new Set(claims.filter((claim) => claim.alive).map((claim) => claim.container));
    for (const id of this.#vaults.keys()) kept.add(`${this.#prefix}${id}`);
    const dead = new Set(claims.filter((claim) => !claim.alive).map((claim) => claim.container));
    for (const name of this.#cgroups.containers(this.#prefix)) if (!kept.has(name)) dead.add(name);
    for (const id of list(this.#files_dir)) {
      const name = `${this.#prefix}${id}`;
      if (VAULT_ID.test(id) && !kept.has(name)) dead.add(name);
    }
    const forget = (name: string) =>
      rmSync(join(this.#files_dir, name.slice(this.#prefix.length)), { recursive: true, force: true });
    await endDead(dead, claims, this.#cgroups, forget, this.#options.log);
    await sweepStage(this.#stage_dir);
    return dead.size;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const all = await Promise.allSettled(this.#vaults.values());
    await Promise.all(all.map((one) => one.status === 'fulfilled' && one.value.kill('the driver was closed')));
    await this.#reaper?.dismiss();
  }
}

/** Whether this machine's cgroups can be made and limited; what cannot be told by looking is tried. */
function canLimit(cgroups: Cgroups, trial_name: string): boolean {
  let claim: Claim | undefined;
  try {
    const limits = cgroups.limits(PROBE_MEMORY_MIB);
    // As every vault's: whoever clears after a killed agent knows by its claim what to look for.
    if (IS_ROOT) claim = claimIds(trial_name);
    cgroups.create(trial_name, limits);
    return cgroups.mismatches(trial_name, limits).length === 0;
  } catch {
    return false;
  } finally {
    cgroups.remove(trial_name);
    claim?.release();
  }
}

/** Where an ordinary user's vaults have their root staged. */
function userStage(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'hauki', 'runtime');
}
