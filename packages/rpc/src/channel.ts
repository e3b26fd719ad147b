/**
 * A channel: a transport that outlives its connections. What one connection did not carry to the end, the next one
 * carries on, also over another route (design, decisions 5 and 8).
 *
 * What always holds: every message is delivered at most once and in order, whatever connections were cut, replaced or
 * overtaken; messages are numbered by their place, 1, 2, 3…, in each direction, and kept until the other side says that
 * it has them; what is kept is bounded by whoever sends, who asks `buffered_bytes`. A channel ends by a bye of either
 * side, or when its owner gives up waiting for a connection.
 */
import { ProtocolViolation } from '@hauki/protocol';
import { EXITS, unref } from '#platform';
import { ackOf, KIND } from './frames.ts';
import { bytesLength, type FrameTransport, type Transport, type TransportEvents } from './transport.ts';

/** Received messages and bytes after which the other side is told at once; else after a moment. */
const ACK = { messages: 64, bytes: 256 * 1024, after_ms: 50 };

interface Kept {
  text: string;
  bytes?: readonly Uint8Array[] | undefined;
  size: number;
}

/** Stands for a message that was taken back before it left: its number stays, and means nothing. */
const NOTHING = '{"jsonrpc":"2.0","method":"rpc.forget","params":[]}';
/** It counts as about what it takes: who takes back all that is sent while no connection is there is bounded too. */
const NOTHING_BYTES = 64;

export class Channel implements Transport {
  readonly #detached: (reason: string) => void;
  #ended: () => void = () => {};
  #events: TransportEvents | undefined;
  #early: [string, Uint8Array | undefined][] = [];
  #link: FrameTransport | undefined;
  #held = true;
  #reads = true;
  /** The connection that is let go of, until another has taken its place. */
  #leaving: FrameTransport | undefined;
  #end: string | undefined;
  // These are for others to read only.
  /** This side has ended it, and the other may not have heard it over the connection there was: the next one says it. */
  owes_bye = false;
  /** Messages received so far. */
  received = 0;
  /** Connections so far. */
  connections = 0;
  #told = 0;
  /** Attempts to go on over another connection that have told how much was received. */
  #promised = 0;
  #untold_bytes = 0;
  #ack_timer: ReturnType<typeof setTimeout> | undefined;
  /** Messages that the other side has; `#kept[0]` is the one after. */
  #confirmed = 0;
  #kept: Kept[] = [];
  #kept_bytes = 0;
  /** Messages that have been handed to some connection. */
  #handed = 0;
  #carried = 0;

  /** `detached` is called whenever a connection ends that was not replaced; the channel then waits. */
  constructor(detached: (reason: string) => void = () => {}) {
    this.#detached = detached;
  }

  /** Called once at the end, besides the transport's own listener: for whoever keeps the channel. */
  onEnd(run: () => void): void {
    this.#ended = run;
  }

  /** Whether the other side may have received so many messages. */
  canResume(count: unknown): count is number {
    return Number.isSafeInteger(count) && (count as number) >= this.#confirmed && (count as number) <= this.#handed;
  }

  /** Whether the other side has said since that it has more: who says so now was overtaken by another connection. */
  isOvertaken(count: unknown): boolean {
    return Number.isSafeInteger(count) && (count as number) >= 0 && (count as number) < this.#confirmed;
  }

  /**
   * What is told to go on over another connection: the messages received so far. Until `forgo`, to be called once for
   * each, nothing is acknowledged: else what was told could be overtaken by it, over the connection that still carries.
   */
  promise(): number {
    this.#promised++;
    return this.received;
  }

  forgo(): void {
    this.#promised--;
    this.#tell();
  }

