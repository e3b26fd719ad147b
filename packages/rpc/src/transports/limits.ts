/** The bounds of HTTP servers, each with its reason. */
export const SERVER_LIMITS = {
  /** An answer of which nobody reads a byte for so long is given up: until then it is held in memory. */
  stalled_ms: 60_000,
  /** Of the process's file descriptors, how many may be connections: the rest is for files, links and pipes. */
  connections_share: 0.75,
} as const;
