/**
 * The node agent: it holds this node's workers and decides, alone, over their life and death.
 *
 * What always holds: a worker is in `living` exactly while its vault runs; whoever ends it, `#gone` runs once and its
 * fate is told to the core; an agent that ends leaves no vault. It knows the core only as `CoreForNode`, which may be
 * away: leases, heartbeats and direct calls go on without it.
 */
import { availableParallelism } from 'node:os';
import {
  BadInput,
  type Cause,
  ConnectionLost,
  type CoreForNode,
  cutGrants,
  describe,
  type Grants,
  isAtLeast,
  isCause,
  type Job,
  LIMITS,
  type LogPage,
  type NodeInfo,
  type NodeLoad,
  NoNodeFits,
  Overloaded,
  type Provisioned,
  type SessionInfo,
  type TicketPart,
  type Usage,
  WorkerDied,
  type WorkerInfo,
  WorkerPaused,
  WorkerUnknown,
} from '@hauki/protocol';
import { createNetwork, type Driver, type Network, type VaultExit } from '@hauki/vault';
import { CpuLoad } from './cpu-load.ts';
import { deathOr, endGently } from './ending.ts';
import { Families } from './families.ts';
import { type Forged, type Forging, forge, type Living } from './forge.ts';
import { Mint, mint } from './mint.ts';
import { Offers } from './offers.ts';
import { cleanSession, fateOf, infoOf, unbornOf } from './telling.ts';
import { Untold } from './untold.ts';
import type { Volumes } from './volumes.ts';

/** How long a worker may take to tell of its sessions. */
const SESSIONS_MS = 700;

export interface AgentOptions {
  node: string;
  labels: Record<string, string>;
  drivers: Driver[];
  listen_host: string;
  tls: boolean;
  /** What all vaults together may be promised. */
  memory_mib: number;
  volumes: Volumes;
  core: () => CoreForNode | undefined;
  keys: () => object;
  /** The machine's own where it is left out. */
  network?: Network;
  log(line: string, fields?: object): void;
}

