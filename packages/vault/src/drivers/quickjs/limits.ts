/** Bounds of the quickjs driver, with their reasons. */
import { availableParallelism } from 'node:os';
import { TURN_MS as BOUNDS, CPU_SHARE } from '@hauki/protocol';
import { FORM } from '../../guest/platform/limits.ts';

/**
 * What one turn of a guest's code (one entry into its VM) may take: within what a request may ask for. The default is
 * generous for honest work between two waits.
 */
export const TURN_MS = { ...BOUNDS, default: 2_000 } as const;
/**
 * A turn counts what it computes, but never lasts longer than so many times its bound: long enough for a thread that
 * gives way on a busy machine, short against a lease.
 */
export const WALL_PER_TURN = 8;
/** A turn that was not asked for so long stood still: the whole machine was stopped, or had no time for its thread. */
export const STOOD_STILL_MS = 1_000;
/**
 * What is searched for at once in a form, in one go that nothing interrupts: a boundary, whose characters have three bytes
 * each, with what stands before it. Up to 250 bytes the platform's search takes time in step with what it searches, beyond
 * that with the product of both. `places`: more parts than a form within `bytes` is likely to have.
 */
export const FIND = {
  bytes: 32 * 1024 * 1024,
  what_bytes: 3 * FORM.boundary_chars + 4,
  places: 262_144,
} as const;
/** The VM's own interrupt comes first; past this the thread itself is ended. */
export const GRACE_MS = 500;
/** A vault that is to end, and is not gone when its thread has been in no turn for so long, ends with its thread. */
export const END_MS = 8_000;
/** A thread that does not end within this, once it is told to, ends with the whole host. */
export const TERMINATE_MS = 15_000;
/**
 * A vault that is to end, and is not gone by then, ends with the whole host. It may wait behind the longest turn there is,
 * on a machine with too much to do, and then the host must have had the time to end its thread.
 */
export const KILL_MS = BOUNDS.most * WALL_PER_TURN + 2 * END_MS + 2 * TERMINATE_MS;
/** How often the watchdog looks. */
export const WATCH_EVERY_MS = 100;
/** After a turn longer than this the thread looks at what came for it, and lets the other vaults go first. */
export const YIELD_AFTER_MS = 4;
/** Over how long a vault's share of a core is reckoned: so much at once is nobody's harm. */
export const SHARE_WINDOW_MS = 1_000;
/** The least share: with less, one turn of full length would cost its vault the lease. */
export const LEAST_SHARE = CPU_SHARE.least_quickjs;
/** The longest that a vault waits for its share, so that heartbeats still pass. */
export const LONGEST_WAIT_MS = 10_000;
/**
 * What may wait before a vault that is paused or has used up its share until its callers are read no more: entries, and
 * their characters and bytes.
 */
export const HOLD_UP = { entries: 2_048, bytes: 4 * 1024 * 1024 } as const;
/**
 * What may wait at all: beside that, what one read of a socket brings in the smallest of frames, a few of the largest
 * messages, and what no caller sends. Beyond it the vault ends.
 */
export const WAITING = { entries: 16_384, bytes: 32 * 1024 * 1024 } as const;
/** A VM that has not so much left after a turn could not even tell its caller that its memory is full. */
export const ANSWER_BYTES = 64 * 1024;
/** Depth of QuickJS's own stack; deep recursion must end inside as a RangeError, not in the thread. */
export const STACK_BYTES = 256 * 1024;
/** The thread's stack: frames of WebAssembly are larger than those that QuickJS counts (4 MiB held in all tries). */
export const THREAD_STACK_MIB = 8;
/** What a thread's own objects may take before they are sifted: they are few, and every thread would keep the default. */
export const THREAD_YOUNG_MIB = 8;
/** A little above what the guest allows itself (`guest/vm-globals.ts`). */
export const TIMERS = 11_000;
/** Entropy that the guest may ask for at once: as `crypto.getRandomValues` has it. */
export const RANDOM_BYTES = 65_536;

/** More than there are cores would only take memory, 12 MiB each; with one a vault that spins would hold up all others. */
export const THREADS_PER_OWNER = Math.min(4, Math.max(2, availableParallelism()));
/** Vaults that a thread takes before its owner gets another. */
export const VAULTS_BEFORE_NEXT_THREAD = 16;
/** An owner's thread that is in one turn for longer takes no new vault while there is another. */
export const STUCK_MS = 50;
/** An owner's last thread is kept for a moment, because who clones once clones again. */
export const IDLE_THREAD_MS = 30_000;
/** Of such threads at most so many: with their VMs they take 16 MiB each, and every module that is tried is another owner. */
export const IDLE_THREADS = 16;
/** VMs that a thread keeps prepared, at most; it keeps as many as were taken of late. */
export const SPARES = 8;
/** Vaults that are kept started for an owner, at most; each takes its room while it waits. */
export const READY = 8;
/** For so many owners at most, who asked last: each has a thread for them. */
export const SHELVES = 16;
/** A module's first requests follow its load: the next VM or vault for one is made so long after the last was taken. */
export const WEB_AFTER_MS = 100;
/** What was taken so long ago counts no more. */
export const DEMAND_MS = 10_000;

/** A thread that computed for more than this part of the last second gives way to all others, until it has computed for less than `calm` of one. */
export const GIVES_WAY = { busy: 0.5, calm: 0.25, nice: 10 } as const;
