/** Every bound of the backplane, with its reason. They bind every backend, so that data can move between them. */
export const BACKPLANE_LIMITS = {
  /** A namespace becomes a table column here and a bucket's name elsewhere. */
  namespace: /^[a-z][a-z0-9-]{0,31}$/,
  /** UTF-8 bytes of a key. A pointer has 1,024, and folding its letter case can triple them. */
  key_bytes: 4 * 1024,
  /** UTF-8 bytes of a value. What is larger belongs in the object store; a NATS message holds 1 MiB. */
  value_bytes: 512 * 1024,
  /** One object that is asked for whole, in memory. Larger ones are read as a stream. */
  object_bytes: 16 * 1024 * 1024,
  /** One object however it comes; far above what one disk of today should take from one request. */
  stream_bytes: 1024 ** 4,
  /** Objects up to this size live in the database and cost no fsync of their own; larger ones are written once, as files. */
  small_object_bytes: 32 * 1024,
  /** One read of a streamed object. */
  chunk_bytes: 128 * 1024,
  /** After so many bytes of one stream they are made durable, so that the sync at its end is short. */
  sync_bytes: 64 * 1024 * 1024,
  /** Objects that one pass of a sweep looks at: its set of digests is held in memory (100 bytes each). */
  sweep_objects: 100_000,
  /** Small objects that a sweep removes in one commit. */
  sweep_batch: 256,
  /** Parts that may be kept at once; each may be as large as an object. */
  parts: 256,
  /** A part's name becomes a file's. */
  part_id: /^[A-Za-z0-9_-]{8,64}$/,
  /** Entries of one page of a list. */
  page_entries: 1000,
  /** Bytes after which a page of a list ends early. */
  page_bytes: 4 * 1024 * 1024,
  /** Entries of one commit: a record, its version, and what it makes superfluous. */
  commit_entries: 256,
  /** Changes of a namespace that are remembered for its watchers. Whoever is further behind has missed some. */
  remembered_changes: 4096,
  /** Characters of those changes' keys and values. */
  remembered_chars: 4 * 1024 * 1024,
  /** Watchers of one namespace. They share what is remembered, so each costs little more than its connection. */
  watchers: 1024,
  /** Pages of SQLite's log (4 KiB) that are copied to their places at once: so many take the process about 5 ms. */
  log_pages: 1_000,
  /** Writes that wait for one commit. Beyond it `put` is refused, since the disk is slower than the callers. */
  waiting_writes: 10_000,
  /** How long opening waits for a predecessor that is just ending. It blocks the process, so it is short. */
  open_wait_ms: 1_000,
  /** A clock that was set ahead by mistake is set back by then, mostly; what ages by it waits so long after each sleep. */
  clock_doubted_ms: 3_600_000,
} as const;
