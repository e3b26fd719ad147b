/** The bounds of the lxc driver, each with its reason. They are read back from the kernel or enforced by the agent. */
import { availableParallelism } from 'node:os';
import { LEAST_MEMORY_MIB } from '@hauki/protocol';

/** Threads of one vault. Node itself has about 11 (V8 and libuv pools), so this leaves room for worker threads. */
export const PIDS_MAX = 64;
/** Threads of a sandbox: its kernel with helpers has 38, a module in a process of its own up to 40. */
export const SANDBOX_PIDS_MAX = 256;
/** The period of the CPU limit. A vault gets one core of it, unless asked otherwise: no worker takes the machine. */
export const CPU_PERIOD_US = 100_000;
/** The kernel takes no quota below 1 ms; a vault with less would not even boot within its time. */
export const CPU_MIN = 0.05;
/** Below this Node does not boot reliably, so asking for less is a mistake of the caller. */
export const MEMORY_MIB_MIN = LEAST_MEMORY_MIB.lxc!;
/** The share of a vault's memory that V8's old space may take; the rest is for stacks, buffers, code and /tmp. */
export const HEAP_SHARE = 0.7;
/** Open files: connections of callers, and a few files. */
export const NOFILE = 256;
/** /tmp lives in the vault's memory, and is the only place it can write to. */
export const TMP_SIZE = '16m';
export const TMP_INODES = 1024;
/** A cold machine may need seconds to read Node's binary from disk. */
export const START_TIMEOUT_MS = 10_000;
/** LXC needs longer than this before Node runs, so nobody looks earlier. */
export const START_FIRST_MS = 12;
/**
 * How often a starting container is looked at then. Nobody waits for it: Node boots for 30 ms from the moment that is
 * looked for, and what is sent to it meanwhile waits in its channel.
 */
export const START_POLL_MS = 4;
/**
 * So many looks must show a vault otherwise than asked until it is refused: while a program is put in the place of LXC's
 * own, the kernel shows the new one with the old one's capabilities for a moment, which on a slow machine is long.
 */
export const START_UNLIKE_LOOKS = 10;
/** Containers that start at once: each computes nearly all the time, and another fills its few waits. */
export const LANES = 2 * availableParallelism();
/** A start is over when its guest has said something, or was looked at so often: nobody may have asked it anything. */
export const BOOT_LOOKS = 60;
/** How long nobody starts a container before the next process is forked ahead: that must not stand in a burst's way. */
export const AHEAD_MS = 100;
/** How often a dying container is looked at. */
export const END_POLL_MS = 2;
/** A process that the kernel is busy for cannot be stopped; the others stop within a millisecond. */
export const FREEZE_TIMEOUT_MS = 2_000;
/** A killed process leaves its cgroup within milliseconds; longer than this means that the kernel is stuck. */
export const END_TIMEOUT_MS = 5_000;
/** What a guest may write to its log pipes in one window; beyond it is made to wait, so it cannot busy the agent. */
export const LOG_WINDOW_BYTES = 256 * 1024;
export const LOG_WINDOW_MS = 50;

/**
 * Id ranges lie in 0x70000000–0x7ffeffff: above what systemd-nspawn and LXD hand out by default, below 2^31, where
 * some tools stop.
 */
export const IDMAP_BASE = 0x70000000;
export const IDMAP_SIZE = 65_536;
export const IDMAP_SLOTS = 4_095;
/** Shared by all agents of the machine, and empty after a reboot, as running vaults are. */
export const RUN_DIR = '/run/hauki';
/** The default folder of the staged read-only roots. */
export const STAGE_DIR = '/var/lib/hauki/runtime';
