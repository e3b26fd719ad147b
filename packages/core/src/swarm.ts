/**
 * Cloning as the core does it: phases 1 to 3. A request becomes a job, the matchmaker finds its node, the node forges
 * the worker, the core signs the ticket. What fails leaves nothing: a worker that nobody redeems ends with its lease.
 */
import {
  BadInput,
  ConnectionLost,
  describe,
  type EventName,
  type Fate,
  type FirstMessage,
  type GrantRequest,
  type Grants,
  heldGrants,
  type IsolationLevel,
  isError,
  type Job,
  type Language,
  LIMITS,
  NoNodeFits,
  normaliseGrants,
  Overloaded,
  type Provisioned,
  runtimeOf,
  type SecretRequests,
  SourceRejected,
  secretValues,
  type Ticket,
  type TicketPart,
  TooLarge,
  VaultFailed,
  WorkerUnknown,
} from '@hauki/protocol';
import { areFirst } from '@hauki/rpc/node';
import { checkBounds, leaseOf } from './bounds.ts';
import type { Callers } from './callers.ts';
import { stillbornOf } from './fates.ts';
import { place, refusal } from './matchmaker.ts';
import { codeOf, isLanguage, type ModulePowers, resolveModules } from './modules.ts';
import { randomName } from './names.ts';
import { madeOf, narrowedOf, ticketPartOf } from './node-told.ts';
import type { Quotas } from './quotas.ts';
import type { RegisteredNode, RegisteredWorker, Registry } from './registry.ts';
import { demand, demandGrants, type Principal, reachesNode, type Scope } from './rights.ts';
import { shareOf } from './shares.ts';
import type { Spawned, TicketOffice, TicketSubject } from './tickets.ts';
import type { TokenStore } from './tokens.ts';
import { isUnread, withoutSource } from './unread.ts';
import type { VolumeHomes } from './volumes.ts';
import { vouchedOf } from './vouchers.ts';

export interface SpawnRequest {
  pointer?: string;
  source?: string;
  language?: Language;
  driver?: string;
  /** No vault that holds less strongly will do. */
  min_isolation?: IsolationLevel;
  labels?: Record<string, string>;
  memory_mib?: number;
  /** Share of a core. */
  cpu?: number;
  /** What one turn of its code may compute; with the driver quickjs alone. */
  turn_ms?: number;
  grants?: GrantRequest;
  /** Values that the worker may have sent, and never sees. */
  secrets?: SecretRequests;
  /** Without a heartbeat for so long the worker ends. */
  lease_ms?: number;
  heartbeat_ms?: number;
  /** Lives at least so long without any heartbeat. */
  ttl_ms?: number;
  /** Ends so long after its birth for certain. */
  max_life_ms?: number;
  /** Ends when it has had no call for so long. */
  idle_ms?: number;
  load_timeout_ms?: number;
  /** What its owner says first. */
  first?: FirstMessage[];
  /** Thumbprint of the caller's key. */
  audience: string;
}

export interface SwarmPowers {
  registry: Registry;
  office: Pick<TicketOffice, 'sign' | 'vouchers'>;
  quotas: Pick<Quotas, 'reserve'>;
  meshfs: Pick<ModulePowers, 'resolve'>;
  tokens: Pick<TokenStore, 'demandLiving'>;
  volumes: VolumeHomes;
  /** Hears of every ticket that is signed. */
  callers: Pick<Callers, 'issued'>;
  /** Every SPAWN_DISTRIBUTED, as it happens. */
  event(name: EventName, fields: object): void;
  random: () => number;
}

/** What a vault of a driver gets when nobody said. Node needs much more than QuickJS to begin with. */
const DEFAULT_MEMORY_MIB: Record<string, number> = { lxc: 128, quickjs: 32, process: 128 };
/** Nodes that are tried for one job: one may have filled up or gone since it last reported. */
const ATTEMPTS = 3;
/** What is told of a node's own words where it could not: a sentence or two. */
const SAID_CHARS = 500;

/** What a request asks for, checked, with its source at hand: all but the worker's name and where it goes. */
export interface Order {
  job: Omit<Job, 'worker' | 'driver' | 'memory_mib'>;
  /** Undefined: the strongest isolation that any fitting node offers. */
  driver?: string | undefined;
  labels: Record<string, string>;
  /** Undefined: what the driver's vaults get when nobody said. */
  memory_mib?: number | undefined;
  /** Nodes that whoever asked may use; `*` for all. */
  nodes: readonly string[];
  /** Whether its source, or what that imports, is kept where whoever asked may not read. */
  unread?: boolean | undefined;
}

