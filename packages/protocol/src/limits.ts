/** Every bound of the wire and of provisioning, with its reason. Nothing in Hauki grows without one. */
import * as callers from './caller-limits.ts';

/** All of them; those that callers keep too stand in `caller-limits.ts`. */
export const LIMITS = {
  ...callers,
  /** Cut sessions of visitors that a worker keeps for their return. */
  sessions_waiting: 64,
  /** A worker's source after bundling. */
  source_bytes: 4 * 1024 * 1024,
  /** Modules that a worker imports by pointers, its own left out; all of them together keep to `source_bytes` with it. */
  modules: 128,
  /** How far an import may be from the worker's own module: a longer chain is a mistake. */
  module_depth: 64,
  /** An HTTP request body of the core; a source of full size with its JSON escapes fits. */
  body_bytes: 12 * 1024 * 1024,
  /**
   * How long a server keeps an idle HTTP connection. Clients let go of theirs a second before: with Node's own five
   * seconds a request on a busy machine meets a connection that was just closed, and nobody knows whether it ran.
   */
  http_idle_ms: 75_000,
  /** What rides with a request for a worker, or with its answer: a few calls. What is more goes over the session. */
  first_messages: 32,
  /** The same in characters, attachments as base64; it is held by the core, the agent and the vault. */
  first_chars: 64 * 1024,
  /** One message on a connection that has not been redeemed; a longer one cuts it. */
  handshake_bytes: 64 * 1024,
  /** Connections to one worker that have not redeemed a ticket yet, and others that carry no session any more; the oldest gives way. */
  strangers: 64,
  /** Places at one worker, visitors' included: sessions, and connections without one, whose ticket was redeemed. */
  connections: 256,
  /** Of those, visitors', shared among their tokens. What is left is for its owner. */
  visitors: 240,
  /** Tickets of one worker that nobody has redeemed yet: each is a few hundred bytes in its vault for two minutes. */
  tickets_waiting: 4096,
  /** Tickets of one worker, and callers of it over HTTP, of which the core remembers whose they are. */
  callers: 1024,
  /** How long a worker's module may take to load, its constructor included. */
  load_ms: 10_000,
  /** Starting an empty vault on a loaded machine. */
  vault_start_ms: 20_000,
  /** The graceful end hook; after it the vault is killed. */
  end_hook_ms: 2_000,
  /** Of a living worker's log, in characters; the oldest lines go first. A thousand vaults' rings fit 64 MiB. */
  log_ring_chars: 64 * 1024,
  /** What is kept of a vault's last words, in characters. */
  log_tail_chars: 8 * 1024,
  /** One log line of a guest, in characters; the rest is cut. */
  log_line_chars: 4 * 1024,
  /** Fetched bodies pass through the control channel: they must fit a message, also in base64. */
  fetch_body_bytes: 5 * 1024 * 1024,
  /** What a node holds in memory of what its vaults fetch, send and stream, all together. */
  fetched_bytes: 256 * 1024 * 1024,
  /** The part of one vault: its fetches and connections at once, and some large bodies that wait to be sent. */
  fetched_bytes_each: 32 * 1024 * 1024,
  /** One fetch until its answer begins; its body, for as long as nothing moves. */
  fetch_ms: 30_000,
  fetch_redirects: 5,
  /** Connections that a worker may have open to the outside. */
  connections_out: 8,
  /** Until such a connection stands; how long one may be silent both ways. IRC and the like say something every few minutes. */
  connect_ms: 10_000,
  connection_idle_ms: 10 * 60_000,
  /** Effects that a vault may have under way at once. */
  effects_in_flight: 64,
  /** Grants of one kind in one request. */
  grants: 64,
  /** All of them, as JSON: the ticket that they stand in, base64, has to fit a handshake (`handshake_bytes`). */
  grants_bytes: 40 * 1024,
  /** What a grant may say of its rate: more in a minute is no bound that anybody feels. */
  fetches_per_minute: 100_000,
  /** A private volume. */
  volume_mib: 16 * 1024,
  /** Volumes that a node keeps, and a mesh knows; each is a file, and a name for good. */
  volumes_per_node: 1_024,
  volumes: 10_000,
  /** One file that passes through the control channel, as `fetch_body_bytes`. */
  volume_file_bytes: 5 * 1024 * 1024,
  /** Entries of one folder that are listed. */
  volume_entries: 10_000,
  /** Children that one worker may have living, and ever; what they may have of memory together. */
  clone_live: 256,
  clone_total: 10_000,
  clone_memory_mib: 64 * 1024,
  /** Secrets of one request, and the characters of one: a private key in PEM fits. */
  secrets: 32,
  secret_chars: 8 * 1024,
  /** A shorter one is no secret: whoever may send it could try them all. */
  secret_least_chars: 4,
  /** Labels that one request may ask for. */
  labels: 64,
  /** WebSockets that the gateway has open with one kernel: of its link's streams the rest is left to requests' bodies. */
  gateway_sockets: 96,
  /** Vaults of one node. */
  vaults_per_node: 1024,
  /** Nodes report every second; one that is silent for so long is away. */
  node_silence_ms: 15_000,
  /** Workers of a node that is away so long are counted dead. */
  node_grace_ms: 120_000,
  /** Fates of dead workers that an agent and the core remember, to tell late callers why. */
  fates: 10_000,
  /** Last words in all fates together, in characters; the oldest fates lose theirs first. */
  fates_chars: 16 * 1024 * 1024,
  /** Lines of one answer with a worker's log. */
  log_lines: 1_000,
  /** The longest that an agent waits for a worker's next line before it answers with none. */
  log_wait_ms: 10_000,
  /** Readers that follow a worker's log: of a core. Each costs a call that waits. */
  log_streams: 64,
  /** An expression to evaluate beside a worker, and the text of its result. */
  inspect_chars: 64 * 1024,
  /** A vault that stays paused for so long is resumed: its lease decides then. */
  paused_ms: 24 * 3600 * 1000,
  /** Asking one vault what it uses; past it, what was last known is told. */
  usage_ms: 300,
  /** So long what a vault uses is not asked again. */
  usage_fresh_ms: 500,
  /** The largest quota of a token: vaults, MiB. */
  quota: 1_000_000,
  /** Clones in a minute: each is remembered for so long. */
  quota_clones: 10_000,
  /** Lasting workers of a mesh; each takes a vault for good, so a few nodes' worth. */
  lasting_workers: 4_096,
  /** A lasting worker's name: with its epoch it still fits a vault's id. */
  lasting_name_chars: 32,
  /** Deaths of one lasting worker that are kept, newest last: enough to see a pattern. */
  lasting_deaths: 10,
  /** A deleted lasting worker's epoch is remembered so long, so that a new one of its name goes on counting. */
  lasting_epoch_kept_ms: 24 * 3600 * 1000,
  /** Jobs that wait or run; beyond it the spool takes no more. */
  spool_open: 10_000,
  /** Jobs that run at once; each holds one session of the core. */
  spool_running: 64,
  /** Attempts that a job may ask for. */
  spool_attempts: 100,
  /** The longest that one attempt's call may take. */
  spool_timeout_ms: 3600 * 1000,
  /** An idempotency key. */
  spool_key_chars: 128,
  /** The longest that one request may wait for a job's end; whoever wants more asks again. */
  spool_wait_ms: 60_000,
  /** Requests that wait for jobs at once. */
  spool_waiters: 4_096,
  /** How long a job that has ended is kept with its result. */
  spool_kept_ms: 24 * 3600 * 1000,
  /** How many that have ended are kept; the oldest go first. */
  spool_kept: 10_000,
  /** Sources, parameters, grants with secrets, and results that the spool holds on disk, all together; what is the same counts once. */
  spool_bytes: 1024 * 1024 * 1024,
  /** Tokens that a core knows: all are held in memory. */
  tokens: 10_000,
  /** Tokens below one that an admin made, so that nobody takes the others' room. */
  tokens_below: 1_000,
  /** Tokens from the first maker down: the owner's name holds them all. */
  token_depth: 8,
  /** Entries of each kind of target of a token. */
  token_targets: 64,
  /** Ten years: longer is for ever, which is said by leaving it out. */
  token_ms: 10 * 365 * 24 * 3600 * 1000,
  /** Changes of tokens that wait for the disk; one token and all below it may have half of those that nobody else has. */
  token_changes: 256,
  /** Events that the core remembers, and their characters: some minutes of a busy mesh, to resume after a cut. */
  events: 4_096,
  events_chars: 8 * 1024 * 1024,
  /** One text in an event; the rest is cut. A pointer fits. */
  event_text_chars: 1_024,
  /** All of one event's fields; the longest go first. */
  event_chars: 8 * 1024,
  /** Readers of events at once: of a core, and of one token with all below it. */
  event_streams: 256,
  event_streams_each: 32,
  /** What a reader may ask to be chosen by. */
  event_names: 32,
  /** A reader that takes nothing for so long is cut off; it may come back and resume. */
  event_stall_ms: 300_000,
} as const;

