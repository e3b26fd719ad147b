/**
 * What a session needs of a connection: to send a message, to hear messages, to end it.
 *
 * A message is one JSON-RPC text. A transport delivers messages whole, in order, at most once, and tells exactly once
 * that it has closed. It owns its connection: closing the transport closes the connection.
 */

export interface TransportEvents {
  message(text: string): void;
  /** Called once, also when this side closed. `reason` is for a person to read. */
  close(reason: string): void;
}

export interface Transport {
  /** Begins delivery. Messages that came earlier are delivered first. */
  start(events: TransportEvents): void;
  /** Queues a message; messages of one turn of the event loop leave in one write. Does nothing after close. */
  send(text: string): void;
  /** Sends what is queued, then closes. Safe to call twice. */
  close(reason?: string): void;
  /** Whether an idle connection keeps the process alive; where nothing is there to hold, nothing happens. */
  hold?(on: boolean): void;
  /** Bytes (or characters, where nothing is encoded) accepted by `send` that have not left yet. */
  readonly buffered_bytes: number;
  /** Bytes that this transport has carried, both ways. */
  readonly carried_bytes: number;
}
