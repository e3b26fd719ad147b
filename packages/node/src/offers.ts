/**
 * What the drivers of this machine offer: tried when its agent starts, and again and again where it failed. What was tried
 * may have been killed, the machine have had too much to do, or what was missing have been installed since.
 */
import type { NodeInfo } from '@hauki/protocol';
import type { Driver, Offer } from '@hauki/vault';

/** First wait before what failed is tried again, doubled up to the second. */
const AGAIN_MS = { first: 5_000, most: 600_000 };
const UNTRIED: Offer = { available: false, reason: 'not probed yet' };

export class Offers {
  readonly #drivers: readonly Driver[];
  readonly #log: (line: string) => void;
  readonly #again_ms: { first: number; most: number };
  readonly #known = new Map<string, Offer>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  /** Another number whenever what is offered has changed. */
  version = 0;

  constructor(drivers: readonly Driver[], log: (line: string) => void, again_ms = AGAIN_MS) {
    this.#drivers = drivers;
    this.#log = log;
    this.#again_ms = again_ms;
  }

  /** Tries a driver, and says what came of it where that is news. */
  async probe(driver: Driver): Promise<void> {
    const before = this.#known.get(driver.name);
    const offer = await driver.probe();
    this.#known.set(driver.name, offer);
    if (offer.available) this.#log(`driver ${driver.name} is offered${offer.note ? `: ${offer.note}` : ''}`);
    else if (!before) this.#log(`driver ${driver.name} is not offered: ${offer.reason}`);
    if (before && before.available !== offer.available) this.version++;
  }

  /** From now on what is not offered is tried again, ever more seldom. */
  keepTrying(wait_ms = this.#again_ms.first): void {
    const missing = this.#drivers.filter(({ name }) => !this.#known.get(name)?.available);
    if (this.#closed || missing.length === 0) return;
    this.#timer = setTimeout(async () => {
      await Promise.allSettled(missing.map((driver) => this.probe(driver)));
      this.keepTrying(Math.min(2 * wait_ms, this.#again_ms.most));
    }, wait_ms);
    this.#timer.unref();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  of(name: string): { driver: Driver; offer: Offer } | undefined {
    const driver = this.#drivers.find((one) => one.name === name);
    return driver && { driver, offer: this.#offer(name) };
  }

  /** As nodes tell it. */
  all(): NodeInfo['drivers'] {
    return Object.fromEntries(
      this.#drivers.map(({ name, level, isolation }) => [name, { ...this.#offer(name), level, isolation }]),
    );
  }

  #offer(name: string): Offer {
    return this.#known.get(name) ?? UNTRIED;
  }
}
