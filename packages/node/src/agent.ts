/**
 * The node agent: it holds this node's workers and decides, alone, over their life and death.
 *
 * What always holds: a worker is in `living` exactly while its vault runs; whoever ends it, `#gone` runs once and its
 * fate is told to the core; an agent that ends leaves no vault. It knows the core only as `CoreForNode`, which may be
 * away: leases, heartbeats and direct calls go on without it.
 */
import { availableParallelism, cpus, totalmem } from 'node:os';
import {
  ConnectionLost,
  type CoreForNode,
  describe,
  type Fate,
  type Job,
  LIMITS,
  type NodeInfo,
  type NodeLoad,
  NoNodeFits,
  Overloaded,
  type Provisioned,
  type SessionInfo,
  type TicketPart,
  type WorkerInfo,
  WorkerUnknown,
} from '@hauki/protocol';
import type { Driver, Offer } from '@hauki/vault';
import { forge, type Living, makeTicket } from './forge.ts';

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
  core: () => CoreForNode | undefined;
  keys: () => object;
  log(line: string, fields?: object): void;
}

export class Agent {
  readonly #options: AgentOptions;
  readonly #offers = new Map<string, { driver: Driver; offer: Offer }>();
  readonly #living = new Map<string, Living>();
  readonly #forging = new Map<string, { memory_mib: number; over: Promise<void> }>();
  readonly #unwanted = new Set<string>();
  #unreported: Fate[] = [];
  #cpu = cpus().map((c) => c.times);
  #closing = false;

  constructor(options: AgentOptions) {
    this.#options = options;
  }

  /** Finds out what this machine can offer, says so, and clears what an earlier run left. */
  async start(): Promise<void> {
    const { drivers, log } = this.#options;
    await Promise.all(
      drivers.map(async (driver) => {
        const offer = await driver.probe();
        this.#offers.set(driver.name, { driver, offer });
        const swept = await driver.sweep().catch((error) => {
          log(`sweeping after an earlier run failed: ${describe(error)}`, { driver: driver.name });
          return 0;
        });
        if (swept > 0) log(`swept ${swept} leftovers of an earlier run`, { driver: driver.name });
        if (offer.available) log(`driver ${driver.name} is offered${offer.note ? `: ${offer.note}` : ''}`);
        else log(`driver ${driver.name} is not offered: ${offer.reason}`);
      }),
    );
  }

  info(): NodeInfo {
    const { node, labels, memory_mib, drivers } = this.#options;
    const offers = drivers.map((driver) => {
      const offer = this.#offers.get(driver.name)?.offer ?? { available: false, reason: 'not probed yet' };
      return [driver.name, { ...offer, isolation: driver.isolation, level: driver.level }];
    });
    return { node, labels, drivers: Object.fromEntries(offers), memory_mib, cores: availableParallelism() };
  }

