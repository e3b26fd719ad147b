/** The bounds of the core's HTTP server, and of what it takes from a node's word, each with its reason. */
import { LIMITS } from '@hauki/protocol';

export const HTTP_LIMITS = {
  /** All headers of a request; Node's own limit is gone where a request as a whole has none. */
  headers_ms: 60_000,
  /** A request's body, where no route bounds it by itself: 12 MiB come in that time at 41 KiB/s. */
  body_ms: 300_000,
  /** Of the connections that a core may have, how many may wait for the rest of a body: the others are for who asks at once. */
  bodies_share: 0.5,
  /** How many of them may be callers' that are relayed: a node dials as many again. */
  relayed_share: 0.25,
  /** Larger bodies, and those that do not say how large they are, share `bodies_bytes`: they are held whole in memory. */
  small_body_bytes: 64 * 1024,
  /** What such bodies may take that are coming in at once: 64 of the largest. */
  bodies_bytes: 64 * LIMITS.body_bytes,
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
  /** Nodes report every second: one that was silent for so long may stand still, and others are given work first. */
  silent_ms: 3_000,
  /** Who has a call for such a node looks so often whether it has reported. */
  heard_every_ms: 100,
  /** How soon a node comes back that was started again, or lost its link: until then a core that has begun expects nodes too. */
  back_ms: 3_000,
  /** Requests that wait for that at once. */
  waiting: 256,
  /** How long a list of workers asks one node for more of its own: a full node has told them all in a few pages. */
  pages_ms: 3_000,
} as const;

/** The bounds of links, of nodes as of kernels, each with its reason. */
export const LINK_LIMITS = {
  /** So long a link has to answer when another comes under its name: less than the other waits (`handshake_ms`). */
  answer_ms: 2_000,
} as const;

/** The bounds of callers' links for clones, each with its reason. */
export const CLONE_LINK_LIMITS = {
  /** Each is a script that clones again and again; who gets none asks over HTTP. */
  links: 256,
  /** The SDK lets go of its own after 30 s; one that is kept longer is forgotten, or a stranger's. */
  idle_ms: 120_000,
  /** The SDK sends larger sources over HTTP; with all its secrets and first calls, in escapes, a request fits. */
  message_bytes: 4 * 1024 * 1024,
} as const;

/** setTimeout takes no more; what is due later is looked at again. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;
