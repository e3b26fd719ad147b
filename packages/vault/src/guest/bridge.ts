/**
 * The bridge: frames of many channels over one stream of bytes, between a guest and the gate outside its vault (fd 4).
 * Channel 0 is control; every other one is a redeemed caller's session, opened by the outer end alone.
 *
 * A frame is a 4-byte big-endian length, a byte of kind, a 4-byte channel, and the payload; the length counts all after
 * itself. What always holds: whatever is no frame ends the bridge and nothing else; the inner end never speaks first, so
 * no byte is lost while the agent hands its end of the stream over. What frames mean is in `outer-shell.ts` and
 * `inner-shell.ts`; `python/bridge.py` speaks the same.
 */
import type { Duplex } from 'node:stream';
import { LIMITS } from '@hauki/protocol';

/** Kinds of frames. The payload of all but `tagged` is a text. */
export const BRIDGE = {
  /** A JSON-RPC message of literal values. */
  literal: 1,
  /** 4-byte length of the text, the text with tagged values, the attachments. */
  tagged: 2,
  /** Outer end only: a caller's session begins; a JSON text, `Opened`. */
  open: 3,
  /** The channel is over; a reason for people. */
  close: 4,
  /** Outer end only: how many bytes of this channel its caller has not confirmed yet, in decimal. */
  pressure: 5,
} as const;

/** What the guest is told of a caller's session. */
export interface Opened {
  role: 'owner' | 'visitor';
  /** Whole values and references; else literal JSON. */
  tagged: boolean;
  session: string;
}

export interface BridgeEvents {
  frame(kind: number, channel: number, text: string, bytes: Uint8Array | undefined): void;
  /** Once: the stream has ended, or what came was no frame (`violated`). */
  ended(reason: string, violated: boolean): void;
}

/** Length, kind, channel. */
const HEADER_BYTES = 9;
/** What the length counts besides the payload. */
const COUNTED_BYTES = HEADER_BYTES - 4;

export class Bridge {
  readonly #stream: Duplex;
  readonly #events: BridgeEvents;
  #held: Buffer[] = [];
  #held_bytes = 0;
  #wanted = HEADER_BYTES;
  #over = false;
  #corked = false;

  constructor(stream: Duplex, events: BridgeEvents) {
    this.#stream = stream;
    this.#events = events;
    stream.on('data', (chunk: Buffer) => this.#push(chunk));
    stream.on('error', (error) => this.end(error.message));
    stream.on('end', () => this.end('the other side closed its channel'));
    stream.on('close', () => this.end('its channel was closed'));
  }

  get over(): boolean {
    return this.#over;
  }

  /** Bytes sent that the other side's kernel has not taken yet. */
  get waiting_bytes(): number {
    return this.#stream.writableLength;
  }

  /** Calls `run` once, when what is waiting now has left. */
  drained(run: () => void): void {
    this.#stream.once('drain', run);
  }

  /** Sends a frame; the bytes are copied. Gives how many it has; `left` is called when they have left. */
  send(kind: number, channel: number, text: string, bytes?: readonly Uint8Array[], left?: () => void): number {
    if (this.#over) return 0;
    const length = Buffer.byteLength(text);
    let payload = length + (bytes ? 4 : 0);
    for (const part of bytes ?? []) payload += part.length;
    const frame = Buffer.allocUnsafe(HEADER_BYTES + payload);
    frame.writeUInt32BE(COUNTED_BYTES + payload, 0);
    frame[4] = kind;
    frame.writeUInt32BE(channel, 5);
    let at = HEADER_BYTES;
    if (bytes) at = frame.writeUInt32BE(length, at);
    at += frame.write(text, at, 'utf8');
    for (const part of bytes ?? []) {
      frame.set(part, at);
      at += part.length;
    }
    this.#cork();
    this.#stream.write(frame, left);
    return frame.length;
  }

  /** What was sent in this turn leaves now. */
  flush(): void {
    if (!this.#corked) return;
    this.#stream.uncork();
    this.#stream.cork();
  }

  end(reason: string, violated = false): void {
    if (this.#over) return;
    this.#over = true;
    this.#held = [];
    this.#stream.destroy();
    this.#events.ended(reason, violated);
  }

  #push(chunk: Buffer): void {
    if (this.#over) return;
    let bytes = chunk;
    if (this.#held_bytes > 0) {
      this.#held.push(chunk);
      this.#held_bytes += chunk.length;
      if (this.#held_bytes < this.#wanted) return;
      bytes = Buffer.concat(this.#held);
    }
    let at = 0;
    this.#wanted = HEADER_BYTES;
    while (bytes.length - at >= HEADER_BYTES) {
      const length = bytes.readUInt32BE(at);
      if (length < COUNTED_BYTES || length > LIMITS.message_bytes + COUNTED_BYTES)
        return this.end(`a frame of ${length} bytes`, true);
      if (bytes.length - at < 4 + length) {
        this.#wanted = 4 + length;
        break;
      }
      const kind = bytes[at + 4]!;
      const channel = bytes.readUInt32BE(at + 5);
      const from = at + HEADER_BYTES;
      at += 4 + length;
      this.#deliver(kind, channel, bytes.subarray(from, at));
      if (this.#over) return;
    }
    this.#held = at < bytes.length ? [bytes.subarray(at)] : [];
    this.#held_bytes = bytes.length - at;
  }

  #deliver(kind: number, channel: number, payload: Buffer): void {
    if (kind !== BRIDGE.tagged) return this.#events.frame(kind, channel, payload.toString('utf8'), undefined);
    const length = payload.length < 4 ? Number.NaN : payload.readUInt32BE(0);
    if (!(4 + length <= payload.length)) return this.end('a frame whose text is longer than itself', true);
    this.#events.frame(kind, channel, payload.toString('utf8', 4, 4 + length), payload.subarray(4 + length));
  }

  /** What is written in one turn leaves together. */
  #cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#stream.cork();
    process.nextTick(() => {
      this.#corked = false;
      this.#stream.uncork();
    });
  }
}
