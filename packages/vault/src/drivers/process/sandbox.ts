/**
 * One running vault of the process driver: started, watched, ended.
 *
 * Holds always: `startSandbox` returns only when Node executes and the kernel shows namespaces, filter and limits as
 * asked; it throws `VaultFailed` otherwise and leaves nothing. However the vault ends, its process is gone and its
 * cgroups, id and files are released before `exited` settles. The chain of death is agent → bubblewrap's monitor →
 * Node, by parent-death signals; Node is process 1 of its pid namespace, and also ends by itself when fd 4 closes.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex, Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultFailed } from '@hauki/protocol';
import { streamTransport } from '@hauki/rpc/node';
import type { Vault, VaultExit, VaultSpec } from '../../driver.ts';
import type { Gate, Gates } from '../../gates/gates.ts';
import { boundTo, canBind } from '../bound.ts';
import { read } from '../files.ts';
import type { Cgroups, Limit } from '../lxc/cgroups.ts';
import { type Claim, claimIds } from '../lxc/idmap.ts';
import { LogTail } from '../lxc/log-tail.ts';
import { ownerOf } from '../owner.ts';
import { cpuTime_ms } from '../proc-stat.ts';
import { containedPython, SECCOMP_FD, STATUS_FD, sandboxed, type Trial, unsandboxed } from './command.ts';
import { explainExit } from './exit.ts';
import { drained, endGroup, executes, firstToGo, shares, stream } from './inspect.ts';
import { END_TIMEOUT_MS, MEMORY_MIB_MIN, POLL_MS, START_TIMEOUT_MS, WATCH_EVERY_MS } from './limits.ts';

export interface Powers {
  /** Undefined: none can be written here. */
  cgroups: Cgroups | undefined;
  /** What bubblewrap needs; undefined: there is no bubblewrap. */
  sandbox: { rootfs: string; filter_file: string; init?: string[]; gate_outside?: boolean } | undefined;
  gates: Gates;
  guest_file: string;
  /** This vault's own folder; made only where there is no bubblewrap. */
  files_dir: string;
  log(line: string, fields?: object): void;
  trial?: Trial | undefined;
}

const NAMESPACES = ['user', 'pid', 'net', 'ipc', 'uts', 'mnt', 'cgroup'];
/** A guest that ends by itself closes its channel a moment before its process is gone. */
const GATE_GRACE_MS = 300;
const IS_ROOT = process.getuid?.() === 0;

export async function startSandbox(name: string, spec: VaultSpec, powers: Powers): Promise<Sandbox> {
  if (spec.memory_mib < MEMORY_MIB_MIN)
    throw failed(`${spec.memory_mib} MiB are too little for Node; ask for at least ${MEMORY_MIB_MIN}`);
  if (powers.cgroups && powers.cgroups.folders(name).length > 0)
    throw failed(`cgroups of an earlier ${name} are still there; sweep first`);
  // Python's gate is outside, also where nothing but somebody's sandbox holds it.
  const gate_outside = powers.sandbox ? powers.sandbox.gate_outside : spec.runtime === 'python';
  const server = gate_outside ? undefined : await listen(spec.listen_host);
  const { port } = (server?.address() ?? { port: 0 }) as { port: number };
  const sandbox = new Sandbox(name, spec, port, powers);
  try {
    sandbox.spawn(server);
  } catch (error) {
    await sandbox.kill('could not be started');
    throw failed(`it could not be started: ${(error as Error).message}`);
  } finally {
    // From here on the vault alone accepts on this socket.
    server?.close();
  }
  if (!server) await sandbox.openGate();
  await sandbox.verify();
  return sandbox;
}

