/** The bounds of the core's HTTP server, each with its reason. */
export const HTTP_LIMITS = {
  /** All headers of a request; Node's own limit is gone where a request as a whole has none. */
  headers_ms: 60_000,
  /** A request's body, where no route bounds it by itself: 12 MiB come in that time at 41 KiB/s. */
  body_ms: 300_000,
} as const;

/** The bounds of what the core takes from a node's word, each with its reason. */
export const NODE_LIMITS = {
  /** Labels of a node, and drivers: a person writes the ones, a build of Hauki has the others. */
  labels: 64,
  drivers: 16,
  /** A label's name and value; a driver's name; hosts. */
  word_chars: 255,
  /** Sentences: what a driver protects against, why it is not offered, with what a tool had said. Targets and pointers too. */
  sentence_chars: 16_384,
  /** Cores and MiB, workers: more than any machine has, and still exact when summed over thousands of nodes. */
  count: 2 ** 32,
  /** A voucher holds grants and pointers, as a request does that the core took. */
  voucher_chars: 1024 * 1024,
  /** How long a list of workers asks one node for more of its own: a full node has told them all in a few pages. */
  pages_ms: 3_000,
} as const;

/** The bounds of links, of nodes as of kernels, each with its reason. */
export const LINK_LIMITS = {
  /** So long a link has to answer when another comes under its name: less than the other waits (`handshake_ms`). */
  answer_ms: 2_000,
} as const;

/** setTimeout takes no more; what is due later is looked at again. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;
