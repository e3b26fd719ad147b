/**
 * A microkernel: an empty vessel that modules are posted to. It composes: what stages a version is `evolve.ts`, what a
 * module does while it runs `module.ts`, what is remembered `store.ts`; what speaks HTTP is `server.ts`.
 *
 * What always holds: modules run in vaults and are called over Mesh-RPC, none of their code runs in here; a change is
 * made by one commit, and after a crash at any moment the kernel runs what the last one says.
 */
import { join } from 'node:path';
import { type Backplane, openEmbedded } from '@hauki/backplane';
import { createMeshFs, type MeshFs } from '@hauki/meshfs';
import { Agent, defaultMemoryMib, Volumes } from '@hauki/node';
import {
  BadInput,
  type Deed,
  describe,
  type Evolved,
  type EvolveRequest,
  MeshError,
  type ModuleLog,
  type ModuleView,
  normaliseGrants,
  type VersionFacts,
} from '@hauki/protocol';
import { createDrivers, createNetwork, type Network, Pool } from '@hauki/vault';
import { chooseDriver, usualMemory_mib } from './choose-driver.ts';
import { Endings } from './endings.ts';
import { checkSource, rejection, sourceOf, stage } from './evolve.ts';
import { handOver } from './handover.ts';
import { grantsOf, withHome } from './homes.ts';
import type { Instance } from './instance.ts';
import type { Journal } from './journal.ts';
import { KERNEL_LIMITS } from './limits.ts';
import type { Announcement } from './lines.ts';
import type { Module } from './module.ts';
import { answerOf, Modules, viewOf } from './modules.ts';
import { checkAlias, checkGrants, readModule } from './names.ts';
import { ownCore } from './own-core.ts';
import { PluginHost } from './plugin-host.ts';
import { checkNoState, checkPin, checkWeight, goodOf, liveWith, liveWithout, sharesOf } from './settings.ts';
import { emptyRecord, type ModuleRecord, Store } from './store.ts';
import { diffOf, digestOf } from './surgeon.ts';
import { TicketDesk } from './tickets.ts';
import { checkTrials, mergeTrials } from './trial.ts';

export interface KernelOptions {
  data_dir: string;
  /** Its number, as in Microkernel-77. */
  id: string;
  drivers?: string[];
  memory_mib?: number;
  /** Makes granted connections where this process has no network. */
  dial?: Network['dial'];
  log(line: string, fields?: object): void;
}

export class Kernel {
  readonly name: string;
  readonly meshfs: MeshFs;
  readonly #store: Store;
  readonly #backplane: Backplane;
  readonly #agent: Agent;
  readonly #host: PluginHost;
  /** What runs. */
  readonly #modules: Modules;
  readonly #log: KernelOptions['log'];
  readonly #listeners = new Set<(announcement: Announcement) => void>();
  readonly started_at = Date.now();