export class Agent {
  readonly #options: AgentOptions;
  readonly #offers: Offers;
  readonly #living = new Map<string, Living>();
  readonly #forging = new Map<string, Forging>();
  readonly #network: Network;
  readonly #families = new Families();
  readonly #mint = new Mint();
  readonly untold: Untold;
  readonly #cpu = new CpuLoad();
  /** When the last one was made, or failed to be. */
  #forged_at = 0;
  #closing = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#network = options.network ?? createNetwork();
    this.#offers = new Offers(options.drivers, options.log);
    this.untold = new Untold(options.core);
  }

  get volumes(): Volumes {
    return this.#options.volumes;
  }

  /** Finds out what this machine can offer, says so, and clears what an earlier run left. */
  async start(): Promise<void> {
    const { drivers, volumes, log } = this.#options;
    const kept = volumes.probe();
    await Promise.all(
      drivers.map(async (driver) => {
        await this.#offers.probe(driver);
        const swept = await driver.sweep().catch((error) => {
          log(`sweeping after an earlier run failed: ${describe(error)}`, { driver: driver.name });
          return 0;
        });
        if (swept > 0) log(`swept ${swept} leftovers of an earlier run`, { driver: driver.name });
      }),
    );
    // Now nothing of an earlier run holds on to them.
    await kept;
    await volumes.start();
    this.#offers.keepTrying();
  }

  /** MiB that may still be promised. */
  room_mib = (): number => this.#options.memory_mib - this.#promised();

  /** For how long nobody has waited for a worker here; 0 while somebody does. */
  calm_ms = (): number => (this.#forging.size > 0 ? 0 : performance.now() - this.#forged_at);

  info(): NodeInfo {
    const { node, labels, memory_mib, volumes } = this.#options;
    const of_machine = { memory_mib, cores: availableParallelism(), volumes: volumes.offer };
    return { node, labels, drivers: this.#offers.all(), ...of_machine };
  }

  /** Another number whenever what the drivers offer has changed. */
  offered = (): number => this.#offers.version;

  load(): NodeLoad {
    return { workers: this.#living.size, memory_used_mib: this.#promised(), cpu: this.#cpu.share() };
  }

  async provision(job: Job): Promise<Omit<Provisioned, 'first'> & Pick<Forged, 'first'>> {
    const entry = this.#offers.of(job.driver);
    if (!entry?.offer.available || this.#closing)
      throw new NoNodeFits({ wanted: { driver: job.driver }, have: [`${this.#options.node}, which cannot`] });
    const { level } = entry.driver;
    // The core has asked for no less; what it knows of this node may be old.
    if (job.min_isolation !== undefined && !isAtLeast(level, job.min_isolation))
      throw new NoNodeFits({
        wanted: { driver: job.driver, min_isolation: job.min_isolation },
        have: [`${this.#options.node}, where ${job.driver} is of isolation ${level}`],
      });
    const { worker: name, epoch = 1 } = job;
    const before = this.#living.get(name);
    if (before && before.epoch < epoch) await this.destruct(name, `epoch ${epoch} takes its place`);
    // From here to its place among the forged nothing awaits: two of one name never live here.
    if (this.#living.has(name) || this.#forging.has(name))
      throw new Overloaded({ what: `workers named ${name} on one node`, limit: 1 });
    if (this.#living.size + this.#forging.size >= LIMITS.vaults_per_node)
      throw new Overloaded({ what: 'vaults of this node', limit: LIMITS.vaults_per_node });
    if (this.#promised() + job.memory_mib > this.#options.memory_mib)
      throw new Overloaded({ what: 'memory (MiB) of this node', limit: this.#options.memory_mib });
    this.#families.join(job);
    const { promise: over, resolve: done } = Promise.withResolvers<void>();
    const forging: Forging = { epoch, memory_mib: job.memory_mib, over };
    this.#forging.set(job.worker, forging);
    try {
      const { node, listen_host, tls, keys, volumes } = this.#options;
      const made = (port: number, ticket: TicketPart) => {
        const direct = { host: listen_host, port, tls };
        return { worker: name, epoch, driver: job.driver, isolation: level, direct, ticket };
      };
      const { living, ticket, first } = await forge(job, entry.driver, {
        ...{ node, listen_host, tls, keys, volumes },
        network: this.#network,
        mint: this.#mint,
        ready: (...of) => {
          const core = job.early ? this.#options.core() : undefined;
          core?.vault_ready(made(...of)).catch(() => {});
        },
        family: {
          clone: (request) => this.#core().clone(name, request),
          call: (child, ...call) => this.#child(name, child).call(...call),
          destruct: async (child) => {
            this.#families.demandChild(name, child);
            await this.destruct(child, `destructed by ${name}, which had cloned it`);
          },
        },
        meshfs: {
          resolve: (pointer) => this.#core().meshfs_resolve(job.worker, pointer),
          write: (pointer, content, media_type) => this.#core().meshfs_write(job.worker, pointer, content, media_type),
        },
        allowances: () => this.#families.allowancesOf(name),
        equipped: (effects, vault) => {
          Object.assign(forging, { effects, vault });
          if (forging.ending) void vault.kill(forging.ending.reason);
        },
        ended: (worker, cause, reason) => this.end(worker, cause, reason),
      });
      this.#living.set(job.worker, living);
      void living.vault.exited.then((exit) => this.#gone(living, exit));
      if (this.#closing) void this.destruct(job.worker, 'the node is shutting down');
      else if (!this.#families.isWanted(job)) void this.#orphaned([name]);
      else if (forging.ending) void this.destruct(name, forging.ending.reason, epoch, forging.ending.cause);
      return { ...made(living.vault.port, ticket), ...(first ? { first } : {}) };
    } catch (error) {
      const { ending } = forging;
      const end = ending ?? { cause: 'rejected' as const, reason: describe(error) };
      void this.#orphaned(this.#families.leave(name, end));
      if (!ending) throw error;
      // Its source did nothing wrong: it was ended.
      this.untold.tell(unbornOf(job, ending, this.#options.node));
      throw new WorkerDied({ worker: name, ...ending });
    } finally {
      this.#forging.delete(job.worker);
      this.#forged_at = performance.now();
      done();
    }
  }

  async mint_ticket(worker: string, by?: string): Promise<TicketPart> {
    const { ticket, expected } = await mint('visitor', by);
    await this.#findRunning(worker).shell.expect(expected);
    return ticket;
  }

  /** Kills at once. False when there was no such worker, or not of this epoch. Resolves when nothing of it and its clones is left. */
  async destruct(worker: string, reason: string, epoch?: number, cause?: Cause): Promise<boolean> {
    const forging = this.#forging.get(worker);
    if (forging && (epoch ?? forging.epoch) === forging.epoch) {
      // Its code may never return: where it has a vault already, it is not waited for.
      forging.ending ??= { cause: isCause(cause) ? cause : 'destructed', reason };
      void forging.vault?.kill(reason);
      await forging.over;
    }
    const living = this.#living.get(worker);
    if (!living) return forging !== undefined;
    if (epoch !== undefined && living.epoch !== epoch) return false;
    living.ending ??= { cause: isCause(cause) ? cause : 'destructed', reason };
    const family = this.#families.familyOf(worker);
    await living.vault.kill(reason);
    await this.#orphaned(family);
    return true;
  }

  /** Leaves a worker, and then its clones, no more than these grants. Gives what they have from now on. */
  narrow(worker: string, most: Grants): { worker: string; grants: Grants }[] {
    const living = this.#living.get(worker);
    const grants = cutGrants(most, this.#families.grantsOf(worker));
    this.#families.regrant(worker, grants);
    if (living) living.job = { ...living.job, grants };
    (living ?? this.#forging.get(worker))?.effects?.regrant(grants);
    const clones = this.#families.childrenOf(worker).flatMap((child) => this.narrow(child, grants));
    return [{ worker, grants }, ...clones];
  }

  /** The core that asked for them will not hear of the workers being forged: nobody can want them. */
  coreLost(): void {
    for (const worker of this.#forging.keys()) void this.destruct(worker, 'nobody waits for it any more');
  }

  address(worker: string): { host: string; port: number } {
    return { host: this.#options.listen_host, port: this.#find(worker).vault.port };
  }

  /** The last lines that a living worker logged; empty for any other. */
  logTail(worker: string): string {
    return this.#living.get(worker)?.log.text() ?? '';
  }

  /** What a living worker uses, as far as its vault says so in time; undefined for any other. */
  async usage(worker: string): Promise<Usage | undefined> {
    return this.#living.get(worker)?.usage.now();
  }

  async pause(worker: string): Promise<void> {
    await this.#find(worker).lifetime.pause();
    this.#options.log(`worker ${worker} is paused`);
  }

  async resume(worker: string): Promise<void> {
    await this.#find(worker).lifetime.resume();
    this.#options.log(`worker ${worker} runs on`);
  }

  /** Evaluates an expression beside the worker. Rejects with what it throws, DeadlineExceeded, WorkerPaused, or WorkerDied. */
  async inspect(worker: string, expression: string, timeout_ms: number): Promise<string> {
    if (typeof expression !== 'string' || expression.length > LIMITS.inspect_chars)
      throw new BadInput({ what: 'expression', why: `a text of at most ${LIMITS.inspect_chars} characters` });
    const least = Math.max(1, Math.min(Number(timeout_ms) || 0, LIMITS.inspect_ms));
    const living = this.#findRunning(worker);
    const shown: unknown = await Promise.resolve(living.shell.inspect(expression, least)).catch(async (error) => {
      throw await deathOr(error, living, this.#options.node);
    });
    return typeof shown === 'string' ? shown.slice(0, LIMITS.inspect_chars) : '';
  }

  async logs(worker: string, after: number, wait_ms: number): Promise<LogPage> {
    const { log, epoch } = this.#find(worker);
    await log.wait(Math.max(0, after), Math.min(wait_ms, LIMITS.log_wait_ms));
    return { epoch, ...log.after(after) };
  }

  /** With what each uses, as far as each says so in time. */
  async measured(): Promise<WorkerInfo[]> {
    const usage = new Map<string, WorkerInfo['usage']>();
    await Promise.all(
      [...this.#living].map(async ([worker, { usage: meter, lifetime }]) => {
        // One that is paused answers nothing: questions would only pile up before it.
        usage.set(worker, lifetime.paused_at === undefined ? await meter.now() : meter.last());
      }),
    );
    const used = (info: WorkerInfo) => (usage.has(info.worker) ? { ...info, usage: usage.get(info.worker)! } : info);
    return this.workers().map(used);
  }

  workers(): WorkerInfo[] {
    const { listen_host: host, tls } = this.#options;
    return [...this.#living.values()].map((living) => ({
      ...infoOf(living),
      isolation: this.#offers.of(living.job.driver)!.driver.level,
      direct: { host, port: living.vault.port, tls },
    }));
  }

  /** Callers' sessions with all workers; of a worker that does not answer in time, none. `relayed`: of the relay's connections. */
  async sessions(relayed: (peer: string) => boolean = () => false): Promise<SessionInfo[]> {
    const running = [...this.#living.values()].filter(({ lifetime }) => lifetime.paused_at === undefined);
    const asked = running.map(async ({ job, shell }) => {
      const late = new Promise<never>((_, reject) => setTimeout(reject, SESSIONS_MS).unref());
      const found = await Promise.race([shell.sessions(), late]);
      return found.slice(0, LIMITS.connections).map((info) => ({ worker: job.worker, ...cleanSession(info, relayed) }));
    });
    return (await Promise.allSettled(asked)).flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
  }

  /** Ends every worker, gracefully within the hook's bound, and every driver. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#offers.close();
    await Promise.all([...this.#living.keys()].map((w) => this.end(w, 'node_closed', 'its node was shut down')));
    await Promise.all(this.#options.drivers.map((driver) => driver.close()));
    await this.#options.volumes.close();
  }

  /** The gentle end: the hook first, bounded in time, unless it was destructed; then the kill, for certain. */
  async end(worker: string, cause: Cause, reason: string, gently = cause !== 'destructed'): Promise<void> {
    const living = this.#living.get(worker);
    if (!living || living.ending) return;
    living.ending = { cause, reason };
    // One that is paused would have to run for its hook: it has none then.
    if (gently && living.lifetime.paused_at === undefined) living.ending = await endGently(living, cause, reason);
    await living.vault.kill(living.ending.reason);
  }

  #gone(living: Living, exit: VaultExit): void {
    const { worker } = living.job;
    if (this.#living.get(worker) !== living) return;
    this.#living.delete(worker);
    living.lease.stop();
    living.lifetime.stop();
    const fate = fateOf(living, exit, this.#options.node);
    const { cause, reason } = fate;
    void this.#orphaned(this.#families.leave(worker, { cause, reason }));
    living.log.wake();
    this.#options.log(`worker ${worker} is gone: ${reason}`, { cause });
    this.untold.tell(fate);
  }

  /** Ends the clones of a worker that is gone. */
  async #orphaned(workers: Iterable<string>): Promise<void> {
    const why = 'the worker that had cloned it ended';
    await Promise.all([...workers].map((worker) => this.destruct(worker, why, undefined, 'parent_died')));
  }

  #child(parent: string, child: string): Living {
    this.#families.demandChild(parent, child);
    return this.#findRunning(child);
  }

  #find(worker: string): Living {
    const living = this.#living.get(worker);
    if (!living) throw new WorkerUnknown({ worker });
    return living;
  }

  /** One that can do something. Throws WorkerPaused for one that is paused. */
  #findRunning(worker: string): Living {
    const living = this.#find(worker);
    const { paused_at } = living.lifetime;
    if (paused_at !== undefined) throw new WorkerPaused({ worker, since: new Date(paused_at).toISOString() });
    return living;
  }

  #core(): CoreForNode {
    const core = this.#options.core();
    if (!core) throw new ConnectionLost({ why: 'the core is away' });
    return core;
  }

  #promised(): number {
    let sum = 0;
    for (const { job } of this.#living.values()) sum += job.memory_mib;
    for (const { memory_mib } of this.#forging.values()) sum += memory_mib;
    return sum;
  }
}
