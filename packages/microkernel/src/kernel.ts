/**
 * A microkernel: an empty vessel that modules are posted to. It composes: what stages a version is `evolve.ts`, what a
 * module does while it runs `module.ts`, what is remembered `store.ts`; what speaks HTTP is `server.ts`.
 *
 * What always holds: modules run in vaults and are called over Mesh-RPC, none of their code runs in here; a change is
 * made by one commit, and after a crash at any moment the kernel runs what the last one says.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { deserialize, serialize } from 'node:v8';
import { type Backplane, openEmbedded } from '@hauki/backplane';
import { createMeshFs, type MeshFs } from '@hauki/meshfs';
import { Agent, defaultMemoryMib, Volumes } from '@hauki/node';
import {
  BadInput,
  type CoreForNode,
  type Deed,
  describe,
  type Evolved,
  EvolveRejected,
  type EvolveRequest,
  type JournalEntry,
  ModuleUnknown,
  type ModuleView,
  NoNodeFits,
  normaliseGrants,
  Overloaded,
  prefixOf,
  type VersionFacts,
} from '@hauki/protocol';
import { createDrivers } from '@hauki/vault';
import { checkSource, rejection, stage } from './evolve.ts';
import { type Instance, PluginHost } from './instance.ts';
import { KERNEL_LIMITS } from './limits.ts';
import { Module } from './module.ts';
import { aliasesMeet, checkAlias, readModule } from './names.ts';
import { type ModuleRecord, Store } from './store.ts';
import { diffOf, digestOf, operate } from './surgeon.ts';
import { TicketDesk } from './tickets.ts';
import { checkTrials, mergeTrials } from './trial.ts';

export interface KernelOptions {
  data_dir: string;
  /** Its number, as in Microkernel-77. */
  id: string;
  drivers?: string[];
  memory_mib?: number;
  log(line: string, fields?: object): void;
}

/** What a plugin's vault gets when nobody said. */
const MEMORY_MIB: Record<string, number> = { lxc: 128, quickjs: 32, process: 128 };

export type Announcement =
  | { what: 'evolved'; module: string; version: number; digest: string; by: string }
  | { what: 'removed'; module: string; by: string };

