/** Every bound of the backplane, with its reason. They bind every backend, so that data can move between them. */
export const BACKPLANE_LIMITS = {
  /** A namespace becomes a table column here and a bucket's name elsewhere. */
  namespace: /^[a-z][a-z0-9-]{0,31}$/,
  /** UTF-8 bytes of a key. A pointer has 1,024, and folding its letter case can triple them. */
  key_bytes: 4 * 1024,
  /** UTF-8 bytes of a value. What is larger belongs in the object store; a NATS message holds 1 MiB. */
  value_bytes: 512 * 1024,
  /** One object is held in memory whole: the largest document (8 MiB) with room for its successors. */
  object_bytes: 16 * 1024 * 1024,
  /** Entries of one page of a list. */
  page_entries: 1000,
  /** Bytes after which a page of a list ends early. */
  page_bytes: 4 * 1024 * 1024,
  /** Writes that wait for one commit. Beyond it `put` is refused, since the disk is slower than the callers. */
  waiting_writes: 10_000,
  /** How long opening waits for a predecessor that is just ending. It blocks the process, so it is short. */
  open_wait_ms: 1_000,
} as const;