export class Sandbox implements Vault {
  /** Changes once, when a vault of the pool is handed out; its name stays. */
  id: string;
  port: number;
  readonly exited: Promise<VaultExit>;
  pid = 0;
  control!: Vault['control'];
  readonly #name: string;
  #spec: VaultSpec;
  readonly #powers: Powers;
  readonly #tail = new LogTail();
  #limits: Limit[] = [];
  #child: ChildProcess | undefined;
  #claim: Claim | undefined;
  /** It leads a group of processes of its own. */
  #group = false;
  #gate: Gate | undefined;
  #misbehaved: string | undefined;
  /** Pid and start time, so that no other process is ever killed in its place. */
  #identity: string | undefined;
  #guest_code: number | undefined;
  /** What it used when it was last looked at. */
  #used: { cpu_ms: number; memory_bytes: number } | undefined;
  #kill_reason: string | undefined;
  #refusal: string | undefined;
  #watch: NodeJS.Timeout | undefined;
  #overran = false;
  #started = false;
  #ended = false;
  #settle!: (exit: VaultExit) => void;

  constructor(name: string, spec: VaultSpec, port: number, powers: Powers) {
    this.id = spec.id;
    this.port = port;
    this.#name = name;
    this.#spec = spec;
    this.#powers = powers;
    this.exited = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  spawn(server: Server | undefined): void {
    const { cgroups, sandbox, guest_file, files_dir, trial } = this.#powers;
    const { memory_mib, cpu, volume, runtime } = this.#spec;
    this.#limits = cgroups?.limits(memory_mib, cpu) ?? [];
    // First of all: by its claim the reaper of a killed agent knows what to look for.
    if (sandbox && IS_ROOT) this.#claim = claimIds(this.#name);
    const folders = cgroups?.create(this.#name, this.#limits) ?? [];
    const listener = server ? (server as unknown as { _handle: { fd: number } })._handle.fd : 'ignore';
    const stdio: ('ignore' | 'pipe' | number)[] = ['ignore', 'pipe', 'pipe', listener, 'pipe'];
    let command: string[];
    let filter: number | undefined;
    const env: Record<string, string> = {};
    let cwd = '/';
    if (sandbox) {
      const { rootfs, filter_file, init } = sandbox;
      command = sandboxed({
        name: this.#name,
        memory_mib,
        agent: process.pid,
        cgroups: folders,
        uid: this.#claim?.base,
        rootfs,
        init,
        volume,
        trial,
      });
      filter = openSync(filter_file, 'r');
      stdio[SECCOMP_FD] = filter;
      stdio[STATUS_FD] = 'pipe';
    } else {
      const folder = join(files_dir, 'tmp');
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      env.TMPDIR = folder;
      if (volume) env.HOME = volume.path;
      cwd = volume?.path ?? folder;
      const shape = { name: this.#name, memory_mib, guest: guest_file, folder, volume: volume?.path };
      command = runtime === 'python' ? containedPython(this.#name) : unsandboxed(shape);
      // One that computes does not notice that its channel has ended.
      if (canBind()) command.unshift(...boundTo(process.pid));
    }
    try {
      // What holds no processes back may leave some: they end with its group.
      this.#group = !sandbox && runtime === 'python';
      // Away from the agent's group: it ends vaults itself, at a Ctrl-C too, when it has heard what they last have to say.
      const child = spawn(command[0]!, command.slice(1), { stdio, env, cwd, detached: true });
      this.#child = child;
      child.on('error', () => {});
      child.on('exit', (code, signal) => void this.#end(code, signal));
      if (child.pid === undefined) throw new Error(`${command[0]} cannot be executed`);
      this.#tail.follow(child.stdout as Readable);
      this.#tail.follow(child.stderr as Readable);
      if (server) this.control = streamTransport(child.stdio[4] as Duplex);
      if (sandbox) this.#hearStatus(stream(child, STATUS_FD));
      else {
        this.#identify(child.pid);
        firstToGo(child.pid);
      }
    } finally {
      if (filter !== undefined) closeSync(filter);
    }
  }

  /** For a guest without a listening socket: its end of fd 4 goes to the gate host. */
  async openGate(): Promise<void> {
    try {
      this.#gate = await this.#powers.gates.open(this.#name, this.#spec.listen_host, this.#child!.stdio[4] as Socket);
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

  /** bubblewrap tells Node's pid at the start, and its exit code at the end. */
  #hearStatus(status: Readable): void {
    let text = '';
    status.on('error', () => {});
    status.on('data', (chunk: Buffer) => {
      text = (text + chunk.toString()).slice(-1024);
      const pid = /"child-pid": (\d+)/.exec(text)?.[1];
      if (pid !== undefined && this.pid === 0) this.#identify(Number(pid));
      const code = /"exit-code": (\d+)/.exec(text)?.[1];
      if (code !== undefined) this.#guest_code = Number(code);
    });
  }

  #identify(pid: number): void {
    this.pid = pid;
    this.#identity = ownerOf(pid);
  }

  /** Waits until Node executes in its confinement. Throws, and leaves nothing, when it does not. */
  async verify(): Promise<void> {
    const until = performance.now() + START_TIMEOUT_MS;
    while (!this.#ended) {
      if (this.pid !== 0 && executes(this.pid)) {
        const wrong = this.#wrong();
        if (wrong.length === 0) return this.#begin();
        // A process that is dying already is no refusal: its end tells why.
        if (executes(this.pid))
          return this.#refuse(`the kernel does not hold the vault as asked (${wrong.join('; ')})`);
      }
      if (performance.now() > until) return this.#refuse(`it did not start within ${START_TIMEOUT_MS} ms`);
      await sleep(POLL_MS);
    }
    const exit = await this.exited;
    throw failed(this.#refusal ?? exit.reason, exit.log_tail);
  }

  /** What differs from the confinement every vault has, as the kernel tells it. */
  #wrong(): string[] {
    const { sandbox, cgroups, trial } = this.#powers;
    if (!sandbox) return cgroups?.mismatches(this.#name, this.#limits) ?? [];
    const status = read(`/proc/${this.pid}/status`) ?? '';
    const wanted: [string, RegExp][] = [
      ['no capabilities', /^CapEff:\s*0+$/m],
      ['no bounding set', /^CapBnd:\s*0+$/m],
      ['NoNewPrivs 1', /^NoNewPrivs:\s*1$/m],
      ...(trial?.without_seccomp ? [] : ([['Seccomp 2', /^Seccomp:\s*2$/m]] as [string, RegExp][])),
      ...(this.#claim
        ? ([['an id of its own', new RegExp(`^Uid:\\s*${this.#claim.base}\\s`, 'm')]] as [string, RegExp][])
        : []),
    ];
    const shared = NAMESPACES.filter(
      (kind) => !trial?.without?.some((option) => option === `--unshare-${kind}`) && shares(this.pid, kind),
    );
    return [
      ...(cgroups?.mismatches(this.#name, this.#limits) ?? []),
      ...wanted.filter(([, pattern]) => !pattern.test(status)).map(([what]) => `${what}: no`),
      ...shared.map((kind) => `a ${kind} namespace of its own: no`),
    ];
  }

  /**
   * A vault that was started ahead becomes that of `spec`. Its limits are written and read back like those of a new one.
   * Throws `VaultFailed`, and leaves nothing, when it is not as asked.
   */
  async assign(spec: VaultSpec): Promise<void> {
    const { cgroups } = this.#powers;
    let wrong: string[];
    try {
      this.#limits = cgroups?.limits(spec.memory_mib, spec.cpu) ?? [];
      cgroups?.write(this.#name, this.#limits);
      wrong = this.#wrong();
    } catch (error) {
      wrong = [(error as Error).message];
    }
    if (this.#ended || !executes(this.pid))
      throw failed(`the vault that was ready has ended: ${(await this.exited).reason}`);
    if (wrong.length > 0) await this.#refuse(`the kernel does not hold the vault as asked (${wrong.join('; ')})`);
    this.#spec = spec;
    this.id = spec.id;
    this.#powers.log(`vault ${spec.id} is process ${this.#name}, which was ready`);
  }

  #begin(): void {
    this.#started = true;
    if (this.#powers.cgroups || process.platform !== 'linux') return;
    this.#watch = setInterval(() => {
      void this.usage();
      if (this.#memory() <= this.#spec.memory_mib * 1024 * 1024) return;
      this.#overran = true;
      this.#strike();
    }, WATCH_EVERY_MS).unref();
  }

  async kill(reason: string): Promise<void> {
    this.#kill_reason ??= reason;
    if (this.#lives()) await this.usage();
    if (this.#child?.pid === undefined) await this.#end(null, null);
    this.#strike();
    await this.exited;
  }

  /** Stops it where it is: nothing of it runs until `resume`. */
  async pause(): Promise<void> {
    this.#signal('SIGSTOP');
  }

  async resume(): Promise<void> {
    this.#signal('SIGCONT');
  }

  async usage(): Promise<{ cpu_ms: number; memory_bytes: number }> {
    const cpu_ms = cpuTime_ms(`/proc/${this.pid}/stat`);
    if (cpu_ms !== undefined) this.#used = { cpu_ms, memory_bytes: this.#memory() };
    return this.#used ?? { cpu_ms: 0, memory_bytes: 0 };
  }

  #memory(): number {
    // Its own: the pages of Node's binary, 45 MiB, are those of all that run it.
    return Number(/^RssAnon:\s*(\d+) kB$/m.exec(read(`/proc/${this.pid}/status`) ?? '')?.[1] ?? 0) * 1024;
  }

  #signal(signal: NodeJS.Signals): void {
    if (!this.#lives()) return;
    try {
      process.kill(this.#group ? -this.pid : this.pid, signal);
    } catch {
      // Dead by now.
    }
  }

  #lives(): boolean {
    if (this.pid === 0 || this.#identity === undefined) return false;
    // Elsewhere there is no /proc, and the only process is the agent's own child.
    return process.platform === 'linux' ? ownerOf(this.pid) === this.#identity : !this.#ended;
  }

  async #refuse(reason: string): Promise<never> {
    this.#refusal = reason;
    await this.kill(reason);
    throw failed(reason, this.#tail.text());
  }

  #strike(): void {
    this.#powers.cgroups?.kill(this.#name);
    this.#signal('SIGKILL');
    this.#child?.kill('SIGKILL');
  }

  /** The agent's child has ended: whatever is left is ended and removed, then the fate is told. */
  async #end(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#watch);
    const { cgroups, log, files_dir, sandbox } = this.#powers;
    const oom_text = read(cgroups?.oomFile(this.#name) ?? '');
    // Of one that ended by itself, all that it used up to then, as far as cgroups tell.
    const left = this.#kill_reason === undefined ? cgroups?.usage(this.#name) : undefined;
    if (left) this.#used = { ...left, memory_bytes: cgroups!.mostMemory(this.#name) || left.memory_bytes };
    const until = performance.now() + END_TIMEOUT_MS;
    if (this.#group) endGroup(this.pid);
    for (;;) {
      this.#strike();
      if (!(process.platform === 'linux' && this.#lives()) && (cgroups?.remove(this.#name) ?? true)) break;
      if (performance.now() > until) {
        log(`vault ${this.id} could not be removed; the next sweep tries again`, { pid: this.pid });
        break;
      }
      await sleep(POLL_MS);
    }
    this.control?.close('the vault ended');
    this.#gate?.close('the vault ended');
    await this.#gate?.gone;
    await drained(this.#child);
    if (!sandbox) rmSync(files_dir, { recursive: true, force: true });
    this.#claim?.release();
    this.#settle({
      ...explainExit({
        ...{ code, signal, oom_text },
        guest_code: this.#guest_code,
        kill_reason: this.#kill_reason,
        misbehaved: this.#misbehaved,
        overran: this.#overran,
        started: this.#started,
        memory_mib: this.#spec.memory_mib,
        log_tail: this.#tail.text(),
      }),
      ...(this.#used ? { usage: this.#used } : {}),
    });
  }
}

function failed(reason: string, log_tail?: string) {
  return new VaultFailed({ driver: 'process', reason, ...(log_tail ? { log_tail } : {}) });
}

/** Binds an ephemeral port without ever accepting on it here. */
async function listen(host: string): Promise<Server> {
  const server = createServer((stray) => stray.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(failed(`no port on ${host}: ${error.message}`)));
    server.listen(0, host, resolve);
  });
  return server;
}
