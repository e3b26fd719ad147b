/**
 * What ends a worker besides its lease, and what stops its clocks: the longest life, the idle time-out, pause.
 *
 * What always holds: `over` is called at most once. A paused worker's lease and idle time stand still, its longest life
 * does not. Pauses and resumptions happen one after another, so that at the end the vault is as was asked for last.
 */
import { type Activity, BadInput, LIMITS } from '@hauki/protocol';
import type { Vault } from '@hauki/vault';

export interface LifetimeTerms {
  /** 0: no bound. */
  max_life_ms: number;
  idle_ms: number;
  vault: Pick<Vault, 'pause' | 'resume'>;
  lease: { pause(): void; resume(): void };
  activity(): Promise<Activity>;
}

/** A guest that does not say within this whether it is idle is not: it computes. */
const ANSWER_MS = 2_000;

export class Lifetime {
  readonly #terms: LifetimeTerms;
  readonly #over: (cause: 'idle' | 'max_life', reason: string) => void;
  #ended = false;
  #end_timer: NodeJS.Timeout | undefined;
  #idle_timer: NodeJS.Timeout | undefined;
  #pause_timer: NodeJS.Timeout | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  /** Since when it can have been idle: its birth, or the end of its last pause. */
  #since = performance.now();
  #running: { promise: Promise<void>; resolve: () => void } | undefined;
  /** Milliseconds since 1970; undefined while it runs. */
  paused_at: number | undefined;
  /** When it ends for certain, milliseconds since 1970; undefined: never. */
  readonly ends_at: number | undefined;

  constructor(terms: LifetimeTerms, over: (cause: 'idle' | 'max_life', reason: string) => void) {
    this.#terms = terms;
    this.#over = over;
    if (terms.max_life_ms > 0) {
      this.ends_at = Date.now() + terms.max_life_ms;
      this.#end_timer = setTimeout(
        () => this.#finish('max_life', `it has lived for ${terms.max_life_ms} ms, as long as it may`),
        terms.max_life_ms,
      );
    }
    this.#watchIdle(terms.idle_ms);
  }

  /** Stops the vault; resolves when it stands. It is resumed by itself after `LIMITS.paused_ms`. */
  pause(): Promise<void> {
    return this.#inTurn(async () => {
      const { vault, lease } = this.#terms;
      if (!vault.pause || !vault.resume)
        throw new BadInput({ what: 'pause', why: 'vaults of this driver cannot be paused' });
      if (this.paused_at !== undefined || this.#ended) return;
      await vault.pause();
      lease.pause();
      clearTimeout(this.#idle_timer);
      this.paused_at = Date.now();
      this.#running = Promise.withResolvers<void>();
      this.#pause_timer = setTimeout(() => void this.resume().catch(() => {}), LIMITS.paused_ms);
      this.#pause_timer.unref();
    });
  }

  resume(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.paused_at === undefined || this.#ended) return;
      await this.#terms.vault.resume!();
      clearTimeout(this.#pause_timer);
      this.paused_at = undefined;
      this.#terms.lease.resume();
      this.#since = performance.now();
      this.#watchIdle(this.#terms.idle_ms);
      this.#running?.resolve();
    });
  }

  /** Resolves at once while it runs, else when it is resumed or ended. */
  async running(): Promise<void> {
    if (this.paused_at !== undefined) await this.#running?.promise;
  }

  /** Lets go of all clocks. */
  stop(): void {
    this.#ended = true;
    clearTimeout(this.#end_timer);
    clearTimeout(this.#idle_timer);
    clearTimeout(this.#pause_timer);
    this.#running?.resolve();
  }

  /** Looks when it can be idle for long enough at the earliest; no sooner and no oftener. */
  #watchIdle(wait_ms: number): void {
    clearTimeout(this.#idle_timer);
    if (this.#terms.idle_ms <= 0 || this.#ended || this.paused_at !== undefined) return;
    this.#idle_timer = setTimeout(() => void this.#look(), wait_ms);
  }

  async #look(): Promise<void> {
    const { idle_ms, activity } = this.#terms;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, ANSWER_MS, undefined);
    });
    const told = await Promise.race([activity().catch(() => undefined), late]);
    clearTimeout(timer);
    const own = told && told.under_way === 0 && Number.isFinite(told.idle_ms) ? told.idle_ms : 0;
    const idle = Math.min(own, performance.now() - this.#since);
    if (this.#ended || this.paused_at !== undefined) return;
    // Clocks of two processes differ by a little.
    if (idle >= idle_ms - 1) this.#finish('idle', `nobody called it for ${idle_ms} ms`);
    else this.#watchIdle(Math.max(1, idle_ms - Math.max(0, idle)));
  }

  #finish(cause: 'idle' | 'max_life', reason: string): void {
    if (this.#ended) return;
    this.stop();
    this.#over(cause, reason);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work);
    this.#turn = mine.catch(() => {});
    return mine;
  }
}
