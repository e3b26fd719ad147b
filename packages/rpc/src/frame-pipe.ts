/**
 * One end of a connection that carries frames (`frames.ts`), whatever bytes it has: `transports/stream.ts` and
 * `transports/websocket.ts` bring those.
 *
 * What always holds: frames leave in the order in which they were given. What is sent during one turn of the event loop
 * leaves together, or in a few pieces where it is much; what follows from bytes that came in, before that. What comes
 * before anyone listens is kept, and bounded.
 */
import * as LIMITS from '@hauki/protocol/caller-limits';
import { afterEvent, afterTurn } from '#platform';
import { FRAMES_AT_ONCE, FrameReader, KIND, layFrames, type Outgoing, type Utf8 } from './frames.ts';
import { bytesLength, type FrameTransport, type TransportEvents } from './transport.ts';

/** What brings the bytes. */
export interface Carrier {
  /** Whether it takes bytes still. */
  open(): boolean;
  write(chunks: readonly Uint8Array[]): void;
  /** Bytes given to `write` that have not left yet. */
  unwritten(): number;
  /** Ends the connection. `violation`: what the peer did, where that is why. */
  close(violation?: string): void;
  /** Somebody listens now: bytes may come. Called once. */
  listen?(): void;
  hold?(on: boolean): void;
  read?(on: boolean): void;
}

const NONE: readonly Uint8Array[] = [];

export class FramePipe implements FrameTransport {
  readonly #carrier: Carrier;
  readonly #utf8: Utf8;
  readonly #reader: FrameReader;
  #events: TransportEvents | undefined;
  /** What came before anyone listened. */
  readonly #early: Uint8Array[] = [];
  #early_bytes = 0;
  #outgoing: Outgoing[] = [];
  #outgoing_bytes = 0;
  #scheduled = false;
  /** Something came in and nothing has left since: whoever waits for an answer has it at once. */
  #answering = false;
  #ended: string | undefined;
  carried_bytes = 0;

  /** `limit` tells how many bytes one incoming message may have; it is asked for each. */
  constructor(carrier: Carrier, limit: () => number, utf8: Utf8) {
    this.#carrier = carrier;
    this.#utf8 = utf8;
    this.#reader = new FrameReader(
      {
        message: (text, bytes) => this.#events!.message(text, bytes),
        control: (kind, payload) => {
          if (this.#events!.control) this.#events!.control(kind, payload);
          else this.fail(`the peer sent a frame of kind ${kind}, which has no meaning here`);
        },
      },
      limit,
      utf8,
    );
  }

  get buffered_bytes(): number {
    return this.#outgoing_bytes + this.#carrier.unwritten();
  }

  start(events: TransportEvents): void {
    const over = this.#ended;
    const first = this.#events === undefined;
    this.#events = events;
    for (const chunk of this.#early.splice(0)) if (this.#ended === over) this.#read(chunk);
    if (over !== undefined) events.close(over);
    else if (first) this.#carrier.listen?.();
  }

  send(text: string, bytes?: readonly Uint8Array[]): void {
    this.#queue(bytes ? KIND.tagged : KIND.literal, text, bytes ?? NONE);
  }

  control(kind: number, payload: Uint8Array): void {
    this.#queue(kind, '', [payload]);
  }

  close(reason = 'closed by this side'): void {
    if (this.#ended !== undefined) return;
    this.flush();
    this.end(reason);
    this.#carrier.close();
  }

  hold(on: boolean): void {
    this.#carrier.hold?.(on);
  }

  read(on: boolean): void {
    this.#carrier.read?.(on);
  }

  // ---- For the carrier

  /** Bytes have come. */
  take(chunk: Uint8Array): void {
    if (this.#ended !== undefined) return;
    this.carried_bytes += chunk.length;
    if (this.#events) return this.#read(chunk);
    this.#early.push(chunk);
    this.#early_bytes += chunk.length;
    if (this.#early_bytes > LIMITS.unsent_bytes) this.fail('the peer sent more than is kept for a listener');
  }

  /** The connection is over. */
  end(reason: string): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#early.length = 0;
    this.#reader.stop();
    this.#events?.close(reason);
  }

  /** The peer did what cannot be: the connection ends. */
  fail(violation: string): void {
    if (this.#ended !== undefined) return;
    this.end(violation);
    this.#carrier.close(violation);
  }

  #read(chunk: Uint8Array): void {
    this.#answering = true;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.fail((error as Error).message);
    }
  }

  #queue(kind: number, text: string, bytes: readonly Uint8Array[]): void {
    if (this.#ended !== undefined) return;
    this.#outgoing.push({ kind, text, bytes });
    this.#outgoing_bytes += text.length + bytesLength(bytes);
    if (this.#outgoing.length >= FRAMES_AT_ONCE) this.flush();
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Who waits for an answer has it as soon as what came in was dealt with, once for each chunk that came in. All else
    // waits for the end of the turn, so that what is sent for many others leaves together.
    if (this.#answering) afterEvent(this.#flushLater);
    else afterTurn(this.#flushLater);
    this.#answering = false;
  }

  readonly #flushLater = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  /** What waits for the end of the turn leaves now; also for whoever may not live to see that. */
  flush(): void {
    if (this.#outgoing.length === 0) return;
    const chunks = layFrames(this.#outgoing, this.#utf8);
    this.#outgoing = [];
    this.#outgoing_bytes = 0;
    if (!this.#carrier.open()) return;
    for (const chunk of chunks) this.carried_bytes += chunk.length;
    this.#carrier.write(chunks);
  }
}
