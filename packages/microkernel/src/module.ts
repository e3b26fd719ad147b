/**
 * One module while the kernel runs: which of its versions serve, and how one takes another's place.
 *
 * What always holds: a request is given to exactly one version, and a version that is left is ended only when it serves
 * nothing more or its time to drain is over; what serves changes in one step after the change is durable; changes of a
 * module come one after the other. While a stateful module hands its state over, requests wait (bounded) and none is
 * lost: when it fails, the old version serves them.
 */
import {
  type Answer,
  BadInput,
  ConnectionLost,
  describe,
  isError,
  type LiveView,
  type ModuleLog,
  type ModuleState,
  ModuleUnknown,
  Overloaded,
  PluginFailed,
} from '@hauki/protocol';
import { isWhole } from '@hauki/rpc/node';
import { isDue, keeps, whyOut } from './bounds.ts';
import { Draining } from './draining.ts';
import { blame, type Instance, type InstanceSpec, type PluginRequest } from './instance.ts';
import { KERNEL_LIMITS } from './limits.ts';
import type { VersionStats } from './stats.ts';
import type { ModuleRecord } from './store.ts';

export interface ModulePowers {
  /** Starts a version that was kept, as it was. */
  start(version: number): Promise<Instance>;
  /** A live version left its bounds, or dies again and again. Resolves when it was taken back, or could not be. */
  abort(version: number, why: string): Promise<void>;
  log(line: string, fields?: object): void;
}

/** First wait before a version that died is started again, doubled up to the second. */
const AGAIN_MS = { first: 50, most: 30_000 };
/** A version that lived so long has not failed at once. */
const STABLE_MS = 10_000;
/** From so many failures in a row requests are refused instead of held. */
const FAILED_AFTER = 3;

/** The header by which a caller asks for one version. */
export const VERSION_HEADER = 'x-hauki-version';

type Known = Pick<InstanceSpec, 'digest' | 'language'>;