export class Kernel {
  readonly name: string;
  readonly meshfs: MeshFs;
  readonly #store: Store;
  readonly #backplane: Backplane;
  readonly #agent: Agent;
  readonly #host: PluginHost;
  readonly #modules = new Map<string, Module>();
  readonly #log: KernelOptions['log'];
  readonly #listeners = new Set<(announcement: Announcement) => void>();
  #aliases = new Map<string, string>();
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
  }

  /** Opens a kernel over its data folder and starts what it ran before. */
  static async open(options: KernelOptions): Promise<Kernel> {
    const { data_dir, id, log, memory_mib = defaultMemoryMib() } = options;
    const backplane = await openEmbedded(join(data_dir, 'store'));
    const meshfs = await createMeshFs(backplane, { wiki_folder: join(data_dir, 'wiki'), report: (line) => log(line) });
    const store = await Store.open(backplane, meshfs, join(data_dir, 'uah_endpoints'));
    const node = `kernel-${id}`;
    const desk = new TicketDesk();
    const agent = new Agent({
      node,
      labels: {},
      drivers: await createDrivers({ node_id: node, data_dir: join(data_dir, 'vaults'), log, only: options.drivers }),
      listen_host: '127.0.0.1',
      tls: false,
      memory_mib,
      volumes: new Volumes({ node, data_dir: join(data_dir, 'vaults'), log }),
      core: () => effectsCore(meshfs, log),
      keys: () => desk.keys,
      log,
    });
    await agent.start();
    const host = new PluginHost({ agent, node, desk, log });
    const kernel = new Kernel(options, { meshfs, store, backplane, agent, host });
    await kernel.#restore();
    return kernel;
  }

  get aliases(): ReadonlyMap<string, string> {
    return this.#aliases;
  }

  /** Told of each change that came about. */
  onChange(listener: (announcement: Announcement) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The module that serves under this name. */
  module(name: string): Module | undefined {
    const module = this.#modules.get(name);
    return module && module.record.live.length > 0 ? module : undefined;
  }

  modules(): ModuleView[] {
    return [...this.#modules.values()]
      .filter(({ record }) => record.live.length > 0)
      .map((module) => this.#view(module))
      .sort((a, b) => (a.module < b.module ? -1 : 1));
  }

  /** The modules, with what their vaults take. */
  async measured(): Promise<ModuleView[]> {
    const usage = new Map((await this.#agent.measured()).map(({ worker, usage }) => [worker, usage?.memory_bytes]));
    return this.modules().map((module) => ({
      ...module,
      live: module.live.map((live) => {
        const memory_bytes = usage.get(live.worker);
        return memory_bytes === undefined ? live : { ...live, memory_bytes };
      }),
    }));
  }

  #view(module: Module): ModuleView {
    const { record, main } = module;
    return {
      module: module.name,
      state: module.state,
      prefix: `${prefixOf(module.name)}/`,
      alias: record.alias,
      version: main?.version ?? record.live[0]?.version ?? null,
      digest: main?.spec.digest ?? null,
      language: main?.spec.language ?? null,
      pinned: record.pinned,
      good: record.good,
      bounds: record.bounds,
      live: module.view(),
    };
  }

  drivers(): Record<string, { available: boolean; reason?: string; isolation: string }> {
    return this.#agent.info().drivers;
  }

  /**
   * Tries a new version of a module and lets it serve. Rejects with EvolveRejected (stage, why, line, log), EditRefused,
   * BadInput, TooLarge, or Overloaded; then nothing has changed.
   */
  async evolve(request: EvolveRequest, by: string): Promise<Evolved> {
    const { module: name, language } = readModule(request.target_module, request.language);
    const posted = checkTrials(request.tests);
    const grants = normaliseGrants(request.grants);
    const alias = request.alias === undefined ? undefined : checkAlias(request.alias);
    const { weight, dry_run = false } = request;
    if (weight !== undefined && !(Number.isInteger(weight) && weight >= 0 && weight <= 100))
      throw new BadInput({ what: 'weight', why: 'a whole number from 0 to 100' });
    const module = this.#modules.get(name) ?? this.#newModule(name);
    return module.exclusive(async () => {
      const { record } = module;
      if (record.pinned && !dry_run)
        throw new EvolveRejected({ module: name, stage: 'pin', why: 'it is pinned; unpin it first' });
      if (alias !== undefined) this.#checkAliasFree(alias, name);
      const main = record.live.length > 0 ? await this.#mainFacts(record) : undefined;
      const running = main && (await this.#store.source(name, main.version));
      const source = checkSource(await this.#sourceOf(request, running));
      const kept = mergeTrials(record.tests, posted);
      const digest = digestOf(source);
      const driver = this.#driver(request.driver ?? main?.driver);
      const memory_mib = request.memory_mib ?? main?.memory_mib ?? MEMORY_MIB[driver] ?? 128;
      const version = await this.#store.nextVersion(name);
      // Grants that are not named stay as they were: an edit does not take them away.
      const granted = request.grants === undefined && main ? main.grants : grants;
      const facts = { module: name, version, digest, language, driver, memory_mib, grants: granted };
      const staged = await stage(this.#host, { ...facts, source, trials: kept, dry: dry_run });
      const { instance, report } = staged;
      const diff = running === undefined ? '' : diffOf(name, running, source);
      const answer: Evolved = {
        module: name,
        version,
        digest,
        prefix: `${prefixOf(name)}/`,
        alias: alias ?? record.alias,
        routes: report.routes,
        report,
        dry_run,
        ...(dry_run || request.edits ? { diff } : {}),
      };
      if (dry_run) {
        await instance.end('it was a dry run');
        return answer;
      }
      const next: ModuleRecord = {
        ...record,
        latest: version,
        live: liveWith(record.live, version, weight),
        good: main?.version ?? null,
        bounds: request.bounds === undefined ? record.bounds : request.bounds,
        alias: alias ?? record.alias,
        tests: kept,
      };
      const whole: VersionFacts = { ...facts, bytes: Buffer.byteLength(source), at: Date.now(), by, report };
      try {
        await this.#store.keepSource(name, version, source, language);
        await this.#change(module, next, [instance], request.edits ? 'operate' : 'evolve', by, whole);
      } catch (error) {
        await instance.end('it did not come into service');
        throw rejection(name, 'swap', error, instance.log_tail());
      }
      this.#tell({ what: 'evolved', module: name, version, digest, by });
      return answer;
    });
  }

  /** Lets an earlier version serve again, with the state from before it was left. Rejects as `evolve` does. */
  async rollback(name: string, wanted: number | undefined, by: string): Promise<Evolved> {
    const module = this.#known(name);
    return module.exclusive(() => this.#goBack(module, wanted, 'rollback', by, null));
  }

  async #goBack(module: Module, wanted: number | undefined, deed: Deed, by: string, note: string | null) {
    const { name, record } = module;
    const target = wanted ?? record.good;
    if (target === null || target === undefined)
      throw new BadInput({ what: 'version', why: `there is no version of ${name} to go back to; name one` });
    const facts = await this.#store.facts(name, target);
    // It may live still, with a weight of its own.
    const living = module.instance(target);
    const instance = living ?? (await this.#startVersion(facts));
    const next: ModuleRecord = { ...record, live: [{ version: target, weight: 100 }], good: null };
    try {
      await this.#change(module, next, living ? [] : [instance], deed, by, facts, note, facts.state_pointer);
    } catch (error) {
      if (!living) await instance.end('it did not come into service');
      throw rejection(name, deed, error, instance.log_tail());
    }
    this.#tell({ what: 'evolved', module: name, version: target, digest: facts.digest, by });
    const { report, digest } = facts;
    const prefix = `${prefixOf(name)}/`;
    return {
      module: name,
      version: target,
      digest,
      prefix,
      alias: next.alias,
      routes: report.routes,
      report,
      dry_run: false,
    };
  }

  /** Sets which versions serve how much. Weights add up to 100; a version of 0 is reached by header only. */
  async weigh(name: string, weights: Record<string, number>, by: string): Promise<ModuleView> {
    const module = this.#known(name);
    return module.exclusive(async () => {
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
          if (!module.instance(version)) started.push(await this.#startVersion(await this.#store.facts(name, version)));
        const all = [...live.map(({ version }) => module.instance(version)), ...started];
        if (live.length > 1 && all.some((instance) => instance?.has_state))
          throw new BadInput({ what: 'versions', why: `${name} keeps a state, which two versions cannot share` });
        const note = live.map(({ version, weight }) => `${version}: ${weight}`).join(', ');
        const next = { ...module.record, live };
        const entry = { module: name, deed: 'weights' as const, by, version: null, digest: null, note };
        await module.swap(next, started, () => this.#store.commit(next, entry));
      } catch (error) {
        await Promise.all(started.map((instance) => instance.end('it did not come into service')));
        throw error;
      }
      return this.#view(module);
    });
  }

  /** While a module is pinned no evolve changes it. */
  async pin(name: string, pinned: boolean, by: string): Promise<void> {
    const module = this.#known(name);
    await module.exclusive(async () => {
      const record = { ...module.record, pinned };
      const note = pinned ? 'pinned' : 'let go of';
      await this.#store.commit(record, { module: name, deed: 'pin', by, version: null, digest: null, note });
      module.record = record;
    });
  }

  /** Takes the module's routes away. Its versions stay readable, and their numbers are not given again. */
  async remove(name: string, by: string): Promise<void> {
    const module = this.#known(name);
    await module.exclusive(async () => {
      const record = { ...module.record, live: [], good: null, alias: null, pinned: false };
      const entry = { module: name, deed: 'remove' as const, by, version: null, digest: null, note: null };
      await module.swap(record, [], () => this.#store.commit(record, entry));
      this.#indexAliases();
    });
    this.#tell({ what: 'removed', module: name, by });
  }

  versions(name: string): Promise<VersionFacts[]> {
    return this.#store.versions(name);
  }

  async version(name: string, version: number): Promise<VersionFacts & { source: string }> {
    const facts = await this.#store.facts(name, version);
    return { ...facts, source: await this.#store.source(name, version) };
  }

  async diff(name: string, from: number, to: number): Promise<string> {
    await this.#store.facts(name, from);
    await this.#store.facts(name, to);
    const [before, after] = await Promise.all([this.#store.source(name, from), this.#store.source(name, to)]);
    return diffOf(name, before, after, `version ${from}`, `version ${to}`);
  }

  history(name?: string): Promise<JournalEntry[]> {
    return this.#store.journal.entries(name);
  }

  /** Ends all vaults. What ran runs again at the next start, with the state that it has now. */
  async close(): Promise<void> {
    await Promise.all([...this.#modules.values()].map((module) => module.close('the kernel is shut down')));
    await this.#agent.close();
    await this.#backplane.close();
  }

  /** The one way in which what serves changes: hand over the state, commit, swap. */
  async #change(
    module: Module,
    next: ModuleRecord,
    started: Instance[],
    deed: Deed,
    by: string,
    facts: VersionFacts,
    note: string | null = null,
    restore?: string,
  ): Promise<void> {
    const { version, digest } = facts;
    const entry = { module: module.name, deed, by, version, digest, note };
    const old = module.main;
    const [instance] = started;
    const all = next.live.some((live) => live.version === version && live.weight === 100);
    if (instance?.has_state && !all)
      throw new BadInput({ what: 'weight', why: `${module.name} keeps a state, which two versions cannot share` });
    if (!instance || !old?.has_state || !all) {
      if (instance && restore !== undefined) await this.#hydrate(instance, await this.#store.state(restore), version);
      await module.swap(next, started, () => this.#store.commit(next, entry, [facts]));
    } else {
      const left = await this.#store.facts(module.name, old.version);
      await module.quiesce(old, async () => {
        const state = serialize(await old.dehydrate());
        if (state.length > KERNEL_LIMITS.state_bytes)
          throw new Error(`its state has ${state.length} bytes; ${KERNEL_LIMITS.state_bytes} are taken over`);
        const given = restore === undefined ? state : await this.#store.state(restore);
        if (instance.has_state) await this.#hydrate(instance, given, old.version);
        const state_pointer = await this.#store.keepState(module.name, old.version, state);
        const both = [facts, { ...left, state_pointer }];
        await module.swap(next, started, () => this.#store.commit(next, entry, both));
      });
    }
    this.#indexAliases();
  }

  async #hydrate(instance: Instance, state: Uint8Array, from_version: number): Promise<void> {
    try {
      await instance.hydrate(deserialize(state), from_version);
    } catch (error) {
      throw new Error(`hydrate failed: ${describe(error)}`);
    }
  }

  async #startVersion(facts: VersionFacts): Promise<Instance> {
    const source = await this.#store.source(facts.module, facts.version);
    return this.#host.start({ ...facts, source, load_timeout_ms: KERNEL_LIMITS.start_ms });
  }

  #newModule(name: string): Module {
    if (this.#modules.size >= KERNEL_LIMITS.modules)
      throw new Overloaded({ what: 'modules of this kernel', limit: KERNEL_LIMITS.modules });
    const record = this.#store.record(name) ?? {
      module: name,
      latest: 0,
      live: [],
      good: null,
      bounds: null,
      alias: null,
      tests: [],
      pinned: false,
    };
    const module: Module = new Module(record, {
      start: async (version) => this.#startVersion(await this.#store.facts(name, version)),
      abort: (version, why) => void this.#abort(module, version, why),
      log: this.#log,
    });
    this.#modules.set(name, module);
    return module;
  }

  /** A version that left its bounds is taken back, unless something else changed meanwhile. */
  async #abort(module: Module, version: number, why: string): Promise<void> {
    try {
      await module.exclusive(async () => {
        const { live, good } = module.record;
        if (good === null || !live.some((one) => one.version === version)) return;
        this.#log(`version ${version} of ${module.name} is taken back: ${why}`);
        await this.#goBack(module, good, 'abort', 'kernel', `version ${version}: ${why}`);
      });
    } catch (error) {
      this.#log(`version ${version} of ${module.name} could not be taken back: ${describe(error)}`);
    }
  }

  async #restore(): Promise<void> {
    const modules = this.#store.records().map(({ module }) => this.#newModule(module));
    this.#indexAliases();
    const queue = [...modules];
    const starters = Array.from({ length: availableParallelism() * 2 }, async () => {
      for (let module = queue.shift(); module; module = queue.shift()) await module.restore();
    });
    await Promise.all(starters);
  }

  #known(name: string): Module {
    const module = this.module(name);
    if (!module) throw new ModuleUnknown({ module: name, has: this.modules().map((one) => one.module) });
    return module;
  }

  async #mainFacts(record: ModuleRecord): Promise<VersionFacts> {
    const [main] = [...record.live].sort((a, b) => b.weight - a.weight);
    return this.#store.facts(record.module, main!.version);
  }

  async #sourceOf(request: EvolveRequest, running: string | undefined): Promise<unknown> {
    const { content, pointer, edits } = request;
    if ([content, pointer, edits].filter((one) => one !== undefined).length !== 1)
      throw new BadInput({ what: 'the request', why: 'give one of content, pointer and edits' });
    if (edits !== undefined) return operate(running, request.base_digest, edits);
    return content ?? (await this.meshfs.resolve(pointer!)).content;
  }

  #driver(wanted: string | undefined): string {
    const drivers = this.drivers();
    const offered = Object.keys(drivers).filter((name) => drivers[name]!.available);
    const driver = wanted ?? offered[0];
    if (driver === undefined || !offered.includes(driver))
      throw new NoNodeFits({
        wanted: { driver: wanted ?? 'any' },
        have: Object.entries(drivers).map(([name, offer]) => (offer.available ? name : `no ${name}: ${offer.reason}`)),
      });
    return driver;
  }

  #checkAliasFree(alias: string, name: string): void {
    for (const [taken, module] of this.#aliases)
      if (module !== name && aliasesMeet(alias, taken))
        throw new BadInput({ what: 'alias', why: `${alias} is taken: ${module} is served at ${taken}` });
  }

  #indexAliases(): void {
    const aliases = [...this.#modules.values()].flatMap(({ name, record }) =>
      record.alias !== null && record.live.length > 0 ? [[record.alias, name] as const] : [],
    );
    this.#aliases = new Map(aliases);
  }

  #tell(announcement: Announcement): void {
    for (const listener of this.#listeners) listener(announcement);
  }
}

/** What serves when a version comes in with a weight. */
function liveWith(live: ModuleRecord['live'], version: number, weight = 100): ModuleRecord['live'] {
  if (weight === 100 || live.length === 0) return [{ version, weight: 100 }];
  if (live.length >= KERNEL_LIMITS.live_versions)
    throw new Overloaded({ what: 'versions that live at once', limit: KERNEL_LIMITS.live_versions });
  const rest = live.map((one) => ({ ...one, weight: Math.floor((one.weight * (100 - weight)) / 100) }));
  const [main] = [...rest].sort((a, b) => b.weight - a.weight);
  main!.weight += 100 - weight - rest.reduce((sum, one) => sum + one.weight, 0);
  return [...rest, { version, weight }];
}

/** The core that a kernel is to its own agent: MeshFS for granted modules, and nobody to report to. */
function effectsCore(meshfs: MeshFs, log: KernelOptions['log']): CoreForNode {
  return {
    register: async () => ({ keys: {}, core: 'kernel' }),
    report: async () => {},
    worker_died: async ({ worker, reason }) => log(`vault ${worker} ended: ${reason}`),
    meshfs_write: async (_worker, pointer, content, media_type) =>
      meshfs.write({ pointer, content, ...(media_type === undefined ? {} : { media_type }) }),
    meshfs_resolve: async (_worker, pointer) => meshfs.resolve(pointer),
  };
}
