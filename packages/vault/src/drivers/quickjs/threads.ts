/**
 * The threads of the vault host. A thread has vaults of one owner only. One that an error escaped into gets no new vault
 * and ends with its last; one that computes without end gives way to all others by the system's own priorities; one
 * that does not come back in time is ended, with every vault in it.
 */

import { setPriority } from 'node:os';
import { Worker } from 'node:worker_threads';
import { cpuTime_ms } from '../proc-stat.ts';
import type { VmImages } from './image.ts';
import {
  GIVES_WAY,
  GRACE_MS,
  IDLE_THREAD_MS,
  IDLE_THREADS,
  STUCK_MS,
  TERMINATE_MS,
  THREAD_STACK_MIB,
  THREAD_YOUNG_MIB,
  THREADS_PER_OWNER,
  VAULTS_BEFORE_NEXT_THREAD,
  WATCH_EVERY_MS,
} from './limits.ts';
import { type Address, type Aside, CLOCK, now_ms, type Order, type ThreadData } from './messages.ts';

export interface Thread {
  worker: Worker;
  owner: string | undefined;
  vaults: Set<string>;
  clock: Float64Array;
  /** Gets no new vault. */
  soiled: boolean;
  tid?: number;
  nice: number;
  /** Milliseconds that it has been in turns, and that it has computed, as seen up to a second ago. */
  seen: { at: number; spent: number; cpu: number };
  /** The turn that it should have come back from, what it had computed when that was seen, and how often it was. */
  suspect?: { until: number; used: number; looks: number };
  /** The turn that was told to be a long one, by its beginning. */
  stuck_since?: number;
  idle_timer?: NodeJS.Timeout;
}

/**
 * On a machine with too much to do a thread may wait for so many times its grace until it runs again. It is counted in
 * looks: a host that was stopped with all its threads has not looked meanwhile.
 */
const LOOKS_PER_GRACE = (10 * GRACE_MS) / WATCH_EVERY_MS;

/** Milliseconds of processor time that a thread of this process has had. */
const cpuOf = (tid: number | undefined) => (tid === undefined ? undefined : cpuTime_ms(`/proc/self/task/${tid}/stat`));

export interface ThreadsPowers {
  /** What a thread runs. */
  script: string;
  wasm: WebAssembly.Module;
  images: VmImages;
  address: Address;
  /** A vault has left its thread. */
  left(id: string): void;
  /** These vaults are in a thread that is not to get any more at present. */
  unfit(ids: string[]): void;
  /** A thread has ended with these vaults in it. */
  lost(ids: string[], reason: string): void;
  /** A thread was told to end and did not: only the end of the process ends it. */
  stranded(): void;
  terminate_ms?: number;
}

export class Threads {
  readonly #powers: ThreadsPowers;
  readonly #all = new Set<Thread>();
  /** Those of an owner that has no vault any more, the longest idle first. */
  readonly #idle = new Set<Thread>();

  constructor(powers: ThreadsPowers) {
    this.#powers = powers;
    this.#start();
  }

