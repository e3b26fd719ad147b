/**
 * Lasting workers: no heartbeat, started again with their node, or elsewhere when that is gone, under a new epoch.
 *
 * What always holds: a worker is acknowledged after it is on disk, and then outlives kills of core and agents until it
 * is deleted; an epoch is on disk before any node hears of it, and none is used twice; what a node has of an epoch that
 * is not the present one is ended as soon as the node is there. Whatever happens to one worker happens in turn, which is
 * why all of it stands here, in a long file.
 */
import { CompareFailed, type KeyValue, neverAhead } from '@hauki/backplane';
import {
  BadInput,
  type Cause,
  ConnectionLost,
  causeOfFailure,
  describe,
  type EventName,
  type Fate,
  type Grants,
  grantsWithin,
  isError,
  type LastingState,
  type LastingWorker,
  LIMITS,
  logText,
  NameTaken,
  NO_GRANTS,
  NoNodeFits,
  Overloaded,
  QuotaExceeded,
  type Revocation,
  revokeGrants,
  StorageFailed,
  type WorkerInfo,
  WorkerUnknown,
} from '@hauki/protocol';
import { LONGEST_TIMER_MS } from '../limits.ts';
import { modulesText } from '../modules.ts';
import { isMadeUp, randomName } from '../names.ts';
import { type Damaged, type RecordShape, recordsOf } from '../records.ts';
import type { RegisteredNode, Registry } from '../registry.ts';
import { demand, may, type Principal } from '../rights.ts';
import type { SpawnRequest, Swarm } from '../swarm.ts';
import { Texts } from '../texts.ts';
import { afterDeath, type LastingRecord, newRecord, orderOf, RESTART, type RestartTerms, viewOf } from './record.ts';

export interface LastingRequest extends Omit<SpawnRequest, 'audience' | 'lease_ms' | 'heartbeat_ms' | 'ttl_ms'> {
  /** Chosen by the caller; made up when left out. */
  name?: string;
}

export interface LastingPowers {
  kv: KeyValue;
  registry: Registry;
  swarm: Pick<Swarm, 'order' | 'place' | 'narrow'>;
  event(name: EventName, fields: object): void;
  /** A worker whose node is away so long is started on another. */
  node_grace_ms: number;
  restart?: RestartTerms;
  /** Told of each worker whose record is damaged. */
  damaged?: Damaged;
  /** Milliseconds since 1970: what people are shown, and what is on disk. */
  now?: () => number;
  /** Milliseconds on a clock that nobody sets: what waits are measured by. */
  elapsed?: () => number;
}

interface Entry {
  record: LastingRecord;
  revision: number | 'absent';
  /** What is done to this worker is done in turn. */
  turn: Promise<unknown>;
  timer?: NodeJS.Timeout | undefined;
  /** Since when its node is away, by the clock that nobody sets; undefined while it is there. */
  away_since?: number | undefined;
  /** The node's registration under which the present epoch was started, or seen. */
  seen_by?: RegisteredNode | undefined;
  /** Why no node can take it, and how often that was so in a row. */
  waiting?: { why: string; times: number } | undefined;
  /** The state that was told last; undefined before it is the caller's. */
  told?: LastingState | undefined;
}

export const NAME = new RegExp(`^[a-z0-9][a-z0-9-]{0,${LIMITS.lasting_name_chars - 1}}$`);
const PREFIX = 'worker/';
const SHAPE: RecordShape<LastingRecord> = {
  keyOf: ({ worker }) => `${PREFIX}${worker}`,
  needs: ['owner', 'state', 'confirmed', 'source', 'grants', 'epoch', 'node', 'deaths', 'next_try_at'],
};
const SCOPE = 'provision';
/** Sources of all lasting workers together, in characters. */
const SOURCES = LIMITS.spool_bytes;
/** Errors that say nothing against the worker: the nodes cannot take it now. */
const CROWDED = [NoNodeFits, Overloaded, ConnectionLost, QuotaExceeded];

