/**
 * Vaults that were started before anybody asked for them. A vault takes long to start and little to hand out.
 *
 * What always holds: a vault is handed out once, whole and as asked, or not at all; what is ready is never more than the
 * bounds here, nor more memory than the node has not promised, and gives way when memory is asked for; what nobody
 * asks for any more is ended. One pool for all drivers of a node, since they share its memory. A driver that can be
 * pooled says so (`Pooling`); vaults of a pool are of the driver like any other, so they are swept and closed with it.
 */
import { randomBytes } from 'node:crypto';
import { describe } from '@hauki/protocol';
import type { Driver, Offer, Vault, VaultSpec } from './driver.ts';

export const POOL = {
  /** Ready at once, of all kinds: what a burst takes before it waits for starts. Each costs about 40 MiB while idle. */
  vaults: 8,
  /** How long a request is remembered as demand. */
  demand_ms: 30_000,
  /** So many requests of a kind within that time are worth one ready vault: who asks once may never ask again. */
  requests_per_vault: 2,
  /** Requests remembered for each kind, and kinds; the oldest are forgotten. */
  requests: 64,
  kinds: 8,
  /** A ready vault older than this is ended: what it was started with may have changed. */
  age_ms: 300_000,
  /** A start of the pool waits this long after the last caller got its worker, who has more to do on this machine then. */
  quiet_ms: 60,
  /** But no longer than this, or those who ask all the time would never be served from the pool. */
  patience_ms: 400,
  /** How often is looked for what is old, or wanted no more. */
  look_ms: 5_000,
} as const;

export interface PoolOptions {
  /** MiB of memory that the node has not promised yet; what is ready is not counted as promised. */
  room_mib(): number;
  /** For how long no caller has waited for a worker, of whatever driver; 0 while one does. */
  calm_ms?(): number;
  log?(line: string, fields?: object): void;
}

interface Shelf {
  driver: Driver;
  /** What they are started for: what makes the kind. */
  spec: VaultSpec;
  /** When such vaults were asked for. */
  asked: number[];
  ready: Ready[];
}

interface Ready {
  vault: Vault;
  memory_mib: number;
  since: number;
}

/** How many should be ready when such vaults were asked for at these times. */
export function wanted(asked: readonly number[], now: number): number {
  const recent = asked.filter((at) => now - at < POOL.demand_ms).length;
  return Math.min(POOL.vaults, Math.floor(recent / POOL.requests_per_vault));
}

export class Pool {
  readonly #options: PoolOptions;
  readonly #shelves = new Map<string, Shelf>();
  /** Callers' starts that are under way, and when the last one ended. */
  #starting = 0;
  #quiet_since = 0;
  #wanting_since: number | undefined;
  #filling: { driver: Driver; memory_mib: number; over: Promise<void> } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #look_at = 0;
  readonly #closed = new Set<Driver>();

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** The driver, with vaults from the pool where it can. */
  wrap(driver: Driver): Driver {
    return driver.pooling ? new PooledDriver(driver, this) : driver;
  }

