/** The bounds of a microkernel, each with its reason. */
export const KERNEL_LIMITS = {
  /** Modules of one kernel; each holds a vault at least. */
  modules: 256,
  /** Versions of one module that live at once: a long stream must not keep old ones for ever. */
  live_versions: 4,
  /** A module's changes that wait for their turn. */
  changes_waiting: 16,
  /** An evolve's body: a source of full size with its JSON escapes fits. */
  body_bytes: 12 * 1024 * 1024,
  /** Tests that one evolve may bring, and those that are kept of a module's versions. */
  tests: 64,
  kept_tests: 256,
  /** One test's answer. */
  test_ms: 10_000,
  /** All tests of one evolve. */
  all_tests_ms: 60_000,
  /** Edits of one x-surgeon payload. */
  edits: 64,
  /** What they search together, each a whole source: the kernel's thread reads a million of characters in 10 to 20 ms. */
  searched_chars: 32 * 1024 * 1024,
  /** Lines that differ: to find the shortest difference of more takes the kernel's thread from all modules. */
  diff_edits: 500,
  /** Of longer texts, without what they have in common at both ends, the shortest difference is not sought: by lines of one sign it took seconds. */
  diff_sought_chars: 256 * 1024,
  /** Of a difference so much is shown: it goes to the core in one message. */
  diff_chars: 1024 * 1024,
  /** A vault that is staged: from being asked for until its module has loaded. */
  start_ms: 30_000,
  /** A version that serves something is asked so often whether it lives, and has so long to answer. */
  quiet_ms: 3_000,
  ping_ms: 5_000,
  /** One that did not answer and hardly computed either, on a machine with too much to do, gets so long. */
  silent_ms: 25_000,
  /** Until a plugin has answered with its headers. */
  request_ms: 30_000,
  /** Requests under way in one version. */
  requests: 1_024,
  /** WebSockets of them: of its session's streams (`LIMITS.streams`) the rest is left to bodies. */
  sockets: 96,
  /** What is left of a request's body after its answer is dropped when nobody reads it for so long. */
  unread_ms: 1_000,
  /** Bodies of one module, each way between kernel and core: of the link's streams (`LIMITS.streams`) the rest is left to others. */
  link_streams: 96,
  /** Requests that are held while a stateful module hands its state over, and for how long. */
  held: 1_024,
  held_ms: 10_000,
  /** All of a handover for which requests are held: those that came first are still served when it has come to nothing. */
  handover_ms: 9_000,
  /** Answers of a stateful version that are under way are waited for so long; one that hangs must not stop every change. */
  answers_ms: 5_000,
  /** And bodies, which may have no end; what is done in the state for either later stays behind. */
  streams_ms: 1_000,
  /** After so long what an old version still serves is cut. */
  drain_ms: 30_000,
  /** An old version that serves nothing more is ended so much later. */
  rest_ms: 200,
  /** A state that is handed over. */
  state_bytes: 4 * 1024 * 1024,
  /** Dehydrating and hydrating. */
  state_ms: 5_000,
  /** Header names and values of one request or answer, and what an answer's take: most clients refuse more than 16 KiB. */
  headers: 200,
  header_bytes: 14 * 1024,
  /** Routes that a module may name, and how long naming them may take. */
  routes: 512,
  describe_ms: 10_000,
  /** How many of the last answers' times a version's p99 is taken of. */
  times_kept: 1_024,
  /** Answers before a version is judged by its error rate or p99, and requests between two judgements. */
  judged_after: 20,
  /** Slow ones before it is judged by its p99: of fewer than a hundred that would be the one slowest. */
  slow_answers: 2,
  /** Changes of each namespace of the store that are held in memory for watchers: a kernel's has none. */
  remembered_changes: 64,
  /** What is kept of a guest's log in a report. */
  report_log_chars: 8 * 1024,
} as const;
