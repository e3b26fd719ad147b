/** The modules of a kernel: which there are, at which aliases, and how they are started again. */
import { availableParallelism } from 'node:os';
import {
  BadInput,
  describe,
  type Evolved,
  type ModuleLog,
  ModuleUnknown,
  type ModuleView,
  type NodeInfo,
  Overloaded,
  prefixOf,
  type VersionFacts,
} from '@hauki/protocol';
import { keepPresent, resume } from './handover.ts';
import type { Instance } from './instance.ts';
import { damaged } from './journal.ts';
import { KERNEL_LIMITS } from './limits.ts';
import { Module } from './module.ts';
import { aliasesMeet } from './names.ts';
import type { PluginHost } from './plugin-host.ts';
import { settingsOf } from './settings.ts';
import { emptyRecord, type ModuleRecord, type Store } from './store.ts';
import { digestOf } from './surgeon.ts';

export interface ModulesPowers {
  store: Store;
  host: PluginHost;
  log(line: string, fields?: object): void;
  /** A version of the module left its bounds. */
  abort(module: Module, version: number, why: string): Promise<void>;
}

/** A module as people see it. */
export function viewOf(module: Module): ModuleView {
  const { record, main_version: version = null } = module;
  const live = module.view();
  const main = live.find((one) => one.version === version && !one.draining);
  const { routes = [], requests = 0, errors = 0, error_rate = 0, p50_ms = null, p99_ms = null } = main ?? {};
  const known = version === null ? undefined : module.known(version);
  return {
    module: module.name,
    state: module.state,
    prefix: `${prefixOf(module.name)}/`,
    alias: record.alias,
    version,
    digest: known?.digest ?? null,
    language: known?.language ?? null,
    pinned: record.pinned,
    good: record.good,
    bounds: record.bounds,
    routes,
    requests,
    errors,
    error_rate,
    p50_ms,
    p99_ms,
    live,
  };
}

/** A version as whoever made it serve is told of it. */
export function answerOf(
  {
    module,
    version,
    digest,
    report,
    driver,
  }: Pick<VersionFacts, 'module' | 'version' | 'digest' | 'report' | 'driver'>,
  alias: string | null,
  drivers: NodeInfo['drivers'],
): Evolved {
  const { level = 'none', isolation = '' } = drivers[driver] ?? {};
  const vault = { driver, level, isolation };
  const prefix = `${prefixOf(module)}/`;
  return { module, version, digest, prefix, alias, routes: report.routes, vault, report, dry_run: false };
}

export class Modules {
  readonly #powers: ModulesPowers;
  readonly #all = new Map<string, Module>();
  #aliases = new Map<string, string>();
  /** Those that changes under way ask for. */
  readonly #held = new Map<string, string>();

  constructor(powers: ModulesPowers) {
    this.#powers = powers;
  }

  get aliases(): ReadonlyMap<string, string> {
    return this.#aliases;
  }

  /** The module that serves under this name. */
  get(name: string): Module | undefined {
    const module = this.#all.get(name);
    return module && module.record.live.length > 0 ? module : undefined;
  }

  /** The same. Throws ModuleUnknown. */
  known(name: string): Module {
    const module = this.get(name);
    if (!module) throw new ModuleUnknown({ module: name, has: this.views().map((one) => one.module) });
    return module;
  }

