/**
 * What the core knows of the mesh: nodes, workers, fates. It is a picture, not the truth: agents hold that and tell it
 * again whenever they register, so a core that was killed knows everything again as soon as they are back.
 */
import {
  ConnectionLost,
  cutGrants,
  type EventName,
  type Fate,
  isError,
  type Job,
  LIMITS,
  type NodeForCore,
  type NodeInfo,
  type NodeLoad,
  NoNodeFits,
  Overloaded,
  type Provisioned,
  type ToldFate,
  WorkerDied,
  type WorkerInfo,
  WorkerRestarting,
  WorkerUnknown,
} from '@hauki/protocol';
import type { Session } from '@hauki/rpc';
import { Comebacks } from './comebacks.ts';
import type { Parent } from './family.ts';
import { Fates } from './fates.ts';
import { NODE_LIMITS } from './limits.ts';
import type { Candidate } from './matchmaker.ts';
import { isMadeUp } from './names.ts';
import { believed, type Vouched, vouchedOf } from './vouchers.ts';

export interface RegisteredNode extends Candidate {
  info: NodeInfo;
  load: NodeLoad;
  rpc: NodeForCore;
  session: Session;
  since: number;
  /** When it reported last, by the monotonic clock. */
  heard_at: number;
}

export interface RegisteredWorker extends WorkerInfo {
  node: string;
}

/** Who is told of what changes, as it does. Must not throw. */
export interface RegistryWatcher {
  /** A node told what it has. */
  registered?(node: RegisteredNode, workers: WorkerInfo[]): void;
  away?(node: string): void;
  died?(fate: Fate): void;
  /** It was never born. */
  stillborn?(fate: Fate): void;
}

/** Who knows, besides the nodes, what was placed where. */
export interface RegistryWitness {
  /** What the core itself has said of a worker; undefined where that is not from it. */
  vouched?(voucher: unknown): Vouched | undefined;
  /** Where a lasting worker is to be; undefined where none of that name is remembered. `wanted`: it was not deleted. */
  placed?(worker: string): { node: string | null; epoch: number; wanted: boolean } | undefined;
}

export class Registry {
  readonly nodes = new Map<string, RegisteredNode>();
  readonly workers = new Map<string, RegisteredWorker>();
  /** Workers that a node is making: they may ask for MeshFS before the core hears of their birth. `ready`: of their vaults. */
  readonly forging = new Map<string, Parent & { ready?: (made: Provisioned) => void }>();
  /** Lasting workers that do not run just now, whose they are, and why. */
  readonly restarting = new Map<string, { owner: string; why: string }>();
  readonly fates: Fates;
  readonly #watchers: RegistryWatcher[] = [];
  #witness: RegistryWitness = {};
  readonly #emit: (name: EventName, fields: object) => void;
  readonly #node_grace_ms: number;
  readonly #comebacks = new Comebacks(NODE_LIMITS);
  /** Of each node that is away: what counts its workers dead. */
  readonly #graces = new Map<string, NodeJS.Timeout>();

  /** `node_grace_ms`: after which the workers of a node that is away are counted dead. */
  constructor(
    emit: (name: EventName, fields: object) => void = () => {},
    node_grace_ms: number = LIMITS.node_grace_ms,
    fates: Fates = new Fates(),
  ) {
    this.fates = fates;
    this.#emit = emit;
    this.#node_grace_ms = node_grace_ms;
  }

  watch(watcher: RegistryWatcher): void {
    this.#watchers.push(watcher);
  }

  /** Believes this witness from now on, beside the ones before. */
  trust(witness: RegistryWitness): void {
    this.#witness = { ...this.#witness, ...witness };
  }

  /** Nodes as the matchmaker takes them. */
  candidates(): RegisteredNode[] {
    return [...this.nodes.values()];
  }

  /** What tells whether a node has not reported for a while, as of now. */
  silence(): (node: RegisteredNode) => boolean {
    const since = performance.now() - NODE_LIMITS.silent_ms;
    return ({ heard_at }) => heard_at < since;
  }

