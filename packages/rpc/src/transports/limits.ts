/** The bounds of HTTP servers, and of connections at large, each with its reason. */
export const SERVER_LIMITS = {
  /** An answer of which nobody reads a byte for so long is given up: until then it is held in memory. */
  stalled_ms: 60_000,
  /** Of the process's file descriptors, how many may be connections: the rest is for files, links and pipes. */
  connections_share: 0.75,
  /** Where there are as many, such a part of them makes room, when nothing is under way on them; it is looked for so often. */
  room_share: 1 / 16,
  room_every_ms: 10,
} as const;

/**
 * A connection over which nothing comes for `after_ms` has its peer asked every `every_ms`, and ends when `times` were not
 * answered. Together that is as long as TCP tries to bring what it has to say, so a way that is cut for some minutes ends
 * none.
 */
export const SILENT_PEER = { after_ms: 10 * 60_000, every_ms: 30_000, times: 10 } as const;
