/**
 * What became of workers, remembered after them: newest last, bounded in number and in the characters of their last
 * words, and in the backplane, so that a core that was killed still knows why.
 *
 * What always holds: `saved` resolves when all that was remembered before is on disk. What the disk refuses is tried
 * again; memory has it meanwhile. What the store takes never (`BadInput`, `TooLarge`) memory alone has.
 */
import type { KeyValue } from '@hauki/backplane';
import {
  BadInput,
  causeOfFailure,
  describe,
  type Fate,
  isError,
  type Job,
  LIMITS,
  type LogLevel,
  type MeshError,
  TooLarge,
} from '@hauki/protocol';
import { type Damaged, type RecordShape, recordsOf } from './records.ts';

const PREFIX = 'fate/';
/** Writes that go into one commit. */
const BATCH = 128;
const AGAIN_MS = 1_000;

/** What a line takes besides its text, as JSON: many short ones are bounded too. */
const LINE_CHARS = 52;

const charsOf = (fate: Fate): number => fate.lines.reduce((sum, { text }) => sum + LINE_CHARS + text.length, 0);

const SHAPE: RecordShape<Fate> = {
  keyOf: (fate) => (Number.isFinite(charsOf(fate)) ? `${PREFIX}${fate.worker}` : ''),
  needs: ['owner', 'cause', 'reason', 'at', 'lines'],
};

export interface FateBounds {
  fates: number;
  chars: number;
}

export class Fates {
  readonly #kv: KeyValue | undefined;
  readonly #bounds: FateBounds;
  readonly #log: (line: string, fields: object) => void;
  readonly #fates = new Map<string, Fate>();
  /** Those with last words, oldest first. */
  readonly #speaking = new Set<string>();
  #chars = 0;
  /** What the disk does not have as memory does. */
  readonly #dirty = new Set<string>();
  #writing: Promise<void> | undefined;
  #closed = false;

  /** Without a store they last as long as this process. */
  constructor(
    kv?: KeyValue,
    bounds: FateBounds = { fates: LIMITS.fates, chars: LIMITS.fates_chars },
    log: (line: string, fields: object) => void = () => {},
  ) {
    this.#kv = kv;
    this.#bounds = bounds;
    this.#log = log;
  }

  /** Reads what was kept. */
  async open(damaged?: Damaged): Promise<void> {
    const kept: Fate[] = [];
    if (this.#kv) for await (const { record } of recordsOf(this.#kv, PREFIX, SHAPE, damaged)) kept.push(record);
    for (const fate of kept.sort((a, b) => a.at - b.at)) this.#know(fate);
    this.#write();
  }

  get(worker: string): Fate | undefined {
    return this.#fates.get(worker);
  }

  set(fate: Fate): void {
    this.#know(fate);
    this.#dirty.add(fate.worker);
    this.#write();
  }

  delete(worker: string): void {
    if (!this.#drop(worker)) return;
    this.#write();
  }

  /** Resolves when the disk has all, or cannot take it now. */
  async saved(): Promise<void> {
    await this.#writing;
    // What came as the last one was ending goes with the next.
    await this.#writing;
  }

  async close(): Promise<void> {
    await this.saved();
    this.#closed = true;
  }

  #know(fate: Fate): void {
    this.#drop(fate.worker);
    this.#dirty.delete(fate.worker);
    this.#fates.set(fate.worker, fate);
    if (fate.lines.length > 0) this.#speaking.add(fate.worker);
    this.#chars += charsOf(fate);
    for (const oldest of this.#speaking) {
      if (this.#chars <= this.#bounds.chars) break;
      this.#silence(oldest);
    }
    for (const oldest of this.#fates.keys()) {
      if (this.#fates.size <= this.#bounds.fates) break;
      this.#drop(oldest);
    }
  }

  /** Its last words go, and what became of it stays. */
  #silence(worker: string): void {
    const fate = this.#fates.get(worker)!;
    this.#chars -= charsOf(fate);
    this.#speaking.delete(worker);
    this.#fates.set(worker, { ...fate, lines: [] });
    this.#dirty.add(worker);
  }

  #drop(worker: string): boolean {
    const fate = this.#fates.get(worker);
    if (!fate) return false;
    this.#chars -= charsOf(fate);
    this.#speaking.delete(worker);
    this.#fates.delete(worker);
    this.#dirty.add(worker);
    return true;
  }

  #write(): void {
    if (!this.#kv || this.#closed || this.#dirty.size === 0) return;
    this.#writing ??= this.#writeAll(this.#kv).then((taken) => {
      this.#writing = undefined;
      if (taken) this.#write();
      else setTimeout(() => this.#write(), AGAIN_MS).unref();
    });
  }

