/** Every bound of MeshFS, with its reason. Those of a pointer's text are `POINTER_LIMITS` of the protocol. */
export const MESHFS_LIMITS = {
  /** UTF-8 bytes of content that travels as text in one message, and is held in memory whole. */
  content_bytes: 8 * 1024 * 1024,
  /** Content that travels raw; one disk of today should hold several. */
  raw_bytes: 64 * 1024 ** 3,
  /** A media type with its parameters; the longest registered one has 73. */
  media_type_chars: 127,
  /** Versions of a pointer that stay readable, the newest among them. What is older gives its space back. */
  kept_versions: 1024,
  /** Versions in one page of a history. */
  history_page: 1000,
  /** Writes under way at once. Each holds a few file handles, of which a process may have as few as 1,024. */
  writes_at_once: 32,
  /** Content of all writes under way or waiting; beyond it a write is refused, since the disk is slower than they. */
  waiting_bytes: 256 * 1024 * 1024,
  /** Raw contents coming in at once. Each holds a file and a hundred kilobytes, and may take long. */
  streams_at_once: 64,
  /** Raw contents that wait for such a place; none of their bytes has been read yet. */
  waiting_streams: 4096,
  /** How long one waits, while others may be slow. */
  stream_wait_ms: 30_000,
  /** Content without a name that may gather before a collection begins by itself. */
  collect_bytes: 64 * 1024 * 1024,
  /** How long less than that may wait for one. */
  collect_ms: 3600 * 1000,
  /** How many times as long as a collection took it rests before the next begins by itself: a long table takes longer. */
  collect_rest: 20,
  /** Times that a write tries again because another process wrote first; each time somebody else got on. */
  attempts: 100,
  /** Uploads in pieces that may be under way; each may hold the disk of a whole content. */
  uploads: 64,
  /** Uploads that are remembered, the finished ones among them, for callers who lost the answer. */
  remembered_uploads: 256,
  /** An upload that nothing came for in so long is given up. */
  upload_ms: 24 * 3600 * 1000,
} as const;