/** MiB below which a vault of a driver does not start: Node needs much more than QuickJS. */
export const LEAST_MEMORY_MIB: Record<string, number> = { lxc: 48, quickjs: 4, process: 48 };

/**
 * What a request may say of the computing in one turn of a quickjs vault. In less no module could do anything; the most is
 * short against the 30 s of a lease, whose heartbeats wait behind a turn.
 */
export const TURN_MS = { least: 10, most: 10_000 } as const;

/**
 * The share of a core that a request may ask for: in less nothing would start in time, and a vault has one at most. A
 * quickjs vault has no less than `least_quickjs`: in less it would wait longer between its turns than a lease bears.
 */
export const CPU_SHARE = { least: 0.05, least_quickjs: 0.1, most: 1 } as const;

/** The lease: how a worker knows that somebody still wants it (design, decision 6). */
export const LEASE = {
  heartbeat_ms: 5_000,
  lease_ms: 30_000,
  /** Bounds for what a request may ask for. */
  min_ms: 500,
  max_ms: 24 * 3600 * 1000,
  /** The longest that may be set as the longest life: one timer carries it. */
  max_life_ms: 20 * 24 * 3600 * 1000,
  /** More often than this a heartbeat is only load. */
  min_heartbeat_ms: 50,
  /** How long a ticket may wait for its redemption. */
  ticket_ms: 60_000,
} as const;
