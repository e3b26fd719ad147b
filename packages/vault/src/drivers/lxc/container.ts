/**
 * One running container: started, watched, ended.
 *
 * Holds always: `startContainer` returns only when the guest executes and the kernel shows every limit as asked; it
 * throws `VaultFailed` otherwise and leaves nothing. However the container ends (by `kill`, by itself, by somebody's
 * SIGKILL of its monitor), its processes are gone, its cgroups, files and id range released, before `exited` settles.
 * The chain of death is agent → lxc-start (setpriv's parent-death signal) → guest (LXC's); the guest also ends by
 * itself when fd 4 closes.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import type { Server, Socket } from 'node:net';
import { basename, join } from 'node:path';
import type { Duplex, Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { BadInput, VaultFailed } from '@hauki/protocol';
import { streamTransport } from '@hauki/rpc/node';
import type { Vault, VaultExit, VaultSpec } from '../../driver.ts';
import type { Gate, Gates } from '../../gates/gates.ts';
import { read } from '../files.ts';
import type { Cgroups, Limit } from './cgroups.ts';
import { type AppArmor, renderConfig, type Trial } from './config.ts';
import { confinement, executes } from './confinement.ts';
import { explainExit } from './exit.ts';
import { type Claim, claimIds } from './idmap.ts';
import { type Ahead, configIn, type Launcher, listen, logIn, portOf, startLxc } from './launcher.ts';
import {
  BOOT_LOOKS,
  CPU_MIN,
  END_POLL_MS,
  END_TIMEOUT_MS,
  FREEZE_TIMEOUT_MS,
  MEMORY_MIB_MIN,
  RUN_DIR,
  SANDBOX_PIDS_MAX,
  START_FIRST_MS,
  START_POLL_MS,
  START_TIMEOUT_MS,
  START_UNLIKE_LOOKS,
} from './limits.ts';
import { drained, LogTail } from './log-tail.ts';
import type { Staged } from './staging.ts';
import { keptIn } from './use.ts';

export interface Powers {
  cgroups: Cgroups;
  /** Without a filter the gate must be outside. */
  staged: Omit<Staged, 'seccomp_profile'> & { seccomp_profile?: string | undefined };
  /** Where this container's files go; only root may enter it. */
  files_dir: string;
  /** LXC's own path, which names its command socket. */
  lxc_dir: string;
  apparmor: AppArmor;
  gates: Gates;
  /** Of the folder that `files_dir` is in. */
  launcher?: Launcher | undefined;
  log(line: string, fields?: object): void;
  /** No vault but a sandbox: nothing is handed in, and it is started by this command, which gives it its network. */
  sandbox?: { mounts: readonly string[]; environment: readonly string[]; starter: readonly string[] } | undefined;
  trial?: Trial | undefined;
}

/** A guest that ends by itself closes its channel a moment before its process is gone. */
const GATE_GRACE_MS = 300;

/** Starts the container `name` for `spec`. */
export async function startContainer(name: string, spec: VaultSpec, powers: Powers): Promise<Container> {
  if (spec.memory_mib < MEMORY_MIB_MIN) {
    throw failed(`${spec.memory_mib} MiB are too little for Node; ask for at least ${MEMORY_MIB_MIN}`);
  }
  const { cgroups } = powers;
  cgroups.hasten();
  if (cgroups.folders(name).length > 0) throw failed(`cgroups of an earlier ${name} are still there; sweep first`);
  const limits = limitsOf(cgroups, spec, powers.sandbox && SANDBOX_PIDS_MAX);
  const { gate_outside = false } = powers.staged;
  const within = !gate_outside && !powers.sandbox;
  const ahead = within ? powers.launcher?.take(spec.listen_host) : undefined;
  const server = within && !ahead ? await listenOn(spec.listen_host) : undefined;
  const container = new Container(name, spec, ahead?.port ?? (server ? portOf(server) : 0), powers);
  try {
    container.spawn(ahead ?? server, limits);
  } catch (error) {
    ahead?.drop();
    await container.discard();
    throw failed(`lxc-start could not be run: ${(error as Error).message}`);
  } finally {
    // From here on the vault alone accepts on this socket.
    server?.close();
  }
  if (gate_outside && !powers.sandbox) await container.openGate();
  await container.verify(limits);
  return container;
}

/** The limits of a vault in the words of this machine. Throws where they cannot be. */
function limitsOf(cgroups: Cgroups, { memory_mib, cpu = 1 }: VaultSpec, pids?: number): Limit[] {
  if (!(cpu >= CPU_MIN)) throw failed(`a share of ${cpu} of a core is too little; ask for at least ${CPU_MIN}`);
  return cgroups.limits(memory_mib, cpu, pids);
}

