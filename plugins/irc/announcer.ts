/**
 * Announces what becomes of the kernel: that it is online, once after each of its starts, and each change that has a line,
 * in the journal's order.
 *
 * What always holds: a change is announced after the one before it, and once `say` has resolved not again: through
 * reconnects, another version's taking over, and restarts, because the cursor is kept after each line and read by
 * whoever begins to serve. It is not handed over: at a rollback what is handed over is old. A vault that does not serve
 * announces nothing.
 */
import type { KernelPage } from '@hauki/microkernel';

/** What was announced: all changes up to a number, and the start of the kernel that was announced. */
export interface Cursor {
  announced: number;
  boot: number;
}

export interface AnnouncerPowers {
  /** What comes behind a number, or just the present. */
  page(after: number | 'now'): Promise<KernelPage>;
  /** Resolves when it was said. Rejects when the signal is aborted, or it will never be said. */
  say(line: string, signal: AbortSignal): Promise<void>;
  load(module: string): Promise<Cursor | undefined>;
  save(module: string, cursor: Cursor): Promise<void>;
  /** Called with each page: what serves, and may do what. Null: it does not serve. */
  serves(self: KernelPage['self'], page: KernelPage): Promise<void>;
  wait(ms: number): Promise<void>;
  log(line: string): void;
}

/** A version that was told to hand over and still serves after that goes on. */
const HANDED_MS = 20_000;
/** For a line that is on its way. Handing over may take five seconds in all. */
const CONFIRM_MS = 3_000;
/** While it does not serve it looks so often whether it does. */
const LOOK_MS = 300;
/** After something failed. */
const AGAIN_MS = 1_000;

export class Announcer {
  readonly #powers: AnnouncerPowers;
  #cursor: Cursor | undefined;
  /** Aborted when it is to hand over. */
  #turn = new AbortController();
  #saying: Promise<unknown> = Promise.resolve();
  #stopped = false;
  /** What is known from the first look at the kernel: what happened before is not announced. */
  #first: KernelPage | undefined;

  constructor(powers: AnnouncerPowers) {
    this.#powers = powers;
  }

  get cursor(): Cursor | undefined {
    return this.#cursor && { ...this.#cursor };
  }

  /** Stops saying; a line that is on its way is waited for, for a while. Goes on by itself if nobody takes over. */
  async handOver(): Promise<void> {
    this.#turn.abort(new Error('another version takes over'));
    await Promise.race([this.#saying.catch(() => {}), this.#powers.wait(CONFIRM_MS)]);
  }

  stop(): void {
    this.#stopped = true;
    this.#turn.abort(new Error('it ends'));
  }

  /** Runs until `stop`. */
  async run(): Promise<void> {
    const { page, wait, log } = this.#powers;
    let serving = false;
    while (!this.#stopped) {
      try {
        if (this.#turn.signal.aborted) {
          await wait(HANDED_MS);
          this.#turn = new AbortController();
        }
        const now: KernelPage = await page(serving ? (this.#cursor?.announced ?? 'now') : 'now');
        this.#first ??= now;
        await this.#powers.serves(this.#turn.signal.aborted ? null : now.self, now);
        serving = now.self !== null;
        if (this.#turn.signal.aborted) continue;
        if (!now.self) {
          await wait(LOOK_MS);
          continue;
        }
        this.#saying = this.#announce(now, now.self.module);
        await this.#saying;
      } catch (error) {
        if (this.#stopped || this.#turn.signal.aborted) continue;
        log(`not announced: ${error instanceof Error ? error.message : error}`);
        await wait(AGAIN_MS);
      }
    }
  }

  async #announce(page: KernelPage, module: string): Promise<void> {
    const { say, load, save } = this.#powers;
    const { signal } = this.#turn;
    const first = this.#first!;
    if (!this.#cursor) {
      this.#cursor = (await load(module)) ?? { announced: first.seq, boot: 0 };
      await save(module, this.#cursor);
    }
    const cursor = this.#cursor;
    if (cursor.boot !== page.boot) {
      await say(page.online, signal);
      cursor.boot = page.boot;
      await save(module, cursor);
    }
    // A page that was asked for before the cursor was known may not begin where that stands: the next one does.
    if (page.events.length > 0 && page.events[0]!.seq > cursor.announced + 1) return;
    for (const { seq, line } of page.events) {
      if (seq <= cursor.announced) continue;
      if (line !== null) await say(line, signal);
      cursor.announced = seq;
      if (line !== null) await save(module, cursor);
    }
  }
}
