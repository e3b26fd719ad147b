/** Every bound of MeshFS, with its reason. Those of a pointer's text are `POINTER_LIMITS` of the protocol. */
export const MESHFS_LIMITS = {
  /** UTF-8 bytes of one document: it travels in one message, and is held in memory whole. */
  content_bytes: 8 * 1024 * 1024,
  /** A media type with its parameters; the longest registered one has 73. */
  media_type_chars: 127,
  /** Versions that a pointer's record tells of. A record is written whole each time, so it must stay small. */
  past_versions: 64,
  /** Writes under way at once. Each holds a few file handles, of which a process may have as few as 1,024. */
  writes_at_once: 32,
  /** Content of all writes under way or waiting; beyond it a write is refused, since the disk is slower than they. */
  waiting_bytes: 256 * 1024 * 1024,
  /** Times that a write tries again because another process wrote first; each time somebody else got on. */
  attempts: 100,
} as const;