  /** Gives whether the disk took all. */
  async #writeAll(kv: KeyValue): Promise<boolean> {
    // What comes in this turn of the loop goes together.
    await Promise.resolve();
    while (this.#dirty.size > 0) {
      const batch = [...this.#dirty].slice(0, BATCH);
      for (const worker of batch) this.#dirty.delete(worker);
      const writes = batch.map((worker) => {
        const fate = this.#fates.get(worker);
        const key = `${PREFIX}${worker}`;
        return fate ? kv.put(key, JSON.stringify(fate)) : kv.delete(key);
      });
      const outcomes = await Promise.allSettled(writes as Promise<unknown>[]);
      let failed = false;
      for (const [i, worker] of batch.entries()) {
        const outcome = outcomes[i]!;
        if (outcome.status === 'fulfilled') continue;
        if (isError(outcome.reason, BadInput) || isError(outcome.reason, TooLarge)) {
          // It would be refused each time.
          this.#log('what became of a worker cannot be kept on disk', { worker, why: describe(outcome.reason) });
          continue;
        }
        this.#dirty.add(worker);
        failed = true;
      }
      if (failed) return false;
    }
    return true;
  }
}

const COUNT = (value: unknown): number | null => (typeof value === 'number' && value >= 0 ? value : null);

const WORKER = /^[a-z0-9-]{1,64}$/;
/** Ids of tokens, parted by `/`. */
const OWNER = new RegExp(`^[a-z0-9-]{1,64}(?:/[a-z0-9-]{1,64}){0,${LIMITS.token_depth - 1}}$`);
const LEVELS: Record<LogLevel, true> = { debug: true, info: true, warn: true, error: true, vault: true };
const levelOf = (told: unknown): LogLevel =>
  typeof told === 'string' && Object.hasOwn(LEVELS, told) ? (told as LogLevel) : 'vault';

/**
 * A fate as a node tells it, with nothing in it that is not of its kind or beyond all bounds. Throws BadInput where the
 * worker or the owner can be none.
 */
export function cleanFate(told: Fate, isCause: (text: unknown) => text is Fate['cause']): Fate {
  const { worker, owner, cause, reason, at, epoch, node, driver, born_at, usage, exit } = told;
  const named = (what: string, name: unknown, pattern: RegExp) => {
    if (typeof name === 'string' && pattern.test(name)) return name;
    throw new BadInput({ what, why: `a fate names one by ${pattern.source}` });
  };
  let left = LIMITS.log_tail_chars;
  const lines = (Array.isArray(told.lines) ? told.lines : []).slice(-LIMITS.log_lines).flatMap((line) => {
    const text = String(line?.text).slice(0, left);
    left -= text.length;
    return text === ''
      ? []
      : [{ seq: Number(line.seq) || 0, at: Number(line.at) || 0, level: levelOf(line.level), text }];
  });
  return {
    worker: named('worker', worker, WORKER),
    owner: named('owner', owner, OWNER),
    cause: isCause(cause) ? cause : 'killed',
    reason: String(reason).slice(0, LIMITS.event_text_chars),
    at: Number(at) || Date.now(),
    lines,
    ...(typeof epoch === 'number' ? { epoch } : {}),
    ...(typeof node === 'string' ? { node } : {}),
    ...(typeof driver === 'string' ? { driver: driver.slice(0, 32) } : {}),
    ...(typeof born_at === 'number' ? { born_at } : {}),
    ...(typeof exit === 'string' ? { exit: exit.slice(0, LIMITS.event_text_chars) } : {}),
    ...(typeof usage === 'object' && usage !== null
      ? {
          usage: {
            cpu_ms: COUNT(usage.cpu_ms),
            memory_bytes: COUNT(usage.memory_bytes),
            calls: COUNT(usage.calls),
            log_lines: COUNT(usage.log_lines) ?? 0,
            fetched_bytes: COUNT(usage.fetched_bytes) ?? 0,
          },
        }
      : {}),
  };
}

/** What is told of a worker that was never born; the error that its owner gets names it from here on. */
export function stillbornOf(
  { worker, owner, driver, epoch = 1 }: Job,
  node: string,
  error: MeshError<BirthFailure>,
): Fate {
  error.fields.worker = worker;
  const at = Date.now();
  const lines = (error.fields.log_tail ?? '')
    .split('\n')
    .filter(Boolean)
    .map((text, i) => ({ seq: i + 1, at, level: 'vault' as const, text }));
  return { worker, owner, cause: causeOfFailure(error), reason: error.message, at, lines, epoch, node, driver };
}

interface BirthFailure {
  worker?: string;
  log_tail?: string;
}