  /**
   * A node tells what it is and which workers it has; workers it should have and has not are lost. Gives the names of those
   * that are not listed, since nothing but the node says that they are its own.
   */
  register(node: RegisteredNode, workers: WorkerInfo[]): string[] {
    const name = node.info.node;
    this.#endGrace(name);
    this.nodes.set(name, node);
    this.#comebacks.came();
    this.#lose(name, 'its node was restarted', new Set(workers.map((w) => w.worker)));
    this.#emit('NODE_REGISTERED', { node: name, workers: workers.length, drivers: Object.keys(node.info.drivers) });
    const strangers = workers.filter((info) => !this.learn(info, name));
    for (const watcher of this.#watchers) watcher.registered?.(node, workers);
    return strangers.map(({ worker }) => worker);
  }

  /** A worker that the core itself had made, or knows to be where it is. False where it is known to be dead already. */
  born(entry: RegisteredWorker): boolean {
    if (this.isDead(entry) || (this.workers.get(entry.worker)?.epoch ?? 0) > entry.epoch) return false;
    this.workers.set(entry.worker, entry);
    return true;
  }

  /** Whether the end of this worker, in this epoch or a later one, has been heard of. */
  isDead({ worker, epoch }: Pick<WorkerInfo, 'worker' | 'epoch'>): boolean {
    const fate = this.fates.get(worker);
    return fate !== undefined && (fate.epoch ?? 1) >= epoch;
  }

  /**
   * A node tells of a worker that it has; one that the core does not know outlived it. False where nothing but the node says
   * that it is there: nobody takes a worker from another node by its name, has more rights than the core gave, or comes back
   * from the dead.
   */
  learn(told: WorkerInfo, node: string): boolean {
    const { worker, epoch } = told;
    const known = this.workers.get(worker);
    if (known && (known.epoch > epoch || (known.epoch === epoch && known.node !== node))) return false;
    const fate = this.fates.get(worker);
    // A node that was only away for too long has it still.
    if (fate && fate.cause !== 'node_lost' && (fate.epoch ?? 1) >= epoch) return false;
    const sure = this.#sure(told, node, false);
    if (!sure) return false;
    const is_news = !known && !this.forging.has(worker);
    this.workers.set(worker, believed(told, sure));
    if (is_news) this.#emit('WORKER_RETURNED', { worker, node, driver: sure.driver, owner: sure.owner, epoch });
    return true;
  }

  /** Whose the worker is whose end a node tells; undefined where that is none of this node's workers. */
  ownerOf({ worker, epoch = 1, voucher }: Pick<ToldFate, 'worker' | 'epoch' | 'voucher'>, node: string) {
    return this.#sure({ worker, epoch, voucher }, node, true)?.owner;
  }

  /** What the core knows by itself of a worker that a node tells of. `ended`: also of one that nobody wants any more. */
  #sure(told: { worker: string; epoch: number; voucher?: unknown }, node: string, ended: boolean): Vouched | undefined {
    const { worker, epoch, voucher } = told;
    const fits = (one: { node: string | null; epoch: number }) => one.node === node && one.epoch === epoch;
    const known = this.workers.get(worker);
    if (known && fits(known)) return known;
    const sure = this.#witness.vouched?.(voucher);
    if (sure?.worker !== worker || !fits(sure)) return undefined;
    const placed = this.#witness.placed?.(worker);
    // A voucher tells where a worker was placed; where a lasting one is now, its record knows.
    if (placed ? !fits(placed) || !(placed.wanted || ended) : sure.lasting && !ended) return undefined;
    return sure;
  }

