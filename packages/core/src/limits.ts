/** The bounds of the core's HTTP server, each with its reason. */
export const HTTP_LIMITS = {
  /** All headers of a request; Node's own limit is gone where a request as a whole has none. */
  headers_ms: 60_000,
  /** A request's body, where no route bounds it by itself: 12 MiB come in that time at 41 KiB/s. */
  body_ms: 300_000,
} as const;
