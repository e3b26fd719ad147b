/**
 * The bounds that whoever calls keeps too, as constants of their own: a page that loads the SDK takes those that it
 * uses. `LIMITS` has them all.
 */
/** One message. Below 2^24, so that a frame's first byte is always 0x00 and tells our session from other protocols. */
export const message_bytes = 8 * 1024 * 1024;
/** How deep values may nest; QuickJS recurses on 256 KiB of native stack, and so must whoever reads them. */
export const depth = 128;
/** A regular expression's source, in characters: compiling is work that the sender chooses and the receiver does. */
export const regexp_chars = 4096;
/** Decimal digits of a bigint: reading one takes more than linear time. Four times an RSA-8192 modulus. */
export const bigint_digits = 10_000;
/** An error's stack on the wire. */
export const stack_chars = 4096;
/** One message of a WebSocket. It is held whole by whoever receives it, a relay too, and its bounds mean nothing. */
export const websocket_bytes = 1024 * 1024;
/** What a connection may hold unsent: four messages of the largest size. Beyond it calls are refused, not queued. */
export const unsent_bytes = 32 * 1024 * 1024;
/**
 * How long calls and answers wait for a peer that has so much to read and takes nothing of it; then it is cut off. As long
 * as a cut connection may take to come back.
 */
export const unread_ms = 30_000;
/** What the calls that one side serves may have brought, all together: eight messages of the largest size. */
export const served_bytes = 64 * 1024 * 1024;
/** Calls that one side of a session may have unanswered; far above what pays off, far below what hurts. */
export const calls_in_flight = 4096;
/** References that one side of a session may have given out, or taken, at once; results kept for pipelining too. */
export const exports = 10_000;
/** Streams that one side of a session may have open in each direction. */
export const streams = 128;
/** What a stream's producer may be ahead of its reader, in characters and bytes. */
export const stream_bytes = 256 * 1024;
/** How long a visitor's cut session waits to be resumed; an owner's waits as long as its lease. */
export const resume_ms = 30_000;
/** Requests in one JSON-RPC batch of a plain client. */
export const batch = 1000;
/** Methods that a worker may offer. */
export const methods = 1_000;
/** From connect to a redeemed session. */
export const handshake_ms = 10_000;
/** What a call waits for when nobody said otherwise. */
export const call_ms = 60_000;
/** A clone as the caller sees it: placement, vault, load. */
export const clone_ms = 45_000;
/** What an inspection may take. */
export const inspect_ms = 30_000;
/** An evolve: its turn, a start, all tests, the state's hand-over. */
export const evolve_ms = 180_000;
/** An idle stream says so often that it lives; a reader that hears nothing for three times so long connects again. */
export const event_idle_ms = 15_000;