export interface PlaceOptions {
  /** The worker's name; called anew for each node that is tried. */
  name(): string;
  /** This node and no other. */
  only?: string | undefined;
  /** It has been started before, and is no clone of this minute. */
  restart?: boolean;
  /** Called when a node is chosen, before it hears of the job; a rejection ends the placement. May set the epoch. */
  chosen?(worker: string, node: RegisteredNode, driver: string): Promise<{ epoch?: number }>;
  /** Called when there is a vault and the worker is being loaded: it is tried on no other node then. */
  ready?: ((node: string, made: Provisioned) => void) | undefined;
}

export class Swarm {
  readonly #powers: SwarmPowers;

  constructor(powers: SwarmPowers) {
    this.#powers = powers;
    powers.registry.trust({ vouched: (voucher) => powers.office.vouchers.read(voucher) });
  }

  /**
   * `early`: told a part of what will be resolved with. Where something rides, what the worker answers to that at once, for
   * the ticket is yet to be signed; else all of it as soon as there is a vault, whose worker may then still fail to load.
   */
  async spawn(request: SpawnRequest, principal: Principal, early?: (part: Partial<Spawned>) => void): Promise<Spawned> {
    const order = await this.order(request, principal, { source: 'spawn', pointer: 'spawn.pointer' });
    const { lease, grants } = order.job;
    if (request.first) order.job.first = request.first;
    const sign = async (node: string, made: Provisioned): Promise<Spawned> => {
      const ticket = await this.#sign({ ...made, node, lease, grants }, made.ticket, request.audience, principal.name);
      return { worker: made.worker, node, ticket };
    };
    let told: Promise<Spawned> | undefined;
    const ready = (node: string, made: Provisioned) => {
      told ??= sign(node, made);
      told.then(early, () => {});
    };
    // A name of its own for each try: an answer that was lost must not collide with the next.
    const name = () => `w-${randomName(9)}`;
    const { entry, made } = await this.#powers.registry.patiently(
      () => {
        this.#powers.tokens.demandLiving(principal);
        return this.place(order, { name, ready: early && !request.first ? ready : undefined });
      },
      () => !told,
    );
    if (!areFirst(made.first)) return told ?? sign(entry.node, made);
    if (made.first.length > 0) early?.({ first: made.first });
    // What was told leaves at the end of this turn, and would wait for the signature otherwise.
    if (early) await new Promise((turn) => setImmediate(turn));
    return { ...(await sign(entry.node, made)), first: made.first };
  }

  /**
   * Checks a request, also against what the principal may (`scopes`: needed for source of one's own, and for a pointer),
   * and fetches its source. Rejects with Forbidden, BadInput, TooLarge, or as MeshFS does.
   */
  async order(
    request: Omit<SpawnRequest, 'audience'>,
    principal: Principal,
    scopes: { source: Scope; pointer: Scope },
  ): Promise<Order> {
    const { memory_mib, driver, labels = {}, cpu, turn_ms, min_isolation } = request;
    const asked = normaliseGrants(request.grants, request.secrets);
    const secrets = secretValues(request.secrets);
    demandGrants(principal, asked);
    // Source of one's own is more than what others have kept under a pointer.
    if (request.source !== undefined) demand(principal, { scope: scopes.source });
    else if (request.pointer) demand(principal, { scope: scopes.pointer, pointer: request.pointer });
    const { source, language, pointer } = await this.#source(request);
    const grants = heldGrants(asked, runtimeOf(language));
    // Whoever may run what is kept under pointers may have it import others; source of one's own could tell what they say.
    const reading: readonly Scope[] = pointer === undefined ? ['meshfs.read'] : ['meshfs.read', scopes.pointer];
    const powers = {
      resolve: (text: string) => this.#powers.meshfs.resolve(text),
      demand: (text: string) => demand(principal, { scope: reading, pointer: text }),
    };
    // What is written in Python imports no pointers.
    const modules = runtimeOf(language) === 'python' ? [] : await resolveModules({ source, pointer }, powers);
    const lease = leaseOf(request);
    checkBounds(request);
    const job = {
      owner: principal.name,
      source,
      language,
      code: codeOf({ source, pointer }, modules),
      modules,
      grants,
      ...(secrets ? { secrets } : {}),
      lease,
      ...(cpu === undefined ? {} : { cpu }),
      ...(turn_ms === undefined ? {} : { turn_ms }),
      ...(min_isolation === undefined ? {} : { min_isolation }),
      ttl_ms: request.ttl_ms ?? 0,
      ...(request.max_life_ms === undefined ? {} : { max_life_ms: request.max_life_ms }),
      ...(request.idle_ms === undefined ? {} : { idle_ms: request.idle_ms }),
      load_timeout_ms: Math.min(request.load_timeout_ms ?? LIMITS.load_ms, LIMITS.load_ms),
    };
    const unread = isUnread(principal, [pointer ?? [], ...modules.map((one) => one.pointer)].flat());
    return { job, driver, labels, memory_mib, nodes: principal.targets.nodes, unread };
  }

  /** Finds a node and has the worker made there. Rejects with NoNodeFits, or as the last node that was tried. */
  async place(order: Order, options: PlaceOptions): Promise<{ entry: RegisteredWorker; made: Provisioned }> {
    const quota = { release: () => {} };
    try {
      return await this.#place(order, options, quota);
    } finally {
      // The registry counts it from here on, where it lives.
      quota.release();
    }
  }

  async #place(order: Order, options: PlaceOptions, quota: { release: () => void }) {
    const { registry, office, volumes, event, random, quotas } = this.#powers;
    const { owner, min_isolation, grants } = order.job;
    const { volume } = grants;
    const usual = new Map(Object.entries(DEFAULT_MEMORY_MIB));
    const memory = (driver: string) => order.memory_mib ?? usual.get(driver) ?? 128;
    const { driver: asked, labels } = order;
    const runtime = runtimeOf(order.job.language);
    const wanted = { driver: asked, min_isolation, runtime, labels, memory_mib: memory, volume: volume !== null };
    /** What the nodes said that could not. */
    const tried = new Map<string, unknown>();
    for (;;) {
      // A volume is where it is.
      const home = volume ? volumes.home(owner, volume) : undefined;
      const candidates = registry
        .candidates()
        .filter(({ info: { node } }) => !tried.has(node) && (options.only ?? node) === node && (home ?? node) === node)
        .filter(({ info: { node } }) => reachesNode(order.nodes, node));
      const placed = place(wanted, candidates, random, registry.silence());
      if ('refused' in placed) {
        const said = [...tried.values()];
        if (said.length > 0 && said.every((error) => isError(error, Overloaded))) throw said.at(-1);
        const before = [...tried].map(([node, error]) => `${node} (tried: ${describe(error).slice(0, SAID_CHARS)})`);
        throw refusal(wanted, [...placed.refused, ...before]);
      }
      const { node, driver } = placed;
      const claim = volume ? await volumes.claim(owner, volume, node.info.node) : undefined;
      if (claim && claim.node !== node.info.node) continue;
      const job: Job = { ...order.job, worker: options.name(), driver, memory_mib: memory(driver) };
      const { ready } = options;
      if (ready) job.early = true;
      let told = false;
      // Nothing awaits from the look at the quota to the reservation. One that is tried again was counted already.
      quota.release();
      quota.release = quotas.reserve(job.owner, job.memory_mib, tried.size === 0 && options.restart !== true);
      const release = registry.reserve(node, job.memory_mib);
      try {
        Object.assign(job, await options.chosen?.(job.worker, node, driver));
      } catch (error) {
        release();
        throw error;
      }
      registry.forges(job, node.info.node, (made) => {
        told = true;
        ready?.(node.info.node, madeOf(made, job));
      });
      job.voucher = office.vouchers.sign(job, node.info.node);
      event('SPAWN_DISTRIBUTED', { worker: job.worker, node: node.info.node, driver, owner: job.owner });
      try {
        const made = madeOf(await node.rpc.provision(job), job);
        return { entry: this.#admit(job, node.info.node, made), made };
      } catch (thrown) {
        release();
        const error = order.unread ? withoutSource(thrown) : thrown;
        // Its answer may only be late: then nobody waits for the worker any more. One that is overloaded has made none.
        if (!isError(error, Overloaded))
          void node.rpc.destruct(job.worker, 'its clone failed', job.epoch ?? 1).catch(() => {});
        tried.set(node.info.node, error);
        event('SPAWN_FAILED', { worker: job.worker, node: node.info.node, owner: job.owner, error: describe(error) });
        // It has no room, so it has made no volume either: another node may.
        if (volume && claim?.fresh && isError(error, Overloaded)) await volumes.unclaim(owner, volume).catch(() => {});
        if (isError(error, SourceRejected) || isError(error, VaultFailed))
          registry.stillborn(stillbornOf(job, node.info.node, error));
        const again = isError(error, Overloaded) || isError(error, ConnectionLost) || isError(error, NoNodeFits);
        if (again && !told && tried.size < ATTEMPTS) continue;
        throw error;
      } finally {
        registry.forging.delete(job.worker);
      }
    }
  }

  /** A further ticket to a living worker, for a visitor: it may call, but neither renew nor end. */
  async visitorTicket(worker: string, audience: string, caller: string): Promise<Ticket> {
    const { registry } = this.#powers;
    const subject = registry.find(worker);
    const by = shareOf(worker, caller);
    const part = ticketPartOf(await registry.ask(worker, ({ rpc }) => rpc.mint_ticket(worker, by)));
    return this.#sign(subject, part, audience, caller);
  }

  #sign(subject: TicketSubject, part: TicketPart, audience: string, caller: string): Promise<Ticket> {
    const { registry, callers, office } = this.#powers;
    const { worker } = subject;
    // What is noted goes with the worker's end: not of one that has ended meanwhile.
    if (registry.parent(worker)) callers.issued(part.jti, { worker, role: part.role, caller });
    return office.sign(subject, part, audience);
  }

  /**
   * Takes grants from a living worker: from its next effect on it has no more than `most` gives of them, and its clones no
   * more than it. Resolves with what it has then.
   */
  async narrow(worker: string, most: Grants): Promise<Grants> {
    const { registry } = this.#powers;
    const { info } = registry.home(worker);
    const told = narrowedOf(await registry.ask(worker, ({ rpc }) => rpc.narrow(worker, most)));
    for (const one of told) registry.regranted(one.worker, one.grants, info.node);
    registry.regranted(worker, most, info.node);
    return registry.find(worker).grants;
  }

  /** Kills at once; resolves when nothing is left of it. */
  async destruct(worker: string, principal: Principal): Promise<void> {
    if (this.#powers.registry.workers.get(worker)?.lasting)
      throw new BadInput({
        what: worker,
        why: `it lasts, and would only be started again. What ends it: hauki provision rm ${worker}, or DELETE /api/v2/lxc_provision/${worker}`,
      });
    await this.#powers.registry.ask(worker, ({ rpc }) => rpc.destruct(worker, `destructed by ${principal.name}`));
  }

  /** What is known of a worker, dead or alive. */
  state(
    worker: string,
  ): { state: 'alive'; node: string } | { state: 'dead'; fate: Fate } | { state: 'node_lost'; node: string } {
    const { registry } = this.#powers;
    const entry = registry.workers.get(worker);
    if (entry) return { state: registry.nodes.has(entry.node) ? 'alive' : 'node_lost', node: entry.node };
    const fate = registry.fate(worker);
    if (!fate) throw new WorkerUnknown({ worker });
    return { state: 'dead', fate };
  }

  #admit(job: Job, node: string, made: Provisioned): RegisteredWorker {
    const { worker, epoch, driver, isolation, direct } = made;
    const own = { isolation, direct, pid: 0, born_at: Date.now(), lease_until: 0 };
    // Its parent may have lost some while it was being made.
    const { grants } = this.#powers.registry.forging.get(worker) ?? job;
    const entry: RegisteredWorker = { ...vouchedOf({ ...job, grants }, node), ...own };
    // News of its end may come first: then there is nothing to be given a ticket for.
    if (!this.#powers.registry.born(entry))
      throw this.#powers.registry.death(worker) ?? new VaultFailed({ driver, reason: 'a later start took its place' });
    this.#powers.event('WORKER_BORN', { worker, node, driver, owner: job.owner, epoch });
    return entry;
  }

  /** `pointer`: the canonical one, where the source is kept under one. */
  async #source(
    request: Omit<SpawnRequest, 'audience'>,
  ): Promise<{ source: string; language: Language; pointer?: string }> {
    const { pointer, source } = request;
    if ((pointer === undefined) === (source === undefined))
      throw new BadInput({ what: 'the request', why: 'give either a pointer or a source' });
    if (source !== undefined) {
      checkSource(source);
      return { source, language: request.language ?? 'javascript' };
    }
    const found = await this.#powers.meshfs.resolve(pointer!);
    checkSource(found.content);
    const language = request.language ?? found.language;
    if (!isLanguage(language))
      throw new BadInput({
        what: pointer!,
        why: `a worker is JavaScript, TypeScript or Python, but this is ${found.media_type}. Write it with a language`,
      });
    return { source: found.content, language, pointer: found.pointer };
  }
}

function checkSource(source: string): void {
  const got_bytes = Buffer.byteLength(source);
  if (got_bytes > LIMITS.source_bytes)
    throw new TooLarge({ what: 'The source', limit_bytes: LIMITS.source_bytes, got_bytes });
}
