/** How much memory a node promises to vaults when nobody said. Apart: a kernel does the same. */
import { totalmem } from 'node:os';

/** The rest is for everything else that runs there. */
const SHARE = 0.75;

/**
 * In MiB: three quarters of what the machine has, or less where the container or service that this process is in may have
 * less (`limit`, in bytes; 0 or more than there is where it may have all).
 */
export const defaultMemoryMib = (total: number = totalmem(), limit: number = process.constrainedMemory()): number =>
  Math.floor((Math.min(total, limit || total) / 2 ** 20) * SHARE);
