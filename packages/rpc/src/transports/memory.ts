/** Two transports joined in memory: a session's two ends without a network. Messages arrive on a later turn, as always. */
import type { Transport, TransportEvents } from '../transport.ts';

class MemoryEnd implements Transport {
  peer!: MemoryEnd;
  #events: TransportEvents | undefined;
  #early: string[] = [];
  #closed: string | undefined;
  buffered_bytes = 0;
  carried_bytes = 0;

  start(events: TransportEvents): void {
    const over = this.#closed;
    this.#events = events;
    // The listener may close while it hears: then it hears no more, and was told of the end by that.
    for (const text of this.#early.splice(0)) if (this.#closed === over) events.message(text);
    if (over !== undefined) events.close(over);
  }

  send(text: string): void {
    if (this.#closed !== undefined) return;
    this.buffered_bytes += text.length;
    this.carried_bytes += text.length;
    queueMicrotask(() => {
      this.buffered_bytes -= text.length;
      this.peer.#deliver(text);
    });
  }

  close(reason = 'closed'): void {
    if (this.#closed !== undefined) return;
    queueMicrotask(() => this.peer.#shut(reason));
    this.#shut(reason);
  }

  #deliver(text: string): void {
    if (this.#closed !== undefined) return;
    this.carried_bytes += text.length;
    if (this.#events) this.#events.message(text);
    else this.#early.push(text);
  }

  #shut(reason: string): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#events?.close(reason);
  }
}

/** A joined pair. */
export function memoryPair(): [Transport, Transport] {
  const a = new MemoryEnd();
  const b = new MemoryEnd();
  a.peer = b;
  b.peer = a;
  return [a, b];
}