export class Lasting {
  readonly #powers: LastingPowers;
  readonly #entries = new Map<string, Entry>();
  readonly #texts: Texts;
  /** Keys of records that cannot be read: their names are taken, and what runs of them is left alone. */
  readonly #damaged = new Set<string>();
  readonly #now: () => number;
  readonly #elapsed: () => number;
  /** For what is old: never ahead. */
  readonly #steady: () => number;
  #closed = false;

  constructor(powers: LastingPowers) {
    this.#powers = powers;
    this.#now = powers.now ?? (() => Date.now());
    this.#elapsed = powers.elapsed ?? (() => performance.now());
    this.#steady = neverAhead(this.#now, this.#elapsed);
    this.#texts = new Texts(powers.kv, SOURCES);
    powers.registry.trust({
      placed: (worker) => {
        const record = this.#entries.get(worker)?.record;
        return record && { node: record.node, epoch: record.epoch, wanted: record.state !== 'deleted' };
      },
    });
    powers.registry.watch({
      registered: (node, workers) => this.#registered(node, workers),
      away: (node) => {
        for (const entry of this.#entries.values())
          if (entry.record.node === node) {
            entry.away_since = this.#elapsed();
            this.#tell(entry);
            this.#tendLater(entry, powers.node_grace_ms);
          }
      },
      died: (fate) => this.#died(fate),
    });
  }

  /** Reads what lasts; to be called once, before any node can register. */
  async open(): Promise<void> {
    const { kv, damaged } = this.#powers;
    for await (const { record, revision } of recordsOf(kv, PREFIX, SHAPE, damaged, this.#damaged))
      this.#entries.set(record.worker, { record, revision, turn: Promise.resolve() });
    await this.#texts.open(
      [...this.#entries.values()].flatMap(({ record }) => [record.source, record.modules ?? []].flat()),
      this.#damaged.size === 0,
    );
    await this.#forget();
    for (const entry of this.#entries.values()) {
      const { record } = entry;
      // Whoever asked for it never heard of it. A full disk, which may be why, keeps no core from starting.
      if (record.state !== 'deleted' && !record.confirmed)
        await this.#bury(entry, 'nobody wants it', (change) => this.#noteUntilKept(entry, change));
      if (record.state === 'deleted' || !record.confirmed) continue;
      if (record.node !== null) entry.away_since = this.#elapsed();
      const why = 'the mesh has just been started, and its node is not there yet';
      this.#powers.registry.restarting.set(record.worker, { owner: record.owner, why });
      this.#tell(entry);
      this.#tendLater(entry, record.node === null ? 0 : this.#powers.node_grace_ms);
    }
  }

  /** Makes a lasting worker; resolves when it runs and is on disk. Rejects with NameTaken, or as a spawn does. */
  async provision(request: LastingRequest, principal: Principal): Promise<LastingWorker> {
    const { registry, event, swarm } = this.#powers;
    const { name = `l-${randomName(9)}`, ...spawn } = request;
    if (!NAME.test(name))
      throw new BadInput({
        what: 'name',
        why: `${JSON.stringify(name)} is not [a-z0-9-], at most ${LIMITS.lasting_name_chars} long`,
      });
    if (isMadeUp(name))
      throw new BadInput({ what: 'name', why: `${name}: names that begin with w- or s- are for clones and jobs` });
    const scopes = { source: SCOPE, pointer: SCOPE } as const;
    if (this.#damaged.has(`${PREFIX}${name}`))
      throw new StorageFailed(
        { what: `the record of ${name} is damaged` },
        `There was a lasting worker ${name}, whose record is damaged. Choose another name, or put the core's store back from a copy`,
      );
    const { job, driver, labels, memory_mib, nodes, unread } = await swarm.order(spawn, principal, scopes);
    const [source, modules] = await this.#texts.keepAll([job.source, modulesText(job.modules)]);
    const before = this.#entries.get(name);
    let alive = 0;
    for (const { record } of this.#entries.values()) if (record.state !== 'deleted') alive++;
    try {
      if ((before && before.record.state !== 'deleted') || registry.parent(name)) throw new NameTaken({ name });
      if (alive >= LIMITS.lasting_workers)
        throw new Overloaded({ what: 'lasting workers', limit: LIMITS.lasting_workers });
    } catch (error) {
      this.#texts.release(source, modules);
      throw error;
    }
    const record = newRecord({
      worker: name,
      owner: principal.name,
      pointer: request.pointer ?? null,
      source,
      language: job.language,
      modules,
      code: job.code,
      driver: driver ?? null,
      labels,
      nodes: [...nodes],
      unread,
      memory_mib: memory_mib ?? null,
      min_isolation: job.min_isolation ?? (driver === undefined ? 'process' : undefined),
      cpu: job.cpu,
      turn_ms: job.turn_ms,
      grants: job.grants,
      secrets: job.secrets,
      load_timeout_ms: job.load_timeout_ms,
      epoch: before?.record.epoch ?? 0,
      created_at: this.#now(),
    });
    // Nothing awaits between the look above and this line: the name is taken from here on.
    const entry: Entry = { record, revision: before?.revision ?? 'absent', turn: before?.turn ?? Promise.resolve() };
    this.#entries.set(name, entry);
    return this.#inTurn(entry, async () => {
      // The one before was perhaps still being written.
      if (before) entry.revision = before.revision;
      try {
        await this.#start(entry);
        await this.#commit(entry, { state: 'running', confirmed: true });
      } catch (error) {
        // Also where the disk cannot be told of it now: nobody else could end it, and its name is free.
        await this.#bury(entry, 'nobody wants it', (change) => this.#noteUntilKept(entry, change));
        throw error;
      }
      // The last words of another owner's worker of this name are not this one's.
      if (registry.fate(name)?.owner !== principal.name) registry.fates.delete(name);
      const { node, epoch, driver } = entry.record;
      event('WORKER_PROVISIONED', { worker: name, node, epoch, driver, owner: principal.name });
      return this.#view(entry);
    });
  }

  /** Those that the principal may handle: its own and the targeted ones; all of them for an admin. */
  list(principal: Principal): LastingWorker[] {
    return [...this.#entries.values()]
      .filter(
        ({ record }) =>
          record.state !== 'deleted' && record.confirmed && may(principal, { scope: SCOPE, worker: record }),
      )
      .map((entry) => this.#view(entry));
  }

  /** Those of owners that are meant, also those that are being made. */
  owned(meant: (owner: string) => boolean): string[] {
    const records = [...this.#entries.values()].map(({ record }) => record);
    return records.filter(({ state, owner }) => state !== 'deleted' && meant(owner)).map(({ worker }) => worker);
  }

  /** Throws WorkerUnknown, or Forbidden for one that is out of reach. */
  get(worker: string, principal: Principal): LastingWorker {
    return this.#view(this.#find(worker, principal));
  }

  /** Deletes it for good; resolves when that is on disk, and nothing is left of it where its node is there. */
  async remove(worker: string, principal: Principal): Promise<void> {
    const entry = this.#find(worker, principal, false);
    await this.#inTurn(entry, async () => {
      if (entry.record.state === 'deleted') throw new WorkerUnknown({ worker });
      await this.#bury(entry, `deleted by ${principal.name}`);
      this.#powers.event('WORKER_DELETED', { worker, owner: entry.record.owner, by: principal.name });
    });
    await this.#forget();
  }

  /** Takes grants from it for good: on disk first, then from what runs. Undefined where no such worker lasts. */
  async revoke(worker: string, what: Revocation): Promise<Grants | undefined> {
    const entry = this.#entries.get(worker);
    if (!entry || entry.record.state === 'deleted') return undefined;
    return this.#inTurn(entry, async () => {
      const { grants: before, secrets = {} } = entry.record;
      const grants = revokeGrants(before, what);
      const kept = Object.entries(secrets ?? {}).filter(([name]) => grants.secrets.some((one) => one.name === name));
      await this.#commit(entry, { grants, secrets: kept.length > 0 ? Object.fromEntries(kept) : undefined });
      // One that does not run has less when it is started; one whose node is away, when that is back.
      const { registry, swarm } = this.#powers;
      const runs = registry.workers.has(worker) && registry.nodes.has(registry.find(worker).node);
      return runs ? swarm.narrow(worker, grants) : grants;
    });
  }

  /** Waits for what is under way, and starts nothing more. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const entry of this.#entries.values()) clearTimeout(entry.timer);
    await Promise.allSettled([...this.#entries.values()].map((entry) => entry.turn));
  }

  #view(entry: Entry): LastingWorker {
    const { registry } = this.#powers;
    const { node, worker } = entry.record;
    const home_is_there = node !== null && registry.nodes.has(node);
    return viewOf(entry.record, home_is_there, entry.waiting?.why, registry.workers.get(worker)?.paused_at);
  }

  /** An event where its state is another than was told last. What a caller, or a core that starts, finds is no news. */
  #tell(entry: Entry): void {
    const { worker, owner, confirmed, state: own } = entry.record;
    if (!confirmed || own === 'deleted') return;
    const { state, why, node, epoch } = this.#view(entry);
    const { told: before } = entry;
    entry.told = state;
    if (before !== undefined && before !== state)
      this.#powers.event('WORKER_STATE_CHANGED', { worker, owner, state, before, why, node, epoch });
  }

  /** `confirmed`: not one that is still being made. */
  #find(worker: string, principal: Principal, confirmed = true): Entry {
    const entry = this.#entries.get(worker);
    if (!entry || entry.record.state === 'deleted' || (confirmed && !entry.record.confirmed))
      throw new WorkerUnknown({ worker });
    demand(principal, { scope: SCOPE, worker: entry.record });
    return entry;
  }

