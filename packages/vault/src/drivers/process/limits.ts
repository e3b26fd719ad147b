/** The bounds of the process driver that are not those of lxc, each with its reason. */
import { LEAST_MEMORY_MIB } from '@hauki/protocol';

/** Below this Node does not boot reliably. */
export const MEMORY_MIB_MIN = LEAST_MEMORY_MIB.process!;
/**
 * Where no cgroup can be written: private writable memory beyond the vault's own that Node reserves without ever using
 * it (stacks of its threads, V8's reservations; 575 MB measured for an idle Node 26), as the kernel counts it for
 * RLIMIT_DATA.
 */
export const RESERVED_MIB = 768;
/** How often the agent then looks at what a vault has in memory. */
export const WATCH_EVERY_MS = 200;
/** A machine under load may need seconds until Node runs. */
export const START_TIMEOUT_MS = 10_000;
/** How often a starting or dying vault is looked at. */
export const POLL_MS = 2;
/** A killed process is gone within milliseconds; longer than this means that the kernel is stuck. */
export const END_TIMEOUT_MS = 5_000;
