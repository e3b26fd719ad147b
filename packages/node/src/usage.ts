/**
 * What a worker uses, asked of its vault when somebody wants to know and not otherwise: bounded in time, since a vault
 * that is busy or paused does not answer, and not asked again within a moment, however many want to know.
 */
import { type Activity, LIMITS, type Usage } from '@hauki/protocol';
import type { Vault } from '@hauki/vault';
import type { LogRing } from './log-ring.ts';

export interface UsageSources {
  vault: Pick<Vault, 'usage'>;
  log: LogRing;
  activity(): Promise<Activity>;
}

export class UsageMeter {
  readonly #sources: UsageSources;
  #known: Pick<Usage, 'cpu_ms' | 'memory_bytes' | 'calls'> = { cpu_ms: null, memory_bytes: null, calls: null };
  #asking: Promise<void> | undefined;
  #asked_at = Number.NEGATIVE_INFINITY;
  fetched_bytes = 0;

  constructor(sources: UsageSources) {
    this.#sources = sources;
  }

  /** What is used now, as far as the vault says so in time; else what was last known. */
  async now(): Promise<Usage> {
    if (performance.now() - this.#asked_at > LIMITS.usage_fresh_ms) {
      this.#asked_at = performance.now();
      this.#asking = this.#ask();
    }
    await this.#asking;
    return this.last();
  }

  /** What was last known; `at_end`: what the vault told as it ended. */
  last(at_end?: { cpu_ms: number; memory_bytes: number }): Usage {
    const { log } = this.#sources;
    return { ...this.#known, ...at_end, log_lines: log.last, fetched_bytes: this.fetched_bytes };
  }

  async #ask(): Promise<void> {
    const { vault, activity } = this.#sources;
    const used = vault.usage?.().then(({ cpu_ms, memory_bytes }) => {
      this.#known = { ...this.#known, cpu_ms: Math.round(cpu_ms), memory_bytes: Math.round(memory_bytes) };
    });
    const called = activity().then(({ calls }) => {
      if (Number.isSafeInteger(calls) && calls >= 0) this.#known = { ...this.#known, calls };
    });
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, LIMITS.usage_ms);
    });
    await Promise.race([Promise.allSettled([used, called]), late]);
    clearTimeout(timer);
  }
}