  /** What versions of it said; also of one that was removed, for a while. Throws ModuleUnknown. */
  logs(name: string, version?: number): Promise<ModuleLog[]> {
    return (this.#all.get(name) ?? this.known(name)).logs(version);
  }

  /** What serves in this vault, if it is a module's first version and not staged or left. */
  serving(worker: string): Instance | undefined {
    for (const { main } of this.#all.values()) if (main?.worker === worker) return main;
    return undefined;
  }

  /** `memory`: what a vault takes, where that is known. */
  views(memory: (worker: string) => number | null | undefined = () => undefined): ModuleView[] {
    const measured = <T extends object>(view: T, worker = ''): T => {
      const memory_bytes = memory(worker);
      return memory_bytes === undefined ? view : { ...view, memory_bytes };
    };
    return [...this.#all.values()]
      .filter(({ record }) => record.live.length > 0)
      .map((module) => {
        const view = viewOf(module);
        const live = view.live.map((one) => measured(one, one.worker));
        return measured({ ...view, live }, module.main?.worker);
      })
      .sort((a, b) => (a.module < b.module ? -1 : 1));
  }

  /** The module of this name, whether anything of it serves yet or not. Throws Overloaded. */
  make(name: string): Module {
    const known = this.#all.get(name);
    if (known) return known;
    // Those that came to nothing, or were removed, take nobody's place.
    if (this.#all.size >= KERNEL_LIMITS.modules)
      for (const one of this.#all.values()) if (one.rests) this.#all.delete(one.name);
    if (this.#all.size >= KERNEL_LIMITS.modules)
      throw new Overloaded({ what: 'modules of this kernel', limit: KERNEL_LIMITS.modules });
    const { store, log, abort } = this.#powers;
    const module: Module = new Module(store.record(name) ?? emptyRecord(name), {
      start: async (version) => {
        const facts = await store.facts(name, version);
        module.remember(version, facts);
        const instance = await this.startVersion(facts);
        if (await resume(store, instance, module.record)) return instance;
        log(`version ${version} of ${name} does not take the state again that it began with, and begins without`);
        await instance.end('it did not take its state');
        return this.startVersion(facts);
      },
      abort: (version, why) => abort(module, version, why),
      log,
    });
    this.#all.set(name, module);
    return module;
  }

  /** Starts what the store says must run. Resolves when each of it runs or has failed once. */
  async restore(): Promise<void> {
    const wanted = this.#powers.store.records().filter(({ live }) => live.length > 0);
    const queue = wanted.map(({ module }) => this.make(module));
    this.indexAliases();
    const starters = Array.from({ length: availableParallelism() * 2 }, async () => {
      for (let module = queue.shift(); module; module = queue.shift()) await module.restore();
    });
    await Promise.all(starters);
  }

  async startVersion(facts: VersionFacts): Promise<Instance> {
    const { store, host } = this.#powers;
    const source = await store.source(facts.module, facts.version);
    if (digestOf(source) !== facts.digest)
      throw damaged(`Version ${facts.version} of ${facts.module}`, 'its source was changed');
    return host.start({ ...facts, source, load_timeout_ms: KERNEL_LIMITS.start_ms });
  }

  #takerOf(alias: string, name: string): [string, string] | undefined {
    return [...this.#aliases, ...this.#held].find(([one, by]) => by !== name && aliasesMeet(alias, one));
  }

  /** The settings to go back to with a version. */
  settingsOf(facts: VersionFacts, record: ModuleRecord): ReturnType<typeof settingsOf> {
    return settingsOf(facts, record, (alias) => this.#takerOf(alias, record.module) === undefined);
  }

  /** Keeps an alias, if there is one, for a module while that is changed. Throws BadInput where it is not free. */
  holdAlias(alias: string | null, name: string): Disposable | undefined {
    if (alias === null) return undefined;
    const taken = this.#takerOf(alias, name);
    if (taken) throw new BadInput({ what: 'alias', why: `${alias} is taken: ${taken[1]} is served at ${taken[0]}` });
    this.#held.set(alias, name);
    return { [Symbol.dispose]: () => void this.#held.delete(alias) };
  }

  /** To be called when a record has changed. */
  indexAliases(): void {
    const aliases = [...this.#all.values()].flatMap(({ name, record }) =>
      record.alias !== null && record.live.length > 0 ? [[record.alias, name] as const] : [],
    );
    this.#aliases = new Map(aliases);
  }

  /** Ends all; what has a state has it kept for its next start. */
  async close(reason: string): Promise<void> {
    const { store, log } = this.#powers;
    await Promise.all(
      [...this.#all.values()].map(async (module) => {
        await keepPresent(store, module).catch((error) => log(`the state of ${module.name}: ${describe(error)}`));
        await module.close(reason);
      }),
    );
  }
}
