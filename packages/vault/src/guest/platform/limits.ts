/** The bounds of the platform in QuickJS, each with its reason. */

export const FORM = {
  /** Of the default 32 MiB its pieces, the whole and its files each take so much for a moment. */
  bytes: 8 * 1024 * 1024,
  /** Fields and files of one form; other servers draw the line here too. */
  parts: 1_000,
  /** The head of a part: a name, a file's name, a type. */
  head_bytes: 16 * 1024,
  /** RFC 2046. */
  boundary_chars: 70,
  /** Boundaries that are tried for a form that is sent, until one is not in it. */
  boundaries: 64,
} as const;
