/**
 * What the core knows of the mesh: nodes, workers, fates. It is a picture, not the truth: agents hold that and tell it
 * again whenever they register, so a core that was killed knows everything again as soon as they are back.
 */
import {
  type Fate,
  type Grants,
  LIMITS,
  type NodeForCore,
  type NodeInfo,
  type NodeLoad,
  WorkerDied,
  type WorkerInfo,
  WorkerRestarting,
  WorkerUnknown,
} from '@hauki/protocol';
import type { Session } from '@hauki/rpc';
import type { Candidate } from './matchmaker.ts';

export interface RegisteredNode extends Candidate {
  info: NodeInfo;
  load: NodeLoad;
  rpc: NodeForCore;
  session: Session;
  since: number;
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
}

export class Registry {
  readonly nodes = new Map<string, RegisteredNode>();
  readonly workers = new Map<string, RegisteredWorker>();
  /** Workers that a node is making: they may ask for MeshFS before the core hears of their birth. */
  readonly forging = new Map<string, { node: string; grants: Grants }>();
  /** Lasting workers that do not run just now, and why. */
  readonly restarting = new Map<string, string>();
  readonly #fates = new Map<string, Fate>();
  readonly #watchers: RegistryWatcher[] = [];
  readonly #node_grace_ms: number;

  /** `node_grace_ms`: after which the workers of a node that is away are counted dead. */
  constructor(node_grace_ms: number = LIMITS.node_grace_ms) {
    this.#node_grace_ms = node_grace_ms;
  }

  watch(watcher: RegistryWatcher): void {
    this.#watchers.push(watcher);
  }

  /** Nodes as the matchmaker takes them. */
  candidates(): RegisteredNode[] {
    return [...this.nodes.values()];
  }

  /** A node tells what it is and which workers it has; workers it should have and has not are lost. */
  register(node: RegisteredNode, workers: WorkerInfo[]): void {
    const name = node.info.node;
    this.nodes.set(name, node);
    this.#lose(name, 'its node was restarted', new Set(workers.map((w) => w.worker)));
    for (const info of workers) {
      // A lasting worker that was started elsewhere meanwhile: this one is about to end.
      const newer = (this.workers.get(info.worker)?.epoch ?? 0) > info.epoch;
      if (!newer) this.workers.set(info.worker, { ...info, node: name });
    }
    for (const watcher of this.#watchers) watcher.registered?.(node, workers);
  }

  /** A worker was born, or is seen for the first time. It may be dead already: a fate that came first stands. */
  born(entry: RegisteredWorker): void {
    const fate = this.#fates.get(entry.worker);
    if (fate && (fate.epoch ?? 1) >= entry.epoch) return;
    if ((this.workers.get(entry.worker)?.epoch ?? 0) > entry.epoch) return;
    this.workers.set(entry.worker, entry);
  }

  /** A node's link is lost. Its workers stay listed: with a live agent they go on, and it will tell. */
  away(node: RegisteredNode): void {
    const name = node.info.node;
    if (this.nodes.get(name) !== node) return;
    this.nodes.delete(name);
    for (const watcher of this.#watchers) watcher.away?.(name);
    const timer = setTimeout(() => {
      if (!this.nodes.has(name)) this.#lose(name, `its node ${name} is gone`);
    }, this.#node_grace_ms);
    timer.unref();
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
    this.#fates.set(fate.worker, fate);
    if (this.#fates.size > LIMITS.fates) for (const oldest of this.#fates.keys()) if (this.#fates.delete(oldest)) break;
    for (const watcher of this.#watchers) watcher.died?.(fate);
  }

  fate(worker: string): Fate | undefined {
    return this.#fates.get(worker);
  }

  /** Why a worker is dead, as callers hear it; undefined where no fate is known. */
  death(worker: string): InstanceType<typeof WorkerDied> | undefined {
    const fate = this.#fates.get(worker);
    return fate && new WorkerDied({ worker, cause: fate.cause, reason: fate.reason });
  }

  /** A worker that lives as far as is known. Throws WorkerRestarting, WorkerDied, or WorkerUnknown. */
  find(worker: string): RegisteredWorker {
    const entry = this.workers.get(worker);
    const why = this.restarting.get(worker);
    if (!entry && why !== undefined) throw new WorkerRestarting({ worker, why });
    if (!entry) throw this.death(worker) ?? new WorkerUnknown({ worker });
    return entry;
  }

  /** The node of a living worker. Throws as `find` does, and WorkerDied (`node_lost`) while the node is away. */
  home(worker: string): RegisteredNode {
    const { node } = this.find(worker);
    const home = this.nodes.get(node);
    if (!home) throw new WorkerDied({ worker, cause: 'node_lost', reason: `its node ${node} is away` });
    return home;
  }

  #lose(node: string, reason: string, alive: ReadonlySet<string> = new Set()): void {
    for (const { worker, owner, epoch, node: home } of [...this.workers.values()])
      if (home === node && !alive.has(worker))
        this.died({ worker, owner, cause: 'node_lost', reason, at: Date.now(), log_tail: '', epoch });
  }
}
