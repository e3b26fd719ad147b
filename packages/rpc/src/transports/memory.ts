/** Two transports joined in memory: a session's two ends without a network. Messages arrive on a later turn, as always. */
import { bytesLength, type FrameTransport, joinBytes, type TransportEvents } from '../transport.ts';

class MemoryEnd implements FrameTransport {
  peer!: MemoryEnd;
  #events: TransportEvents | undefined;
  #early: ((events: TransportEvents) => void)[] = [];
  #closed: string | undefined;
  buffered_bytes = 0;
  carried_bytes = 0;

  start(events: TransportEvents): void {
    const over = this.#closed;
    this.#events = events;
    // The listener may close while it hears: then it hears no more, and was told of the end by that.
    for (const deliver of this.#early.splice(0)) if (this.#closed === over) deliver(events);
    if (over !== undefined) events.close(over);
  }

  send(text: string, bytes?: readonly Uint8Array[]): void {
    const joined = bytes && joinBytes(bytes);
    this.#carry(text.length + (bytes ? bytesLength(bytes) : 0), (events) => events.message(text, joined));
  }

  control(kind: number, payload: Uint8Array): void {
    this.#carry(payload.length, (events) => {
      if (events.control) events.control(kind, payload);
      else this.peer.close('a control frame has no meaning here');
    });
  }

  close(reason = 'closed'): void {
    if (this.#closed !== undefined) return;
    queueMicrotask(() => this.peer.#shut(reason));
    this.#shut(reason);
  }

  #carry(size: number, deliver: (events: TransportEvents) => void): void {
    if (this.#closed !== undefined) return;
    this.buffered_bytes += size;
    this.carried_bytes += size;
    queueMicrotask(() => {
      this.buffered_bytes -= size;
      this.peer.#deliver(size, deliver);
    });
  }

  #deliver(size: number, deliver: (events: TransportEvents) => void): void {
    if (this.#closed !== undefined) return;
    this.carried_bytes += size;
    if (this.#events) deliver(this.#events);
    else this.#early.push(deliver);
  }

  #shut(reason: string): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#events?.close(reason);
  }
}

/** A joined pair. */
export function memoryPair(): [FrameTransport, FrameTransport] {
  const a = new MemoryEnd();
  const b = new MemoryEnd();
  a.peer = b;
  b.peer = a;
  return [a, b];
}