  /** A node's link is lost. Its workers stay listed: with a live agent they go on, and it will tell. */
  away(node: RegisteredNode, reason = 'its link is lost'): void {
    const name = node.info.node;
    if (this.nodes.get(name) !== node) return;
    this.nodes.delete(name);
    this.expect();
    this.#emit('NODE_AWAY', { node: name, reason });
    for (const watcher of this.#watchers) watcher.away?.(name);
    this.#endGrace(name);
    const timer = setTimeout(() => {
      this.#endGrace(name);
      this.#lose(name, `its node ${name} is gone`);
    }, this.#node_grace_ms);
    this.#graces.set(name, timer.unref());
  }

  #endGrace(node: string): void {
    clearTimeout(this.#graces.get(node));
    this.#graces.delete(node);
  }

  /** Counts nobody dead any more: the next core hears who lives. */
  close(): void {
    for (const node of [...this.#graces.keys()]) this.#endGrace(node);
  }

  /** Nodes may come (back) at any moment: what asks for one need not be refused at once. */
  expect(): void {
    this.#comebacks.expect();
  }

  /** What finds no node is tried again when one comes, as long as one is expected and it `may` be. Rejects as it does. */
  async patiently<T>(place: () => Promise<T>, may: () => boolean): Promise<T> {
    for (const { until } = this.#comebacks.expected; ; ) {
      // One that comes while it is tried counts.
      const { next } = this.#comebacks.expected;
      try {
        return await place();
      } catch (error) {
        const crowded = isError(error, NoNodeFits) || isError(error, Overloaded);
        if (!crowded || !may() || !(await this.#comebacks.wait({ until, next }))) throw error;
      }
    }
  }

  /** Counts a placement at once, before the node reports it, so that a burst does not all go to one node. */
  reserve(node: RegisteredNode, memory_mib: number): () => void {
    node.load = {
      ...node.load,
      workers: node.load.workers + 1,
      memory_used_mib: node.load.memory_used_mib + memory_mib,
    };
    return () => {
      node.load = {
        ...node.load,
        workers: node.load.workers - 1,
        memory_used_mib: node.load.memory_used_mib - memory_mib,
      };
    };
  }

  died(fate: Fate): void {
    const known = this.workers.get(fate.worker);
    // News of an earlier start of a lasting worker: the present one lives.
    if (known && (fate.epoch ?? known.epoch) < known.epoch) return;
    const home = known && this.nodes.get(known.node);
    if (home) {
      const { workers, memory_used_mib } = home.load;
      home.load = { ...home.load, workers: workers - 1, memory_used_mib: memory_used_mib - known.memory_mib };
    }
    this.workers.delete(fate.worker);
    if (!this.isDead({ worker: fate.worker, epoch: fate.epoch ?? 1 })) {
      const { worker, owner, cause, reason } = fate;
      const node = known?.node ?? this.forging.get(worker)?.node;
      this.#emit('WORKER_DIED', { worker, node, owner, cause, reason });
    }
    this.fates.set(fate);
    for (const watcher of this.#watchers) watcher.died?.(fate);
  }

  fate(worker: string): Fate | undefined {
    return this.fates.get(worker);
  }

  /** A worker that was never born: nobody waits for its end, but its owner may ask why. */
  stillborn(fate: Fate): void {
    this.fates.set(fate);
    for (const watcher of this.#watchers) watcher.stillborn?.(fate);
  }

  /** Notes that a worker is paused since then, or no longer. */
  paused(worker: string, paused_at: number | undefined): void {
    const entry = this.workers.get(worker);
    if (!entry) return;
    const { paused_at: _before, ...rest } = entry;
    this.workers.set(worker, paused_at === undefined ? rest : { ...rest, paused_at });
  }

  /** Rejects with WorkerPaused for a worker that is paused: what was heard of that may be old, its node knows. */
  async demandRunning(worker: string): Promise<void> {
    if (this.workers.get(worker)?.paused_at === undefined) return;
    await this.ask(worker, ({ rpc }) => rpc.mint_ticket(worker));
    this.paused(worker, undefined);
  }

  /**
   * Waits while the worker's node says nothing: what is sent to it then may arrive, much later, or not, and nobody would know.
   * Rejects as `home` does, once the node is counted away.
   */
  async demandHeard(worker: string): Promise<void> {
    while (this.silence()(this.home(worker)))
      await new Promise((resolve) => setTimeout(resolve, NODE_LIMITS.heard_every_ms));
  }

  /** Why a worker is dead, as callers hear it; undefined where no fate is known. */
  death(worker: string): InstanceType<typeof WorkerDied> | undefined {
    const fate = this.fates.get(worker);
    return fate && new WorkerDied({ worker, cause: fate.cause, reason: fate.reason });
  }

  /** A worker, living, dead, being made or started again, whose it is, and whether it lasts. Throws WorkerUnknown. */
  known(worker: string): { worker: string; owner: string; lasting: boolean } {
    const living = this.workers.get(worker);
    const entry = living ?? this.restarting.get(worker) ?? this.forging.get(worker) ?? this.fates.get(worker);
    if (!entry) throw new WorkerUnknown({ worker });
    // Of the dead their names tell.
    const lasting = living ? living.lasting === true : this.restarting.has(worker) || !isMadeUp(worker);
    return { worker, owner: entry.owner, lasting };
  }

  /** Its node says that it has no more than this now; nor have its clones, also those that are being made. */
  regranted(worker: string, most: WorkerInfo['grants'], node: string): void {
    for (const known of [this.workers, this.forging] as Map<string, Parent>[]) {
      const entry = known.get(worker);
      if (entry?.node === node) known.set(worker, { ...entry, grants: cutGrants(most, entry.grants) });
      for (const [child, { parent }] of known) if (parent === worker) this.regranted(child, most, node);
    }
  }

  /** A node begins to make a worker, which has no more than its parent: that may have lost some since it asked. */
  forges(job: Job, node: string, ready: (made: Provisioned) => void): void {
    const parent = job.parent === undefined ? undefined : this.parent(job.parent);
    if (parent) job.grants = cutGrants(parent.grants, job.grants);
    const isolation = this.nodes.get(node)?.info.drivers[job.driver]?.level;
    this.forging.set(job.worker, { ...vouchedOf(job, node), isolation, ready });
  }

  /** What there is of a worker that lives or is being made: as much as it needs to clone. */
  parent(worker: string): Parent | undefined {
    return this.workers.get(worker) ?? this.forging.get(worker);
  }

  /** A worker that lives as far as is known. Throws WorkerRestarting, WorkerDied, or WorkerUnknown. */
  find(worker: string): RegisteredWorker {
    const entry = this.workers.get(worker);
    const restarting = this.restarting.get(worker);
    if (!entry && restarting) throw new WorkerRestarting({ worker, why: restarting.why });
    if (!entry) throw this.death(worker) ?? new WorkerUnknown({ worker });
    return entry;
  }

  /**
   * The node of a living worker, or of one that is being made, which can be ended there. Throws as `find` does, and while the node is away ConnectionLost, of one that lasts
   * WorkerRestarting: nobody knows yet whether it is dead, and both may be tried again.
   */
  home(worker: string): RegisteredNode {
    const made = isMadeUp(worker) && !this.workers.has(worker) ? this.forging.get(worker) : undefined;
    const { node, lasting } = made ?? this.find(worker);
    const home = this.nodes.get(node);
    if (home) return home;
    const why = `its node ${node} is away`;
    if (lasting) throw new WorkerRestarting({ worker, why });
    throw new ConnectionLost({ why: `${why}, where ${worker} may live on` });
  }

  /**
   * What the node of a living worker answers. Rejects as `home` does, also where the node has no such worker any more: its
   * word on that comes before its answer.
   */
  async ask<T>(worker: string, asked: (home: RegisteredNode) => Promise<T>): Promise<T> {
    try {
      return await asked(this.home(worker));
    } catch (error) {
      if (isError(error, WorkerUnknown)) this.find(worker);
      throw error;
    }
  }

  #lose(node: string, reason: string, alive: ReadonlySet<string> = new Set()): void {
    for (const { worker, owner, epoch, node: home } of [...this.workers.values()])
      if (home === node && !alive.has(worker))
        this.died({ worker, owner, cause: 'node_lost', reason, at: Date.now(), lines: [], epoch, node });
  }
}
