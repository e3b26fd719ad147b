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

export const CRYPTO = {
  /** Hashed at once, in one go that nothing interrupts: an eighth of a second on a slow machine, where a thread has half of one to spare. */
  bytes: 32 * 1024 * 1024,
  /** Of a key, which goes along with each signature; as much as can be drawn at once. */
  key_bytes: 65_536,
} as const;

export const ZIP = {
  /** How far back deflate refers (RFC 1951). */
  window_bytes: 32 * 1024,
  /** Packed at once, in one go that nothing interrupts: some hundredths of a second. */
  piece_bytes: 256 * 1024,
  /** Unpacked at once, of so many at most as well: a tenth of a second, and half of a default vault's memory. */
  bytes: 16 * 1024 * 1024,
} as const;