export class Container implements Vault {
  /** Changes once, when a vault of the pool is handed out. */
  id: string;
  port: number;
  readonly exited: Promise<VaultExit>;
  pid = 0;
  control!: Vault['control'];
  readonly #name: string;
  #spec: VaultSpec;
  readonly #powers: Powers;
  readonly #tail = new LogTail();
  /** Says whose vault it is, where the container's name does not. */
  #label: string | undefined;
  /** LXC's own log: how the guest ended stands only here, since lxc-start exits with 0 or 1. */
  readonly #lxc_log: string;
  #child: ChildProcess | undefined;
  #claim: Claim | undefined;
  #gate: Gate | undefined;
  #misbehaved: string | undefined;
  #kill_reason: string | undefined;
  #started = false;
  #ended = false;
  #refusal: string | undefined;
  /** What it used when it was last looked at. */
  #used: { cpu_ms: number; memory_bytes: number } | undefined;
  #settle!: (exit: VaultExit) => void;

  constructor(name: string, spec: VaultSpec, port: number, powers: Powers) {
    this.id = spec.id;
    this.port = port;
    this.#name = name;
    this.#spec = spec;
    this.#powers = powers;
    this.#lxc_log = logIn(powers.files_dir);
    this.exited = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  /** `from`: what was forked ahead, or the socket to listen on, where there is one inside. */
  spawn(from: Ahead | Server | undefined, limits: Limit[]): void {
    const { cgroups, staged, files_dir, lxc_dir, apparmor, sandbox, trial } = this.#powers;
    this.#claim = claimIds(this.#name);
    mkdirSync(files_dir, { recursive: true, mode: 0o700 });
    writeFileSync(
      configIn(files_dir),
      renderConfig({
        name: this.#name,
        ...staged,
        ids: this.#claim,
        memory_mib: this.#spec.memory_mib,
        volume: this.#spec.volume,
        limits,
        devices_version: cgroups.devicesVersion,
        keep: { from: cgroups.keeps(this.#name), to: files_dir },
        apparmor,
        sandbox,
        trial,
      }),
      { mode: 0o600 },
    );
    const child =
      from && 'launch' in from
        ? from.launch(this.#name, basename(files_dir))
        : startLxc({ name: this.#name, lxc_dir, files_dir, starter: sandbox?.starter }, from);
    this.#child = child;
    child.on('exit', (code, signal) => void this.#end(code, signal));
    this.#tail.follow(child.stdout as Readable);
    this.#tail.follow(child.stderr as Readable);
    if (from) this.control = streamTransport(child.stdio[4] as Duplex);
  }

  /** For a guest without a listening socket: its end of fd 4 goes to the gate host. */
  async openGate(): Promise<void> {
    const { gates } = this.#powers;
    try {
      this.#gate = await gates.open(this.#name, this.#spec.listen_host, this.#child!.stdio[4] as Socket);
    } catch (error) {
      // A guest that ended by itself tells why in `verify`.
      if (!this.#ended) await this.#refuse(`its gate was not opened: ${(error as Error).message}`);
      return;
    }
    this.port = this.#gate.port;
    this.control = this.#gate.control;
    void this.#gate.gone.then(async ({ cause, reason }) => {
      if (this.#ended) return;
      if (cause === 'misbehaved') this.#misbehaved ??= reason;
      else await Promise.race([this.exited, sleep(GATE_GRACE_MS, undefined, { ref: false })]);
      this.#kill_reason ??= this.#ended ? undefined : `its gate is gone: ${reason}`;
      this.#strike();
    });
  }

  #unconfined(pid: number): string[] {
    const { staged, trial } = this.#powers;
    return confinement(pid, staged.seccomp_profile === undefined || trial?.without_seccomp === true);
  }

  /** Waits until the guest executes within its limits. Throws, and leaves nothing, when it does not. */
  async verify(limits: Limit[]): Promise<void> {
    const { cgroups } = this.#powers;
    const until = performance.now() + START_TIMEOUT_MS;
    let pause_ms = START_FIRST_MS;
    let unlike = 0;
    while (!this.#ended) {
      await sleep(pause_ms);
      pause_ms = START_POLL_MS;
      const pid = cgroups.payloadPids(this.#name)[0];
      if (pid !== undefined && executes(pid)) {
        this.pid = pid;
        const wrong = [...cgroups.mismatches(this.#name, limits), ...this.#unconfined(pid)];
        if (wrong.length === 0) {
          this.#started = true;
          return;
        }
        // A process that is dying already is no refusal: its end tells why.
        if (executes(pid) && ++unlike >= START_UNLIKE_LOOKS)
          return this.#refuse(`the kernel does not hold the vault as asked (${wrong.join('; ')})`);
      }
      if (performance.now() > until) return this.#refuse(`it did not start within ${START_TIMEOUT_MS} ms`);
    }
    const exit = await this.exited;
    throw failed(this.#refusal ?? exit.reason, exit.log_tail);
  }

  /** Resolves when the guest has said its first word, which takes most of a start, or has had the time for it. */
  async spoke(): Promise<void> {
    const link = this.#gate || this.#powers.sandbox ? undefined : (this.#child?.stdio[4] as Socket | undefined);
    for (let look = 0; link?.bytesRead === 0 && !this.#ended && look < BOOT_LOOKS; look++)
      await sleep(START_POLL_MS, undefined, { ref: false });
  }

  /**
   * A vault that was started ahead becomes that of `spec`. Its limits are written and read back like those of a new one.
   * Throws `VaultFailed`, and leaves nothing, when it is not as asked.
   */
  async assign(spec: VaultSpec): Promise<void> {
    const { cgroups } = this.#powers;
    const before = this.#spec;
    this.#spec = spec;
    let wrong: string[];
    try {
      const limits = limitsOf(cgroups, spec);
      // The container keeps its name; this one leads from the vault's to it.
      this.#label = join(labelsDir(), `${this.#name}=${spec.id}`);
      mkdirSync(labelsDir(), { recursive: true, mode: 0o755 });
      writeFileSync(this.#label, '');
      cgroups.write(this.#name, limits);
      wrong = [...cgroups.mismatches(this.#name, limits), ...this.#unconfined(this.pid)];
    } catch (error) {
      wrong = [(error as Error).message];
    }
    if (this.#ended || !executes(this.pid)) {
      this.#spec = before;
      throw failed(`the vault that was ready has ended: ${(await this.exited).reason}`);
    }
    if (wrong.length > 0) await this.#refuse(`the kernel does not hold the vault as asked (${wrong.join('; ')})`);
    this.id = spec.id;
    this.#powers.log(`vault ${spec.id} is container ${this.#name}, which was ready`);
  }

  /** Resolves when the kernel shows every process of it standing. */
  async pause(): Promise<void> {
    const { cgroups } = this.#powers;
    if (!cgroups.freeze(this.#name, true)) throw new BadInput({ what: 'pause', why: 'this machine has no freezer' });
    const until = performance.now() + FREEZE_TIMEOUT_MS;
    while (!cgroups.isFrozen(this.#name) && !this.#ended) {
      if (performance.now() > until) {
        cgroups.freeze(this.#name, false);
        throw failed(`it could not be stopped within ${FREEZE_TIMEOUT_MS} ms`);
      }
      await sleep(END_POLL_MS);
    }
  }

  async resume(): Promise<void> {
    this.#powers.cgroups.freeze(this.#name, false);
  }

  async usage() {
    this.#used = this.#powers.cgroups.usage(this.#name) ?? this.#used;
    if (!this.#used) throw failed('its cgroups are gone');
    return this.#used;
  }

  async kill(reason: string): Promise<void> {
    this.#kill_reason ??= reason;
    this.#used = this.#powers.cgroups.usage(this.#name) ?? this.#used;
    this.#strike();
    await this.exited;
  }

  /** Releases what was taken before any process ran. */
  async discard(): Promise<void> {
    if (this.#child?.pid !== undefined) return this.kill('could not be started');
    this.#release();
  }

  async #refuse(reason: string): Promise<never> {
    this.#refusal = reason;
    await this.kill(reason);
    throw failed(reason, this.#tail.text());
  }

  #strike(): void {
    this.#powers.cgroups.kill(this.#name);
    this.#child?.kill('SIGKILL');
  }

  /** The monitor has ended: whatever it left is ended and removed, then the fate is told. */
  async #end(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    const { cgroups } = this.#powers;
    const kept = keptIn(this.#powers.files_dir);
    const oom_text = kept.oom_text ?? read(cgroups.oomFile(this.#name) ?? '');
    const lxc_log = read(this.#lxc_log) ?? '';
    const until = performance.now() + END_TIMEOUT_MS;
    for (;;) {
      cgroups.kill(this.#name);
      if (cgroups.remove(this.#name)) break;
      if (performance.now() > until) {
        this.#powers.log(`cgroups of vault ${this.id} could not be removed; the next sweep tries again`, {
          folders: cgroups.folders(this.#name),
        });
        break;
      }
      await sleep(END_POLL_MS);
    }
    this.control?.close('the vault ended');
    this.#gate?.close('the vault ended');
    await this.#gate?.gone;
    // What was written last is still in the pipes.
    await drained(this.#child);
    this.#release();
    // Of one that ended by itself, all that it used up to then.
    const used = this.#kill_reason === undefined ? (kept.usage ?? this.#used) : (this.#used ?? kept.usage);
    this.#settle({
      ...explainExit({
        code,
        signal,
        kill_reason: this.#kill_reason,
        misbehaved: this.#misbehaved,
        started: this.#started,
        oom_text,
        lxc_log,
        memory_mib: this.#spec.memory_mib,
        log_tail: this.#tail.text(),
      }),
      ...(used ? { usage: used } : {}),
    });
  }

  #release(): void {
    rmSync(this.#powers.files_dir, { recursive: true, force: true });
    // LXC may keep a folder of the container's name there: a generated AppArmor profile.
    rmSync(join(this.#powers.lxc_dir, this.#name), { recursive: true, force: true });
    if (this.#label) rmSync(this.#label, { force: true });
    this.#claim?.release();
  }
}

/** Where it is kept which container is whose vault, for those that were started before they were anybody's. */
export const labelsDir = () => join(RUN_DIR, 'vaults');

function failed(reason: string, log_tail?: string) {
  return new VaultFailed({ driver: 'lxc', reason, ...(log_tail ? { log_tail } : {}) });
}

const listenOn = (host: string): Promise<Server> =>
  listen(host).catch((error) => {
    throw failed(`no port on ${host}: ${error.message}`);
  });
