/** The bounds of the core's side of the kernels, each with its reason. */
export const KERNELS_LIMITS = {
  /** A module's roll-outs and removals that wait for their turn. */
  changes_waiting: 16,
  /** So long one waits for its turn: whoever sent it gives one wave `evolve_ms`, and most of that is for its own work. */
  turn_ms: 60_000,
  /** Kernels report every second: one that was silent for so long may stand still, and requests go to others first. */
  silent_ms: 3_000,
  /** How soon a kernel comes back that lost its link, or finds a core that has begun: its tries are 2 s apart at most. */
  back_ms: 3_000,
  /** For so long, and of so many kernels, it is remembered what they held as they left: a restart takes no longer. */
  away_ms: 600_000,
  away: 1_024,
  /** Requests that wait for that at once. */
  waiting: 256,
  /** Modules that a kernel may tell of: more than one takes. */
  modules: 1_024,
  /** Modules whose next kernel in turn is remembered: of those that several hold, more than are asked for at a time. */
  turns: 4_096,
  /** Their names, as long as one may be; a SHA-256 in hex; where a kernel listens, with the longest host. */
  module_chars: 48,
  digest_chars: 64,
  url_chars: 320,
} as const;
