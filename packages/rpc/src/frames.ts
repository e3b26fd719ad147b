/**
 * Frames: how messages lie in a stream of bytes, whatever carries it.
 *
 * A frame is a 4-byte big-endian length, one byte of kind, and the payload; the length counts kind and payload. It is
 * below 2^24, so a frame begins with 0x00, which tells it from JSON, HTTP and TLS.
 */
import { ProtocolViolation } from '@hauki/protocol';
import { joinBytes } from './transport.ts';

export const KIND = {
  /** A JSON-RPC text (UTF-8) whose values are literal JSON. */
  literal: 1,
  /** 4-byte length of the text, the text with tagged values, the attachments. */
  tagged: 2,
  /** 8-byte count of the messages received so far (`channel.ts`). */
  ack: 3,
  /** A reason (UTF-8): the session is over and will not be resumed. */
  bye: 4,
} as const;

/** The payload of an acknowledgement. */
export function ackOf(received: number): Uint8Array {
  const payload = new Uint8Array(8);
  new DataView(payload.buffer).setBigUint64(0, BigInt(received));
  return payload;
}

/**
 * So many messages leave without waiting for the rest of their turn: the other side works on them meanwhile, which
 * doubles what 64 callers get done; with fewer the system calls cost more than that brings.
 */
export const FRAMES_AT_ONCE = 16;

/** Length and kind. */
export const HEADER_BYTES = 5;

/** UTF-8 by the means of a platform. */
export interface Utf8 {
  /** The length of a text in bytes. */
  size(text: string): number;
  /** Puts a text, `length` bytes of it, into a chunk. */
  write(into: Uint8Array, text: string, at: number, length: number): void;
  read(bytes: Uint8Array, from: number, to: number): string;
  /** A chunk, which may hold anything. */
  allocate(length: number): Uint8Array;
}

export interface FrameEvents {
  message(text: string, bytes?: Uint8Array): void;
  control(kind: number, payload: Uint8Array): void;
}

/** Cuts a stream of bytes into frames. */
export class FrameReader {
  readonly #events: FrameEvents;
  readonly #limit: () => number;
  readonly #utf8: Utf8;
  #held: Uint8Array[] = [];
  #held_bytes = 0;
  #wanted = HEADER_BYTES;
  #stopped = false;

  /** `limit` tells how many bytes one message may have, asked for each. */
  constructor(events: FrameEvents, limit: () => number, utf8: Utf8) {
    this.#events = events;
    this.#limit = limit;
    this.#utf8 = utf8;
  }

  /** Nothing more is delivered, also of what is being cut. */
  stop(): void {
    this.#stopped = true;
    this.#held = [];
  }

  /** Delivers every frame that is whole by now. Throws ProtocolViolation for what is no frame. */
  push(chunk: Uint8Array): void {
    if (this.#stopped) return;
    let bytes = chunk;
    if (this.#held_bytes > 0 || chunk.length < this.#wanted) {
      this.#held.push(chunk);
      this.#held_bytes += chunk.length;
      if (this.#held_bytes < this.#wanted) return;
      bytes = joinBytes(this.#held);
    }
    const end = bytes.length;
    let at = 0;
    this.#wanted = HEADER_BYTES;
    while (end - at >= HEADER_BYTES) {
      const length = readU32(bytes, at);
      const limit = this.#limit();
      if (length < 1 || length > limit + 1)
        throw new ProtocolViolation({ why: `a frame of ${length} bytes; at most ${limit} are taken` });
      if (end - at < 4 + length) {
        this.#wanted = 4 + length;
        break;
      }
      const from = at + HEADER_BYTES;
      at += 4 + length;
      this.#deliver(bytes, bytes[from - 1]!, from, at);
      if (this.#stopped) return;
    }
    this.#held = at < end ? [bytes.subarray(at)] : [];
    this.#held_bytes = end - at;
  }

  #deliver(bytes: Uint8Array, kind: number, from: number, to: number): void {
    if (kind === KIND.literal) return this.#events.message(this.#utf8.read(bytes, from, to));
    if (kind === KIND.tagged) {
      const length = to - from < 4 ? Number.NaN : readU32(bytes, from);
      const middle = from + 4 + length;
      if (!(middle <= to)) throw new ProtocolViolation({ why: 'a frame whose text is longer than itself' });
      return this.#events.message(this.#utf8.read(bytes, from + 4, middle), bytes.subarray(middle, to));
    }
    if (kind === KIND.ack || kind === KIND.bye) return this.#events.control(kind, bytes.subarray(from, to));
    throw new ProtocolViolation({ why: `a frame of unknown kind ${kind}` });
  }
}

export function readU32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

export function writeU32(bytes: Uint8Array, value: number, at: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** A message or control frame that waits to be written. */
export interface Outgoing {
  kind: number;
  text: string;
  bytes: readonly Uint8Array[];
}

/** Attachments at least so large are written from where they lie instead of being copied. */
const LARGE_BYTES = 16 * 1024;

/** The bytes of frames, as few chunks as pay off. */
export function layFrames(frames: readonly Outgoing[], utf8: Utf8): Uint8Array[] {
  const lengths: number[] = [];
  let total = 0;
  for (const { kind, text, bytes } of frames) {
    const length = utf8.size(text);
    lengths.push(length);
    total += HEADER_BYTES + length + (kind === KIND.tagged ? 4 : 0);
    for (const part of bytes) if (part.length < LARGE_BYTES) total += part.length;
  }
  const buffer = utf8.allocate(total);
  const chunks: Uint8Array[] = [];
  let from = 0;
  let at = 0;
  for (let i = 0; i < frames.length; i++) {
    const { kind, text, bytes } = frames[i]!;
    const length = lengths[i]!;
    let payload = length + (kind === KIND.tagged ? 4 : 0);
    for (const part of bytes) payload += part.length;
    writeU32(buffer, payload + 1, at);
    buffer[at + 4] = kind;
    at += HEADER_BYTES;
    if (kind === KIND.tagged) {
      writeU32(buffer, length, at);
      at += 4;
    }
    if (length > 0) utf8.write(buffer, text, at, length);
    at += length;
    for (const part of bytes) {
      if (part.length < LARGE_BYTES) {
        buffer.set(part, at);
        at += part.length;
        continue;
      }
      if (at > from) chunks.push(buffer.subarray(from, at));
      chunks.push(part);
      from = at;
    }
  }
  if (at > from) chunks.push(buffer.subarray(from, at));
  return chunks;
}