  #inTurn<T>(entry: Entry, work: () => Promise<T>): Promise<T> {
    const mine = entry.turn.then(work, work);
    entry.turn = mine.catch(() => {});
    return mine;
  }

  /** A node told what it has: strays end, what it should have and has not is started again. */
  #registered(node: RegisteredNode, workers: WorkerInfo[]): void {
    const name = node.info.node;
    const told = new Map(workers.filter((w) => w.lasting).map((w) => [w.worker, w]));
    for (const info of told.values()) {
      if (this.#damaged.has(`${PREFIX}${info.worker}`)) continue;
      const entry = this.#entries.get(info.worker);
      const stray = () =>
        entry?.record.epoch !== info.epoch || entry.record.node !== name || entry.record.state === 'deleted';
      const end = async () => {
        if (!stray()) return;
        this.#powers.event('WORKER_STRAY_ENDED', { worker: info.worker, node: name, epoch: info.epoch });
        await node.rpc.destruct(info.worker, 'another epoch has taken its place', info.epoch);
      };
      void (entry ? this.#inTurn(entry, end) : end()).catch(() => {});
    }
    for (const entry of this.#entries.values()) {
      if (entry.record.node !== name) continue;
      void this.#inTurn(entry, async () => {
        if (entry.record.node !== name || entry.seen_by === node) return;
        entry.away_since = undefined;
        const { worker, epoch } = entry.record;
        const found = this.#powers.registry.workers.get(worker);
        if (found?.node === name && found.epoch === epoch) {
          entry.seen_by = node;
          if (grantsWithin(entry.record.grants, found.grants) !== undefined)
            await this.#powers.swarm.narrow(worker, entry.record.grants);
          this.#runs(entry);
          if (entry.record.state !== 'running' && entry.record.state !== 'deleted')
            await this.#note(entry, { state: 'running', started_at: this.#now() });
        } else {
          // The registry believes it dead, or not to be this one: its next start must not find it there.
          if (told.get(worker)?.epoch === epoch)
            await node.rpc.destruct(worker, 'it counts as dead', epoch).catch(() => {});
          if (entry.record.state === 'running') await this.#dead(entry, 'node_lost', 'its node was restarted');
        }
        await this.#tend(entry);
        this.#tell(entry);
      });
    }
  }

  #died(fate: Fate): void {
    const entry = this.#entries.get(fate.worker);
    if (!entry) return;
    void this.#inTurn(entry, async () => {
      if (entry.record.state !== 'running' || fate.epoch !== entry.record.epoch) return;
      await this.#dead(entry, fate.cause, fate.reason, logText(fate.lines));
      await this.#tend(entry);
    });
  }

  #tendLater(entry: Entry, wait_ms: number): void {
    clearTimeout(entry.timer);
    if (this.#closed) return;
    const wait = Math.min(wait_ms, LONGEST_TIMER_MS);
    entry.timer = setTimeout(() => void this.#inTurn(entry, () => this.#tend(entry)), wait);
    entry.timer.unref();
  }

  /** Does what is due for a worker that ought to run; in turn. Never rejects. */
  async #tend(entry: Entry): Promise<void> {
    const { registry, node_grace_ms, event } = this.#powers;
    const { first_ms, most_ms } = this.#powers.restart ?? RESTART;
    const now = this.#elapsed();
    const { record } = entry;
    if (this.#closed || record.state === 'deleted' || this.#entries.get(record.worker) !== entry) return;
    const home = record.node === null ? undefined : registry.nodes.get(record.node);
    if (record.node !== null && !home) {
      const left = (entry.away_since ?? now) + node_grace_ms - now;
      if (left > 0) return this.#tendLater(entry, left);
      if (record.state === 'running') await this.#dead(entry, 'node_lost', `its node ${record.node} is gone`);
    } else if (record.state === 'running') return;
    // The time on disk is of a clock that may have been set back since.
    const next_try_at = Math.min(entry.record.next_try_at, this.#now() + most_ms);
    entry.record = { ...entry.record, next_try_at };
    const wait_ms = next_try_at - this.#now();
    if (wait_ms > 0) return this.#tendLater(entry, wait_ms);
    try {
      await this.#start(entry, home?.info.node);
      await this.#note(entry, { state: 'running' });
      const { worker, node, epoch, owner } = entry.record;
      event('WORKER_RESTARTED', { worker, node, epoch, owner });
    } catch (error) {
      const why = describe(error);
      if (CROWDED.some((kind) => isError(error, kind as typeof NoNodeFits)) || error instanceof CompareFailed) {
        const times = (entry.waiting?.times ?? 0) + 1;
        entry.waiting = { why, times };
        this.#tell(entry);
        this.#powers.registry.restarting.set(record.worker, { owner: record.owner, why });
        return this.#tendLater(entry, Math.min(first_ms * 2 ** Math.min(times - 1, 30), most_ms));
      }
      const { log_tail } = (error as { fields?: { log_tail?: string } }).fields ?? {};
      await this.#dead(entry, causeOfFailure(error), why, log_tail);
      this.#tendLater(entry, Math.max(0, entry.record.next_try_at - this.#now()));
    }
  }

  /** Spends an epoch and starts the worker: on its own node where that can take it, else on any that fits. */
  async #start(entry: Entry, home?: string): Promise<void> {
    const { record } = entry;
    const order = await orderOf(record, this.#texts);
    const place = (only?: string) =>
      this.#powers.swarm.place(order, {
        name: () => record.worker,
        only,
        restart: record.epoch > 0,
        chosen: async (_worker, node, driver) => {
          const epoch = entry.record.epoch + 1;
          await this.#commit(entry, { state: 'starting', epoch, node: node.info.node, driver });
          entry.seen_by = node;
          entry.away_since = undefined;
          return { epoch };
        },
      });
    await place(home).catch((error) => {
      if (home === undefined || !(isError(error, NoNodeFits) || isError(error, Overloaded))) throw error;
      return place();
    });
    entry.record = { ...entry.record, started_at: this.#now(), next_try_at: 0 };
    this.#runs(entry);
  }

  #runs(entry: Entry): void {
    entry.waiting = undefined;
    this.#powers.registry.restarting.delete(entry.record.worker);
  }

  async #dead(entry: Entry, cause: Cause, reason: string, log_tail = ''): Promise<void> {
    const { epoch, node, worker, owner } = entry.record;
    const death = { epoch, node, at: this.#now(), cause, reason, log_tail };
    this.#powers.registry.restarting.set(worker, { owner, why: `${reason}; it is being started again` });
    await this.#note(entry, afterDeath(entry.record, death, this.#powers.restart));
  }

  /** Leaves of it nothing but its epoch, so that a next one of its name goes on counting. */
  async #bury(
    entry: Entry,
    reason = 'nobody wants it',
    keep = (change: Partial<LastingRecord>) => this.#commit(entry, change),
  ): Promise<void> {
    const { worker, source, modules, node, epoch } = entry.record;
    clearTimeout(entry.timer);
    const none = { modules: null, code: null, secrets: undefined };
    const rest = { ...none, source: { text: '' }, deaths: [], grants: NO_GRANTS };
    await keep({ ...rest, state: 'deleted', deleted_at: this.#now() });
    this.#texts.release(source, modules);
    this.#powers.registry.restarting.delete(worker);
    const home = node === null ? undefined : this.#powers.registry.nodes.get(node);
    // A node that is away hears of it when it registers.
    await home?.rpc.destruct(worker, reason, epoch).catch(() => false);
  }

  /** Forgets the epochs of what was deleted long ago. */
  async #forget(): Promise<void> {
    const deleted = [...this.#entries.values()]
      .filter(({ record }) => record.state === 'deleted')
      .sort((a, b) => a.record.deleted_at - b.record.deleted_at);
    const before = this.#steady() - LIMITS.lasting_epoch_kept_ms;
    for (const [at, entry] of deleted.entries()) {
      const { worker, deleted_at } = entry.record;
      if (deleted_at >= before && at >= deleted.length - LIMITS.lasting_workers) continue;
      this.#entries.delete(worker);
      // Its epochs begin anew: what became of earlier ones would be taken for news of those.
      this.#powers.registry.fates.delete(worker);
      await this.#powers.kv.delete(`${PREFIX}${worker}`).catch(() => {
        // The disk remembers it still: so must whoever takes its name.
        if (!this.#entries.has(worker)) this.#entries.set(worker, entry);
      });
    }
  }

  /** On disk first, then here. */
  async #commit(entry: Entry, change: Partial<LastingRecord>): Promise<void> {
    const next = { ...entry.record, ...change };
    const { revision: expect } = entry;
    entry.revision = await this.#powers.kv.put(`${PREFIX}${next.worker}`, JSON.stringify(next), { expect });
    entry.record = next;
    this.#tell(entry);
  }

  /** Here, and on disk as soon as that can be, unless another worker has its name by then. */
  async #noteUntilKept(entry: Entry, change: Partial<LastingRecord>): Promise<void> {
    const { revision } = entry;
    await this.#note(entry, change);
    if (entry.revision !== revision || this.#closed) return;
    const again = async () => {
      if (this.#entries.get(entry.record.worker) === entry) await this.#noteUntilKept(entry, {});
    };
    clearTimeout(entry.timer);
    entry.timer = setTimeout(() => void this.#inTurn(entry, again), (this.#powers.restart ?? RESTART).most_ms);
    entry.timer.unref();
  }

  /** Here, and on disk if that can be: what is lost is found out again from the nodes. */
  async #note(entry: Entry, change: Partial<LastingRecord>): Promise<void> {
    await this.#commit(entry, change).catch((error) => {
      entry.record = { ...entry.record, ...change };
      this.#tell(entry);
      this.#powers.event('STORAGE_FAILED', { worker: entry.record.worker, why: describe(error) });
    });
  }
}