  /** Memory of the vaults that are ready or being made so. */
  get memory_mib(): number {
    let sum = this.#filling?.memory_mib ?? 0;
    for (const { ready } of this.#shelves.values()) for (const one of ready) sum += one.memory_mib;
    return sum;
  }

  /** How many are ready. */
  get size(): number {
    let sum = 0;
    for (const { ready } of this.#shelves.values()) sum += ready.length;
    return sum;
  }

  /** A vault for `spec`, from the pool if there is one. The caller has promised its memory already. */
  async take(driver: Driver, spec: VaultSpec): Promise<Vault> {
    const kind = spec.fresh ? undefined : driver.pooling!.kind(spec);
    this.#starting++;
    try {
      const shelf = kind === undefined ? undefined : this.#shelf(`${driver.name} ${kind}`, driver, spec);
      for (let one = shelf?.ready.shift(); one; one = shelf!.ready.shift()) {
        try {
          await driver.pooling!.assign(one.vault, spec);
          return one.vault;
        } catch (error) {
          this.#options.log?.(`a vault that was ready could not be handed out: ${describe(error)}`);
        }
      }
      await this.#makeRoom();
      return await driver.start(spec);
    } finally {
      this.#starting--;
      this.#quiet_since = performance.now();
      this.#plan(POOL.quiet_ms);
    }
  }

  /** Starts no more vaults of this driver; those that are ready are the driver's to end. */
  async leave(driver: Driver): Promise<void> {
    this.#closed.add(driver);
    for (const [key, shelf] of this.#shelves) if (shelf.driver === driver) this.#shelves.delete(key);
    if (this.#filling?.driver === driver) await this.#filling.over;
  }

  #shelf(key: string, driver: Driver, spec: VaultSpec): Shelf {
    // What one asked for himself is not what the next will ask for.
    const { cpu: _, fresh: __, ...alike } = spec;
    const shelf: Shelf = this.#shelves.get(key) ?? { driver, spec: alike, asked: [], ready: [] };
    // The kind that was asked for last is the last to be forgotten.
    this.#shelves.delete(key);
    this.#shelves.set(key, shelf);
    shelf.asked.push(performance.now());
    if (shelf.asked.length > POOL.requests) shelf.asked.shift();
    if (this.#shelves.size > POOL.kinds) {
      const [oldest, { ready }] = this.#shelves.entries().next().value!;
      this.#shelves.delete(oldest);
      for (const one of ready) void one.vault.kill('the pool keeps vaults of other kinds');
    }
    return shelf;
  }

  /** What is ready gives way to what was promised. */
  async #makeRoom(): Promise<void> {
    const ended: Promise<void>[] = [];
    while (this.memory_mib > Math.max(0, this.#options.room_mib())) {
      const shelf = [...this.#shelves.values()].find(({ ready }) => ready.length > 0);
      if (!shelf) break;
      ended.push(shelf.ready.shift()!.vault.kill('its memory was asked for'));
    }
    await Promise.all(ended);
  }

  /** Looks after so long, or earlier where that was planned already. */
  #plan(delay_ms: number): void {
    if (this.#filling) return;
    const at = performance.now() + delay_ms;
    if (this.#timer && this.#look_at <= at) return;
    clearTimeout(this.#timer);
    this.#look_at = at;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#look();
    }, delay_ms);
    this.#timer.unref();
  }

  /** Ends what is not wanted any more, and starts one that is. */
  #look(): void {
    const now = performance.now();
    for (const [key, shelf] of this.#shelves) {
      const { ready, asked } = shelf;
      const enough = wanted(asked, now);
      while (ready.length > enough || (ready[0] && now - ready[0].since > POOL.age_ms))
        void ready.shift()!.vault.kill('nobody asked for it');
      if (enough === 0 && ready.length === 0 && now - (asked.at(-1) ?? 0) > POOL.demand_ms) this.#shelves.delete(key);
    }
    const next = [...this.#shelves.values()].find((shelf) => this.#lacks(shelf, now));
    if (!next) {
      this.#wanting_since = undefined;
      if (this.#shelves.size > 0) this.#plan(POOL.look_ms);
      return;
    }
    this.#wanting_since ??= now;
    const { calm_ms = () => Number.POSITIVE_INFINITY } = this.#options;
    const quiet = this.#starting === 0 && Math.min(now - this.#quiet_since, calm_ms()) >= POOL.quiet_ms;
    if (!quiet && now - this.#wanting_since < POOL.patience_ms) return this.#plan(POOL.quiet_ms);
    this.#fill(next);
  }

  #lacks({ driver, spec, asked, ready }: Shelf, now: number): boolean {
    return (
      !this.#closed.has(driver) &&
      ready.length < wanted(asked, now) &&
      this.size < POOL.vaults &&
      this.memory_mib + spec.memory_mib <= this.#options.room_mib()
    );
  }

  #fill(shelf: Shelf): void {
    const { driver, spec } = shelf;
    const { memory_mib } = spec;
    const start = async () => {
      let again_ms: number = POOL.quiet_ms;
      try {
        const vault = await driver.start({ ...spec, id: `pool-${randomBytes(6).toString('hex')}`, owner: 'pool' });
        const one: Ready = { vault, memory_mib, since: performance.now() };
        if (this.#closed.has(driver) || ![...this.#shelves.values()].includes(shelf))
          await vault.kill('it is not wanted');
        else shelf.ready.push(one);
        void vault.exited.then(() => {
          const at = shelf.ready.indexOf(one);
          if (at >= 0) shelf.ready.splice(at, 1);
        });
      } catch (error) {
        this.#options.log?.(`a vault for the pool did not start: ${describe(error)}`);
        again_ms = POOL.look_ms;
      }
      this.#filling = undefined;
      this.#wanting_since = undefined;
      await this.#makeRoom();
      this.#plan(again_ms);
    };
    const { promise: over, resolve } = Promise.withResolvers<void>();
    this.#filling = { driver, memory_mib, over };
    void start().finally(resolve);
  }
}

class PooledDriver implements Driver {
  readonly #driver: Driver;
  readonly #pool: Pool;

  constructor(driver: Driver, pool: Pool) {
    this.#driver = driver;
    this.#pool = pool;
  }

  get name() {
    return this.#driver.name;
  }
  get isolation() {
    return this.#driver.isolation;
  }
  get level() {
    return this.#driver.level;
  }
  probe(): Promise<Offer> {
    return this.#driver.probe();
  }
  start(spec: VaultSpec): Promise<Vault> {
    return this.#pool.take(this.#driver, spec);
  }
  sweep(): Promise<number> {
    return this.#driver.sweep();
  }
  async close(): Promise<void> {
    const left = this.#pool.leave(this.#driver);
    await this.#driver.close();
    await left;
  }
}