  load(): NodeLoad {
    const times = cpus().map((c) => c.times);
    let busy = 0;
    let all = 0;
    times.forEach((now, i) => {
      const before = this.#cpu[i] ?? now;
      const idle = now.idle - before.idle;
      const total = Object.values(now).reduce((a, b) => a + b, 0) - Object.values(before).reduce((a, b) => a + b, 0);
      busy += total - idle;
      all += total;
    });
    this.#cpu = times;
    return { workers: this.#living.size, memory_used_mib: this.#promised(), cpu: all > 0 ? busy / all : 0 };
  }

  /** Fates that the core has not heard of yet, oldest first; they are handed over once. */
  takeUnreported(): Fate[] {
    const fates = this.#unreported;
    this.#unreported = [];
    return fates;
  }

  /** Fates that could not be told after all. */
  putBack(fates: Fate[]): void {
    this.#unreported = [...fates, ...this.#unreported].slice(-LIMITS.fates);
  }

  async provision(job: Job): Promise<Provisioned> {
    const entry = this.#offers.get(job.driver);
    if (!entry?.offer.available || this.#closing)
      throw new NoNodeFits({ wanted: { driver: job.driver }, have: [`${this.#options.node}, which cannot`] });
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
    const { promise: over, resolve: done } = Promise.withResolvers<void>();
    this.#forging.set(job.worker, { memory_mib: job.memory_mib, over });
    try {
      const { node, listen_host, tls, keys } = this.#options;
      const { living, ticket } = await forge(job, entry.driver, {
        node,
        listen_host,
        tls,
        keys,
        meshfs: {
          resolve: (pointer) => this.#core().meshfs_resolve(job.worker, pointer),
          write: (pointer, content, media_type) => this.#core().meshfs_write(job.worker, pointer, content, media_type),
        },
        ended: (worker, cause, reason) => this.#end(worker, cause, reason),
      });
      this.#living.set(job.worker, living);
      void living.vault.exited.then((exit) => this.#gone(living, exit));
      if (this.#closing) void this.destruct(job.worker, 'the node is shutting down');
      else if (this.#unwanted.delete(job.worker)) void this.destruct(job.worker, 'nobody waits for it any more');
      const direct = { host: listen_host, port: living.vault.port, tls };
      const { level: isolation } = entry.driver;
      return { worker: job.worker, epoch: living.epoch, driver: job.driver, isolation, direct, ticket };
    } finally {
      this.#forging.delete(job.worker);
      this.#unwanted.delete(job.worker);
      done();
    }
  }

  async mint_ticket(worker: string): Promise<TicketPart> {
    const { ticket, expected } = await makeTicket('visitor');
    await this.#find(worker).shell.expect(expected);
    return ticket;
  }

  /** Kills at once. False when there was no such worker, or not of this epoch. Resolves when nothing of it is left. */
  async destruct(worker: string, reason: string, epoch?: number): Promise<boolean> {
    const forging = this.#forging.get(worker);
    if (forging) {
      // It ends as soon as it is born, or fails to be.
      this.#unwanted.add(worker);
      await forging.over;
    }
    const living = this.#living.get(worker);
    if (!living) return forging !== undefined;
    if (epoch !== undefined && living.epoch !== epoch) return false;
    living.ending ??= { cause: 'destructed', reason };
    await living.vault.kill(reason);
    return true;
  }

  /** The core that asked for them will not hear of the workers being forged: nobody can want them. */
  coreLost(): void {
    for (const worker of this.#forging.keys()) this.#unwanted.add(worker);
  }

  address(worker: string): { host: string; port: number } {
    return { host: this.#options.listen_host, port: this.#find(worker).vault.port };
  }

  /** The last lines that a living worker logged; empty for any other. */
  logTail(worker: string): string {
    return this.#living.get(worker)?.log.tail() ?? '';
  }

  workers(): WorkerInfo[] {
    const { listen_host: host, tls } = this.#options;
    return [...this.#living.values()].map(({ job, epoch, vault, lease, born_at }) => ({
      worker: job.worker,
      owner: job.owner,
      driver: job.driver,
      isolation: this.#offers.get(job.driver)!.driver.level,
      epoch,
      direct: { host, port: vault.port, tls },
      memory_mib: job.memory_mib,
      grants: job.grants,
      lease: job.lease,
      pid: vault.pid,
      born_at,
      lease_until: lease.until,
      ...(job.lasting ? { lasting: true } : {}),
      ...(job.code ? { code: job.code } : {}),
    }));
  }

  /** Callers' sessions with all workers; of a worker that does not answer in time, none. */
  async sessions(): Promise<SessionInfo[]> {
    const asked = [...this.#living.values()].map(async ({ job, shell }) => {
      const late = new Promise<never>((_, reject) => setTimeout(reject, SESSIONS_MS).unref());
      const found = await Promise.race([shell.sessions(), late]);
      return found.slice(0, LIMITS.connections).map((info) => ({ worker: job.worker, ...cleanSession(info) }));
    });
    return (await Promise.allSettled(asked)).flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
  }

  /** Ends every worker, gracefully within the hook's bound, and every driver. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all([...this.#living.keys()].map((w) => this.#end(w, 'node_closed', 'its node was shut down')));
    await Promise.all(this.#options.drivers.map((driver) => driver.close()));
  }

  /** The gentle end: the hook first, bounded in time; then the kill, for certain. */
  async #end(worker: string, cause: string, reason: string): Promise<void> {
    const living = this.#living.get(worker);
    if (!living || living.ending) return;
    living.ending = { cause, reason };
    if (cause !== 'destructed') {
      const hook = Promise.resolve(living.shell.end(reason)).catch((error) =>
        living.log.add(`error onEnd: ${describe(error)}`),
      );
      await Promise.race([hook, new Promise((resolve) => setTimeout(resolve, LIMITS.end_hook_ms))]);
    }
    await living.vault.kill(reason);
  }

  #gone(living: Living, exit: { cause: string; reason: string; log_tail: string }): void {
    const { worker, owner } = living.job;
    if (this.#living.get(worker) !== living) return;
    this.#living.delete(worker);
    living.lease.stop();
    const { cause, reason } = living.ending ?? exit;
    const log_tail = [living.log.tail(), exit.log_tail].filter(Boolean).join('\n').slice(-LIMITS.log_tail_chars);
    const fate: Fate = { worker, owner, cause, reason, at: Date.now(), log_tail, epoch: living.epoch };
    this.#options.log(`worker ${worker} is gone: ${reason}`, { cause });
    const core = this.#options.core();
    if (core) core.worker_died(fate).catch(() => this.#keep(fate));
    else this.#keep(fate);
  }

  #keep(fate: Fate): void {
    this.#unreported.push(fate);
    if (this.#unreported.length > LIMITS.fates) this.#unreported.shift();
  }

  #find(worker: string): Living {
    const living = this.#living.get(worker);
    if (!living) throw new WorkerUnknown({ worker });
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

/** What a guest says of a session, as far as it can be one: nothing but short names and numbers. */
function cleanSession(info: Partial<SessionInfo>): Omit<SessionInfo, 'worker'> {
  const count = (value: unknown) => (typeof value === 'number' && value >= 0 ? value : 0);
  const stats = Object.entries(info.stats ?? {}).filter(([name]) => /^[a-z_]{1,32}$/.test(name));
  return {
    session: /^[\w-]{1,64}$/.exec(String(info.session))?.[0] ?? '?',
    role: info.role === 'owner' ? 'owner' : 'visitor',
    opened_at: count(info.opened_at),
    connected: info.connected === true,
    connections: count(info.connections),
    carried_bytes: count(info.carried_bytes),
    unconfirmed_bytes: count(info.unconfirmed_bytes),
    stats: Object.fromEntries(stats.slice(0, 32).map(([name, value]) => [name, count(value)])),
  };
}

/** What a node promises when nobody said: three quarters of the machine. */
export const defaultMemoryMib = () => Math.floor((totalmem() / 1024 / 1024) * 0.75);