  private constructor(
    options: KernelOptions,
    parts: { meshfs: MeshFs; store: Store; backplane: Backplane; agent: Agent; host: PluginHost },
  ) {
    this.name = `Microkernel-${options.id}`;
    this.#log = options.log;
    this.meshfs = parts.meshfs;
    this.#store = parts.store;
    this.#backplane = parts.backplane;
    this.#agent = parts.agent;
    this.#host = parts.host;
    this.#modules = new Modules({
      store: parts.store,
      host: parts.host,
      log: options.log,
      abort: (module, version, why) => this.#abort(module, version, why),
    });
  }

  /** Opens a kernel over its data folder and starts what it ran before. */
  static async open(options: KernelOptions): Promise<Kernel> {
    const { data_dir, id, log, dial, memory_mib = defaultMemoryMib() } = options;
    const remembered_changes = KERNEL_LIMITS.remembered_changes;
    const backplane = await openEmbedded(join(data_dir, 'store'), { remembered_changes });
    const meshfs = await createMeshFs(backplane, { wiki_folder: join(data_dir, 'wiki'), report: (line) => log(line) });
    const store = await Store.open(backplane, meshfs, join(data_dir, 'uah_endpoints'));
    const node = `kernel-${id}`;
    const [desk, endings] = [new TicketDesk(), new Endings()];
    // Without a network of its own it is in a sandbox.
    const place = { node_id: node, data_dir: join(data_dir, 'vaults'), contained: dial !== undefined };
    const made = await createDrivers({ ...place, log, only: options.drivers });
    const pool = new Pool({ room_mib: () => agent.room_mib(), calm_ms: () => agent.calm_ms(), log });
    const agent: Agent = new Agent({
      node,
      labels: {},
      drivers: made.map((driver) => pool.wrap(driver)),
      listen_host: '127.0.0.1',
      tls: false,
      memory_mib,
      ...(dial ? { network: createNetwork({ dial }) } : {}),
      volumes: new Volumes({ node, data_dir: place.data_dir, plain: place.contained, log }),
      core: () => ownCore(meshfs, () => kernel, host),
      keys: () => desk.keys,
      log,
    });
    await agent.start();
    const host = new PluginHost({ agent, node, desk, endings, log });
    const kernel: Kernel = new Kernel(options, { meshfs, store, backplane, agent, host });
    await kernel.#modules.restore();
    return kernel;
  }

  /** Told of each change that came about. */
  onChange(listener: (announcement: Announcement) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get aliases(): ReadonlyMap<string, string> {
    return this.#modules.aliases;
  }

  /** The module that serves under this name. */
  module(name: string): Module | undefined {
    return this.#modules.get(name);
  }

  /** What serves in this vault, if anything does. */
  serving(worker: string): Instance | undefined {
    return this.#modules.serving(worker);
  }

  get journal(): Journal {
    return this.#store.journal;
  }

  modules(): ModuleView[] {
    return this.#modules.views();
  }

  /** The modules, with what their vaults take. */
  async measured(): Promise<ModuleView[]> {
    const usage = new Map((await this.#agent.measured()).map(({ worker, usage }) => [worker, usage?.memory_bytes]));
    return this.#modules.views((worker) => usage.get(worker));
  }

  drivers(): Record<string, { available: boolean; reason?: string; isolation: string }> {
    return this.#agent.info().drivers;
  }

  /**
   * Tries a new version of a module and lets it serve. Rejects with EvolveRejected (stage, why, line, log), EditRefused,
   * BadInput, or Overloaded; then nothing has changed.
   */
  async evolve(request: EvolveRequest, by: string): Promise<Evolved> {
    const named = readModule(request.target_module, request.language);
    const name = named.module;
    const posted = checkTrials(request.tests);
    const asked = checkGrants(normaliseGrants(request.grants));
    const named_alias = typeof request.alias === 'string' ? checkAlias(request.alias) : request.alias;
    const { weight, dry_run = false } = request;
    checkWeight(weight);
    const module = this.#modules.make(name);
    return module.exclusive(async () => {
      const { record } = module;
      if (!dry_run) checkPin(module);
      if (weight !== undefined && weight < 100) checkNoState('weight', name, module.has_state);
      const alias = named_alias === undefined ? record.alias : named_alias;
      using _held = this.#modules.holdAlias(alias, name);
      const main = await this.#store.main(record);
      const running = main && (await this.#store.source(name, main.version));
      const found = await sourceOf(this.#store, this.meshfs, name, request, running);
      const source = checkSource(found.source, name);
      // Edits leave the language as it is.
      const language = named.language ?? (request.edits ? main?.language : found.language) ?? 'javascript';
      const tests = mergeTrials(request.keep_tests === false ? [] : record.tests, posted);
      const bounds = request.bounds === undefined ? record.bounds : request.bounds;
      const digest = digestOf(source);
      const { drivers, memory_mib: all_mib } = this.#agent.info();
      const driver = chooseDriver(drivers, language, request, main?.driver);
      const kept_mib = main?.driver === driver ? main.memory_mib : undefined;
      const memory_mib = request.memory_mib ?? kept_mib ?? usualMemory_mib(driver, all_mib);
      const version = await this.#store.nextVersion(name);
      const live = liveWith(record.live, version, weight);
      const share = live.at(-1)!.weight;
      const { volumes } = this.#agent;
      const grants = grantsOf(request, asked, language, main, volumes);
      const facts = { module: name, version, digest, language, driver, memory_mib, grants };
      return await withHome(volumes, name, grants, async () => {
        const { instance, report } = await stage(this.#host, {
          ...facts,
          source,
          trials: tests,
          kept: new Set(record.tests),
          dry: dry_run,
        });
        const shown = dry_run || request.edits;
        const answer: Evolved = {
          ...answerOf({ ...facts, report }, alias, drivers),
          dry_run,
          ...(share < 100 ? { weight: share } : {}),
          ...(shown ? { diff: running === undefined ? '' : diffOf(name, running, source) } : {}),
        };
        if (dry_run) {
          await instance.end('it was a dry run');
          return answer;
        }
        const settings = { tests, bounds, alias, good: goodOf(record, module.main, bounds) };
        const next: ModuleRecord = { ...record, ...settings, latest: version, live };
        const bytes = Buffer.byteLength(source);
        const whole: VersionFacts = { ...facts, bytes, at: Date.now(), by, report, settings };
        const note = live.length > 1 ? sharesOf(live) : null;
        try {
          if (!instance.open) throw new Error('its vault has ended meanwhile');
          const deed = request.edits ? 'operate' : 'evolve';
          await handOver(this.#store, { module, next, instance, deed, by, facts: whole, note });
          this.#modules.indexAliases();
        } catch (error) {
          await instance.end('it did not come into service');
          throw rejection(name, 'swap', error, instance.log_tail());
        }
        this.#tell({ what: 'evolved', module: name, version, digest, by });
        return answer;
      });
    });
  }

  /** Lets an earlier version serve again, with the state from before it was left. Rejects as `evolve` does. */
  async rollback(name: string, wanted: number | undefined, by: string): Promise<Evolved> {
    return this.#change(name, (module) => this.#goBack(module, wanted, 'rollback', by, null));
  }

  /** Changes a module that serves and is not pinned, when it is its turn: it may have been removed meanwhile. */
  #change<T>(name: string, run: (module: Module) => Promise<T>, if_pinned = false): Promise<T> {
    return this.#modules.known(name).exclusive(async () => {
      const module = this.#modules.known(name);
      if (!if_pinned) checkPin(module);
      return run(module);
    });
  }

  async #goBack(module: Module, wanted: number | undefined, deed: Deed, by: string, note: string | null) {
    const { name, record } = module;
    const target = wanted ?? record.good;
    if (target === null || target === undefined)
      throw new BadInput({ what: 'version', why: `nothing of ${name} served before this; name one of its versions` });
    const facts = await this.#store.facts(name, target);
    // It may live still, with a weight of its own.
    const living = module.instance(target);
    if (living && record.live.length === 1) return answerOf(facts, record.alias, this.#agent.info().drivers);
    const settings = this.#modules.settingsOf(facts, record);
    using _held = this.#modules.holdAlias(settings.alias, name);
    const instance = living ?? (await this.#modules.startVersion(facts));
    const next: ModuleRecord = { ...record, ...settings, live: [{ version: target, weight: 100 }] };
    try {
      const { state_pointer: restore } = facts;
      const started = living ? undefined : instance;
      await handOver(this.#store, { module, next, instance: started, deed, by, facts, note, restore });
      this.#modules.indexAliases();
    } catch (error) {
      if (!living) await instance.end('it did not come into service');
      throw rejection(name, deed, error, instance.log_tail());
    }
    this.#tell({ what: 'evolved', module: name, version: target, digest: facts.digest, by });
    return answerOf(facts, next.alias, this.#agent.info().drivers);
  }

  /** Sets which versions serve how much. Weights add up to 100; a version of 0 is reached by header only. */
  async weigh(name: string, weights: Record<string, number>, by: string): Promise<ModuleView> {
    return this.#change(name, async (module) => {
      const live = Object.entries(weights).map(([version, weight]) => ({ version: Number(version), weight }));
      const sum = live.reduce((all, { weight }) => all + weight, 0);
      if (live.length === 0 || live.length > KERNEL_LIMITS.live_versions || sum !== 100)
        throw new BadInput({
          what: 'versions',
          why: `weights of one to ${KERNEL_LIMITS.live_versions} versions that add up to 100`,
        });
      const started: Instance[] = [];
      try {
        for (const { version } of live)
          if (!module.instance(version))
            started.push(await this.#modules.startVersion(await this.#store.facts(name, version)));
        const all = [...live.map(({ version }) => module.instance(version)), ...started];
        if (live.length > 1)
          checkNoState('versions', name, module.has_state || all.some((instance) => instance?.has_state));
        const note = sharesOf(live);
        const next = { ...module.record, live };
        const [only, ...others] = live;
        if (only && others.length === 0) {
          // All requests go to one version: it takes the state over, as at any other swap.
          const facts = await this.#store.facts(name, only.version);
          const alone = { ...next, good: facts.settings?.good ?? null };
          await handOver(this.#store, { module, next: alone, instance: started[0], deed: 'weights', by, facts, note });
        } else {
          const entry = { module: name, deed: 'weights' as const, by, note };
          await module.swap(next, started, () => this.#store.commit(next, entry));
        }
      } catch (error) {
        await Promise.all(started.map((instance) => instance.end('it did not come into service')));
        throw error instanceof MeshError ? error : rejection(name, 'weights', error);
      }
      return viewOf(module);
    });
  }

  /** While a module is pinned nobody changes it; a version that leaves its bounds is taken back all the same. */
  async pin(name: string, pinned: boolean, by: string): Promise<void> {
    const set = async (module: Module) => {
      const record = { ...module.record, pinned };
      const note = pinned ? 'pinned' : 'let go of';
      await this.#store.commit(record, { module: name, deed: 'pin', by, note });
      module.record = record;
    };
    await this.#change(name, set, true);
  }

  /**
   * Takes the module's routes away, with its tests and bounds. Its versions stay readable, and their numbers are not given
   * again. What it has begun it finishes. Rejects with EvolveRejected where it is pinned.
   */
  async remove(name: string, by: string): Promise<void> {
    await this.#change(name, async (module) => {
      const record = { ...emptyRecord(name), latest: module.record.latest };
      const entry = { module: name, deed: 'remove' as const, by };
      await module.swap(record, [], () => this.#store.commit(record, entry));
      this.#modules.indexAliases();
    });
    this.#tell({ what: 'removed', module: name, by });
  }

  logs(name: string, version?: number): Promise<ModuleLog[]> {
    return this.#modules.logs(name, version);
  }

  versions(name: string): Promise<VersionFacts[]> {
    return this.#store.versions(name);
  }

  async version(name: string, version: number): Promise<VersionFacts & { source: string }> {
    const facts = await this.#store.facts(name, version);
    return { ...facts, source: await this.#store.source(name, version) };
  }

  async diff(name: string, from: number, to: number): Promise<string> {
    const [before, after] = await Promise.all([this.version(name, from), this.version(name, to)]);
    return diffOf(name, before.source, after.source, `version ${from}`, `version ${to}`);
  }

  /** Ends all vaults. What ran runs again at the next start, with the state that it has now. */
  async close(): Promise<void> {
    await this.#modules.close('the kernel is shut down');
    await this.#store.copy();
    await this.#agent.close();
    await this.#backplane.close();
  }

  /** A version that left its bounds is taken back, unless something else changed meanwhile. */
  async #abort(module: Module, version: number, why: string): Promise<void> {
    try {
      await module.exclusive(async () => {
        const { name, record } = module;
        const { live, good } = record;
        const rest = liveWithout(live, version);
        const target = rest[0]?.version ?? good;
        if (target === null || target === version || rest.length === live.length) return;
        this.#log(`version ${version} of ${name} is taken back: ${why}`);
        const note = `version ${version}: ${why}`;
        if (rest.length <= 1) return this.#goBack(module, target, 'abort', 'kernel', note);
        // Those of whichever came last.
        const last = Math.max(...rest.map((one) => one.version));
        const settings = this.#modules.settingsOf(await this.#store.facts(name, last), record);
        using _held = this.#modules.holdAlias(settings.alias, name);
        const next = { ...record, ...settings, live: rest };
        const entry = { module: name, deed: 'abort' as const, by: 'kernel', note };
        await module.swap(next, [], () => this.#store.commit(next, entry));
        this.#modules.indexAliases();
      });
    } catch (error) {
      this.#log(`version ${version} of ${module.name} could not be taken back: ${describe(error)}`);
    }
  }

  #tell(announcement: Announcement): void {
    for (const listener of this.#listeners) listener(announcement);
  }
}