export class Module {
  readonly name: string;
  record: ModuleRecord;
  readonly #powers: ModulePowers;
  readonly #serving = new Map<number, Instance>();
  readonly #draining = new Draining();
  /** Versions that are being started again, and how often they have failed in a row. */
  readonly #again = new Map<number, { failures: number; timer?: NodeJS.Timeout }>();
  /** What live versions answered in vaults that have died: their next ones go on counting. */
  readonly #past = new Map<number, VersionStats>();
  readonly #judged = new WeakSet<VersionStats>();
  /** Of live versions, also while their vaults are dead. */
  readonly #known = new Map<number, Known>();
  /** Of these, those with a state. */
  readonly #stateful = new Set<number>();
  /** What it said is remembered for a while. */
  #last_ended: Instance | undefined;
  /** Whether new requests wait. */
  #holds = false;
  #held = 0;
  #waiting = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(record: ModuleRecord, powers: ModulePowers) {
    this.name = record.module;
    this.record = record;
    this.#powers = powers;
  }

  /** One change at a time; others wait their turn, bounded. */
  async exclusive<T>(run: () => Promise<T>): Promise<T> {
    if (this.#waiting >= KERNEL_LIMITS.changes_waiting)
      throw new Overloaded({ what: `changes of the module ${this.name}`, limit: KERNEL_LIMITS.changes_waiting });
    this.#waiting++;
    const turn = this.#turn.then(run).finally(() => this.#waiting--);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Whether nothing of it serves, and nothing is under way. */
  get rests(): boolean {
    return this.record.live.length === 0 && this.#waiting === 0 && this.#draining.size === 0;
  }

  get state(): ModuleState {
    if (this.#holds) return 'handing_over';
    const down = this.record.live.filter(({ version }) => !this.#serving.has(version));
    if (down.length === 0) return 'serving';
    return down.some(({ version }) => (this.#again.get(version)?.failures ?? 0) >= FAILED_AFTER)
      ? 'failed'
      : 'restarting';
  }

  /** The live version with the most weight. */
  get main(): Instance | undefined {
    return this.#serving.get(this.main_version ?? 0);
  }

  get main_version(): number | undefined {
    return [...this.record.live].sort((a, b) => b.weight - a.weight)[0]?.version;
  }

  /** Whether a live version has a state; of one that has never run yet that is not known. */
  get has_state(): boolean {
    return this.record.live.some(({ version }) => this.#stateful.has(version));
  }

  /** What is known of a live version, whether its vault lives or not. */
  known(version: number): Known | undefined {
    return this.#known.get(version);
  }

  /** To be told before a version is started again. */
  remember(version: number, { digest, language }: Known): void {
    this.#known.set(version, { digest, language });
  }

  instance(version: number): Instance | undefined {
    return this.#serving.get(version);
  }

  view(): LiveView[] {
    const weights = new Map(this.record.live.map(({ version, weight }) => [version, weight]));
    const one = (instance: Instance, draining: boolean): LiveView => ({
      version: instance.version,
      weight: draining ? 0 : (weights.get(instance.version) ?? 0),
      digest: instance.spec.digest,
      in_flight: instance.in_flight,
      draining,
      routes: instance.description.routes,
      driver: instance.spec.driver,
      worker: instance.worker,
      ...instance.stats.view(),
    });
    return [
      ...[...this.#serving.values()].sort((a, b) => a.version - b.version).map((instance) => one(instance, false)),
      // One that has finished only rests.
      ...this.#draining.all.filter(({ in_flight }) => in_flight > 0).map((instance) => one(instance, true)),
    ];
  }

  /** What those said that live, and the one that ended last; the newest last. Of one version alone, where it is named. */
  async logs(version?: number): Promise<ModuleLog[]> {
    const all = new Set([...this.#serving.values(), ...this.#draining.all]);
    if (this.#last_ended) all.add(this.#last_ended);
    const told = [...all].filter((one) => version === undefined || one.version === version);
    if (version !== undefined && told.length === 0) {
      const have = [...new Set([...all].map((one) => one.version))].sort((a, b) => a - b).join(', ') || 'none';
      throw new BadInput({ what: 'version', why: `of ${this.name} there is a log of: ${have}` });
    }
    return Promise.all(told.sort((a, b) => a.born_at - b.born_at).map((one) => one.log()));
  }

  /** The version for a request, where there is one at once. Rejects as `choose` does. */
  ready(asked?: string): Instance | undefined {
    return this.#holds ? undefined : this.#pick(asked);
  }

  /**
   * Chooses the version for a request, and waits while there is none for a moment. `asked`: the version that the caller
   * names. Rejects with PluginFailed or Overloaded, or with ModuleUnknown when it is removed meanwhile.
   */
  async choose(asked?: string): Promise<Instance> {
    const at_once = this.ready(asked);
    if (at_once) return at_once;
    if (this.#held >= KERNEL_LIMITS.held)
      throw new Overloaded({ what: `requests held for the module ${this.name}`, limit: KERNEL_LIMITS.held });
    this.#held++;
    const until = performance.now() + KERNEL_LIMITS.held_ms;
    try {
      for (;;) {
        if (this.state === 'failed')
          throw new PluginFailed({ module: this.name, why: 'it dies again and again; see its log' });
        const left = until - performance.now();
        if (left <= 0 || this.#closed)
          throw new PluginFailed({
            module: this.name,
            why: `no version of it was ready in ${KERNEL_LIMITS.held_ms} ms`,
          });
        await this.#ready(left);
        const chosen = this.ready(asked);
        if (chosen) return chosen;
        if (this.record.live.length === 0) throw new ModuleUnknown({ module: this.name });
      }
    } finally {
      this.#held--;
    }
  }

  /** Has a version serve a request. Rejects as a call does, with PluginFailed, or with Overloaded. */
  async serve(request: PluginRequest, asked?: string): Promise<{ answer: Answer; instance: Instance }> {
    let instance = this.ready(asked) ?? (await this.choose(asked));
    try {
      return { answer: await instance.fetch(request), instance };
    } catch (error) {
      // It died before the request was sent: another takes its place in a moment.
      if (!isError(error, ConnectionLost) || !isWhole(request.body)) throw blame(instance, error);
      instance = await this.choose(asked);
      return {
        answer: await instance.fetch(request).catch((again) => {
          throw blame(instance, again);
        }),
        instance,
      };
    } finally {
      this.#judge(instance);
    }
  }

  readonly #waiters = new Set<() => void>();

  #ready(within_ms: number): Promise<void> {
    return new Promise((resolve) => {
      const tell = () => {
        clearTimeout(timer);
        this.#waiters.delete(tell);
        resolve();
      };
      const timer = setTimeout(tell, within_ms);
      this.#waiters.add(tell);
    });
  }

  #changed(): void {
    for (const tell of [...this.#waiters]) tell();
  }

  #pick(asked: string | undefined): Instance | undefined {
    if (asked !== undefined) {
      const named = /^[1-9]\d{0,8}$/.test(asked) ? this.#serving.get(Number(asked)) : undefined;
      if (named) return named;
      // One that is being started again is waited for; one that does not live is not known here.
      if (!this.record.live.some(({ version }) => String(version) === asked))
        throw new BadInput({
          what: VERSION_HEADER,
          why: `version ${asked.slice(0, 20)} of ${this.name} does not run; ${this.record.live.map((live) => live.version).join(', ')} do`,
        });
      return undefined;
    }
    const { live } = this.record;
    if (live.length === 1) return this.#serving.get(live[0]!.version);
    const ready = live.filter(({ version, weight }) => weight > 0 && this.#serving.has(version));
    let at = Math.random() * ready.reduce((sum, { weight }) => sum + weight, 0);
    for (const { version, weight } of ready) {
      at -= weight;
      if (at < 0) return this.#serving.get(version);
    }
    return ready.length > 0 ? this.#serving.get(ready.at(-1)!.version) : undefined;
  }

  /** Whether something can serve in a version's place: the good one, or one beside it that does well. */
  #mayGo(version: number): boolean {
    const { live, good, bounds } = this.record;
    if (!bounds) return false;
    if (good !== null && good !== version) return true;
    const does_well = (stats: VersionStats | undefined) => stats !== undefined && keeps(bounds, stats);
    return live.some(
      (one) => one.version !== version && one.weight > 0 && does_well(this.#serving.get(one.version)?.stats),
    );
  }

  /** After each answer of a version: one that leaves its bounds is taken back. */
  #judge(instance: Instance): void {
    const { bounds } = this.record;
    if (!bounds || this.#judged.has(instance.stats)) return;
    // Its vault may have died of the request.
    if (!this.record.live.some(({ version }) => version === instance.version) || !isDue(instance.stats)) return;
    const why = whyOut(bounds, instance.stats);
    if (why === undefined || !this.#mayGo(instance.version)) return;
    this.#judged.add(instance.stats);
    void this.#powers.abort(instance.version, why).then(() => this.#judged.delete(instance.stats));
  }

  /** Starts what the record says must run. Resolves when each of them runs or has failed once. */
  async restore(): Promise<void> {
    await Promise.all(this.record.live.map(({ version }) => this.#start(version)));
  }

  async #start(version: number): Promise<void> {
    try {
      const instance = await this.#powers.start(version);
      if (this.#closed || !this.record.live.some((one) => one.version === version) || this.#serving.has(version))
        return await instance.end('it is not needed any more');
      this.#take(instance);
    } catch (error) {
      this.#failed(version, describe(error));
    }
  }

  #take(instance: Instance): void {
    instance.stats = this.#past.get(instance.version) ?? instance.stats;
    this.#past.delete(instance.version);
    this.remember(instance.version, instance.spec);
    if (instance.has_state) this.#stateful.add(instance.version);
    else this.#stateful.delete(instance.version);
    this.#serving.set(instance.version, instance);
    void instance.gone.then((reason) => this.#died(instance, reason));
    this.#changed();
  }

  #died(instance: Instance, reason: string): void {
    this.#last_ended = instance;
    this.#draining.forget(instance);
    if (this.#serving.get(instance.version) !== instance) return;
    this.#serving.delete(instance.version);
    this.#past.set(instance.version, instance.stats);
    void instance.end(reason);
    if (this.#closed) return;
    if (performance.now() - instance.born_at > STABLE_MS) this.#again.delete(instance.version);
    this.#failed(instance.version, reason);
  }

  #failed(version: number, why: string): void {
    if (this.#closed || !this.record.live.some((one) => one.version === version)) return;
    const entry = this.#again.get(version) ?? { failures: 0 };
    const wait_ms = Math.min(AGAIN_MS.first * 2 ** entry.failures, AGAIN_MS.most);
    entry.failures++;
    this.#powers.log(`version ${version} of ${this.name} is down, and started again in ${wait_ms} ms: ${why}`);
    this.#again.set(version, entry);
    this.#changed();
    const again = () => {
      if (this.#closed || this.#again.get(version) !== entry) return;
      entry.timer = setTimeout(() => void this.#start(version), wait_ms);
    };
    if (!this.#mayGo(version) || entry.failures < FAILED_AFTER) return again();
    // It has no twenty answers to be judged by. Started again meanwhile it might die while its state is asked for.
    void this.#powers.abort(version, `it died ${entry.failures} times in a row: ${why}`).then(again);
  }

  /** What would serve no longer when these take its place, the one with the most weight first. */
  leftBy({ live }: ModuleRecord, started: readonly Instance[]): Instance[] {
    const stays = ({ version }: Instance) =>
      live.some((one) => one.version === version) && !started.some((one) => one.version === version);
    const weights = new Map(this.record.live.map(({ version, weight }) => [version, weight]));
    const weightOf = ({ version }: Instance) => weights.get(version) ?? 0;
    return [...this.#serving.values()].filter((one) => !stays(one)).sort((a, b) => weightOf(b) - weightOf(a));
  }

  /**
   * Lets `record` and the instances given take the place of what serves now. `durable` makes the change durable; when it
   * rejects nothing has changed.
   */
  async swap(record: ModuleRecord, started: readonly Instance[], durable: () => Promise<void>): Promise<void> {
    await durable();
    const left = this.leftBy(record, started);
    this.record = record;
    const stays = new Set(record.live.map(({ version }) => version));
    for (const old of left) this.#serving.delete(old.version);
    for (const [version, entry] of this.#again) {
      if (stays.has(version)) continue;
      clearTimeout(entry.timer);
      this.#again.delete(version);
    }
    for (const gone of [this.#past, this.#known, this.#stateful])
      for (const version of gone.keys()) if (!stays.has(version)) gone.delete(version);
    for (const instance of started) this.#take(instance);
    this.#changed();
    for (const old of left) void this.#draining.add(old);
  }

  /** Holds new requests, runs `handover`, and lets the held ones go to whoever serves then. */
  async hold<T>(handover: () => Promise<T>): Promise<T> {
    this.#holds = true;
    try {
      return await handover();
    } finally {
      this.#holds = false;
      this.#changed();
    }
  }

  /** Tells the kernel's log. */
  log(line: string): void {
    this.#powers.log(line);
  }

  /** Ends everything of it. */
  async close(reason: string): Promise<void> {
    this.#closed = true;
    for (const { timer } of this.#again.values()) clearTimeout(timer);
    this.#changed();
    await Promise.all([...this.#serving.values(), ...this.#draining.all].map((instance) => instance.retire(reason)));
  }
}