  get attached(): boolean {
    return this.#link !== undefined;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  start(events: TransportEvents): void {
    const over = this.#end;
    this.#events = events;
    // The listener may close while it hears: then it hears no more, and was told of the end by that.
    for (const [text, bytes] of this.#early.splice(0)) if (this.#end === over) events.message(text, bytes);
    if (over !== undefined) events.close(over);
  }

  /**
   * Goes on over `link`. `peer_has` is what the other side said that it has received; `told` what this side said, where
   * that was while an older connection still carried messages: those that came since are skipped when they come again.
   * Throws ProtocolViolation for a count that cannot be.
   */
  attach(link: FrameTransport, peer_has = this.#confirmed, told = this.received): void {
    if (this.#end !== undefined) {
      if (this.owes_bye) link.control(KIND.bye, new Uint8Array(0));
      this.owes_bye = false;
      return link.close(this.#end);
    }
    this.#confirm(peer_has);
    this.detach();
    this.#drop();
    this.#link = link;
    this.connections++;
    let skip = this.received - told;
    this.#told = told;
    if (skip > 0) this.#tellSoon();
    for (const { text, bytes } of this.#kept) link.send(text, bytes);
    this.#handed = this.#confirmed + this.#kept.length;
    if (EXITS) link.hold?.(this.#held);
    if (!this.#reads) link.read?.(false);
    link.start({
      message: (text, bytes) => {
        if (this.#link !== link) return;
        if (skip > 0) skip--;
        else this.#take(text, bytes);
      },
      control: (kind, payload) => {
        if (this.#link !== link) return;
        try {
          this.#control(kind, payload);
        } catch (error) {
          this.close((error as Error).message);
        }
      },
      close: (reason) => {
        this.#carried += link.carried_bytes;
        if (this.#link !== link) return;
        this.#link = undefined;
        this.#detached(reason);
      },
    });
  }

  /**
   * Lets go of the connection: whatever still comes over it counts no more. It is closed only when another has taken its
   * place, or else the other side would see its end before it hears of the other.
   */
  detach(): void {
    if (!this.#link) return;
    this.#drop();
    this.#leaving = this.#link;
    this.#link = undefined;
  }

  #drop(): void {
    const link = this.#leaving;
    this.#leaving = undefined;
    link?.close('another connection took over');
  }

  send(text: string, bytes?: readonly Uint8Array[]): void {
    if (this.#end !== undefined) return;
    const size = text.length + (bytes ? bytesLength(bytes) : 0);
    this.#kept.push({ text, bytes, size });
    this.#kept_bytes += size;
    if (!this.#link) return;
    this.#handed++;
    this.#link.send(text, bytes);
  }

  /** Ends it on both sides; there is nothing to resume. */
  close(reason = 'closed by this side'): void {
    if (this.#end !== undefined) return;
    this.#link?.control(KIND.bye, new Uint8Array(0));
    // Once it was told to go on over another connection, the other side hears nothing more over this one.
    this.owes_bye = !this.#link || this.#promised > 0;
    this.fail(reason);
  }

  /** Ends it on this side: the other was not heard of in time. */
  fail(reason: string): void {
    if (this.#end !== undefined) return;
    this.#end = reason;
    clearTimeout(this.#ack_timer);
    const link = this.#link;
    this.#link = undefined;
    link?.close(reason);
    this.#drop();
    this.#ended();
    // Whoever listens asks now what has never left.
    this.#events?.close(reason);
    this.#kept = [];
    this.#kept_bytes = 0;
  }

  hold(on: boolean): void {
    this.#held = on;
    this.#link?.hold?.(on);
  }

  read(on: boolean): void {
    this.#reads = on;
    this.#link?.read?.(on);
  }

  get buffered_bytes(): number {
    return this.#kept_bytes;
  }

  get carried_bytes(): number {
    return this.#carried + (this.#link?.carried_bytes ?? 0);
  }

  get unsent(): number {
    return this.#sent - this.#handed;
  }

  retract(from_newest: number): boolean {
    const at = this.#kept.length - 1 - from_newest;
    const kept = this.#kept[at];
    if (!kept || this.#confirmed + at < this.#handed) return false;
    this.#kept_bytes += NOTHING_BYTES - kept.size;
    this.#kept[at] = { text: NOTHING, size: NOTHING_BYTES };
    return true;
  }

  get #sent(): number {
    return this.#confirmed + this.#kept.length;
  }

  #take(text: string, bytes: Uint8Array | undefined): void {
    this.received++;
    this.#untold_bytes += text.length + (bytes?.length ?? 0);
    if (this.received - this.#told >= ACK.messages || this.#untold_bytes >= ACK.bytes) this.#tell();
    else this.#tellSoon();
    if (this.#events) this.#events.message(text, bytes);
    else this.#early.push([text, bytes?.slice()]);
  }

  #tellSoon(): void {
    if (this.#ack_timer !== undefined) return;
    this.#ack_timer = unref(setTimeout(() => this.#tell(), ACK.after_ms));
  }

  #tell(): void {
    clearTimeout(this.#ack_timer);
    this.#ack_timer = undefined;
    if (!this.#link || this.#promised > 0 || this.#told === this.received) return;
    this.#untold_bytes = 0;
    this.#told = this.received;
    this.#link.control(KIND.ack, ackOf(this.received));
  }

  #control(kind: number, payload: Uint8Array): void {
    if (kind === KIND.bye) return this.fail('the other side ended the session');
    if (payload.length !== 8) throw new ProtocolViolation({ why: 'an acknowledgement that is no number' });
    this.#confirm(Number(new DataView(payload.buffer, payload.byteOffset).getBigUint64(0)));
  }

  #confirm(count: number): void {
    if (!this.canResume(count))
      throw new ProtocolViolation({ why: `it says that it has ${count} of ${this.#handed} messages` });
    for (const kept of this.#kept.splice(0, count - this.#confirmed)) this.#kept_bytes -= kept.size;
    this.#confirmed = count;
  }
}