  /** The thread for an owner's next vault, which is entered there. */
  take(owner: string, id: string): Thread {
    const thread = this.#choose(owner);
    thread.owner = owner;
    thread.vaults.add(id);
    clearTimeout(thread.idle_timer);
    this.#idle.delete(thread);
    setImmediate(() => {
      if (![...this.#all].some((t) => t.owner === undefined)) this.#start();
    });
    return thread;
  }

  #leave(thread: Thread, id: string): void {
    thread.vaults.delete(id);
    this.#powers.left(id);
    if (thread.vaults.size > 0 || !this.#all.has(thread)) return;
    if (thread.soiled) return void this.#end(thread);
    thread.idle_timer = setTimeout(() => this.#end(thread), IDLE_THREAD_MS);
    this.#idle.add(thread);
    for (const one of this.#idle) if (this.#idle.size > IDLE_THREADS) void this.#end(one);
  }

  send(thread: Thread, message: Order): void {
    thread.worker.postMessage(message);
  }

  /** Something in it is to end: it need not give way until then. */
  hurry(thread: Thread): void {
    if (thread.nice > 0) this.#renice(thread, 0);
  }

  /** Ends a thread with all that is in it. */
  lose(thread: Thread, reason: string): void {
    // Its sockets close with it: on a busy machine whoever gives way may take long to end.
    this.hurry(thread);
    if (this.#forget(thread)) void this.#end(thread).then(() => this.#powers.lost([...thread.vaults], reason));
  }

  /** Ends threads that overran, and tells the system which are to give way. */
  watch(): void {
    const now = now_ms();
    for (const thread of this.#all) {
      const { clock, seen } = thread;
      const until = clock[CLOCK.until]!;
      if (until !== 0 && now > until && this.#overran(thread, until)) {
        this.lose(thread, 'code in its thread overran its turn and could not be interrupted');
        continue;
      }
      const since = clock[CLOCK.since]!;
      if (thread.stuck_since !== since && this.#stuck(thread)) {
        thread.stuck_since = since;
        this.#powers.unfit([...thread.vaults]);
      }
      const spent = clock[CLOCK.spent]! + (until === 0 ? 0 : now - clock[CLOCK.since]!);
      const part = (spent - seen.spent) / (now - seen.at);
      if (thread.nice === 0 && part > GIVES_WAY.busy && spent - seen.spent > STUCK_MS && this.#computes(thread, now))
        this.#renice(thread, GIVES_WAY.nice);
      if (now - seen.at < 1_000) continue;
      if (thread.nice > 0 && part < GIVES_WAY.calm) this.#renice(thread, 0);
      thread.seen = { at: now, spent, cpu: cpuOf(thread.tid) ?? 0 };
    }
  }

  /** Whether the thread has computed on beyond its turn's end; not when the system has only not let it run. */
  #overran(thread: Thread, until: number): boolean {
    const used = cpuOf(thread.tid);
    if (thread.suspect?.until !== until) thread.suspect = { until, used: used ?? 0, looks: 0 };
    const looks = ++thread.suspect.looks;
    return (used ?? looks * WATCH_EVERY_MS) - thread.suspect.used > GRACE_MS || looks > LOOKS_PER_GRACE;
  }

  /**
   * Whether its turns are its own computing. On a machine with too much to do they are mostly waiting: a thread that gave
   * way then would get nothing at all.
   */
  #computes({ tid, seen }: Thread, now: number): boolean {
    const cpu = cpuOf(tid);
    return cpu === undefined || cpu - seen.cpu > (now - seen.at) * GIVES_WAY.busy;
  }

  #choose(owner: string): Thread {
    const own = [...this.#all].filter((t) => t.owner === owner);
    const rank = (t: Thread) => (t.soiled ? 2e6 : 0) + (this.#stuck(t) ? 1e6 : 0) + t.vaults.size;
    const [best] = own.sort((a, b) => rank(a) - rank(b));
    if (best && (rank(best) < VAULTS_BEFORE_NEXT_THREAD || own.length >= THREADS_PER_OWNER)) return best;
    return [...this.#all].find((t) => t.owner === undefined) ?? this.#start();
  }

  #stuck(thread: Thread): boolean {
    return thread.clock[CLOCK.until] !== 0 && now_ms() - thread.clock[CLOCK.since]! > STUCK_MS;
  }

  #renice(thread: Thread, nice: number): void {
    if (thread.tid === undefined) return;
    try {
      setPriority(thread.tid, nice);
      thread.nice = nice;
    } catch {
      // Without the right to raise it again, what was busy once stays behind the others until it ends.
      thread.nice = Math.max(thread.nice, 1);
    }
  }

  #start(): Thread {
    const { script, wasm, images, address, unfit } = this.#powers;
    const clock = new SharedArrayBuffer(CLOCK.slots * Float64Array.BYTES_PER_ELEMENT);
    const workerData: ThreadData = { wasm, images, address, clock };
    const worker = new Worker(script, {
      eval: true,
      workerData,
      stdout: false,
      stderr: false,
      resourceLimits: { stackSizeMb: THREAD_STACK_MIB, maxYoungGenerationSizeMb: THREAD_YOUNG_MIB },
    });
    const thread: Thread = {
      worker,
      owner: undefined,
      vaults: new Set(),
      clock: new Float64Array(clock),
      soiled: false,
      nice: 0,
      seen: { at: now_ms(), spent: 0, cpu: 0 },
    };
    this.#all.add(thread);
    worker.on('message', (message: Aside) => {
      if (message.op === 'thread') thread.tid = message.tid;
      else if (message.op === 'left') this.#leave(thread, message.id);
      else {
        thread.soiled = true;
        unfit([...thread.vaults]);
      }
    });
    worker.on('error', (error: Error) => this.#gone(thread, `its thread failed: ${error.message}`));
    worker.on('exit', () => this.#gone(thread, 'its thread ended'));
    return thread;
  }

  /** Resolves when nothing of it runs any more, which native code may put off for ever. */
  async #end(thread: Thread): Promise<void> {
    this.#forget(thread);
    const timer = setTimeout(this.#powers.stranded, this.#powers.terminate_ms ?? TERMINATE_MS);
    await thread.worker.terminate();
    clearTimeout(timer);
  }

  #gone(thread: Thread, reason: string): void {
    if (this.#forget(thread)) this.#powers.lost([...thread.vaults], reason);
  }

  /** It gets no more vaults. False where that was so. */
  #forget(thread: Thread): boolean {
    clearTimeout(thread.idle_timer);
    this.#idle.delete(thread);
    return this.#all.delete(thread);
  }
}
