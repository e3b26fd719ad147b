/**
 * What a session needs of a connection: to send a message, to hear messages, to end it.
 *
 * A message is a JSON-RPC text. With `bytes` (perhaps none) its values are tagged and the bytes are their attachments;
 * without, it is literal JSON (`codec.ts`). A transport delivers messages whole, in order, at most once, and tells
 * exactly once that it has closed. It owns its connection: closing the transport closes the connection.
 */

export interface TransportEvents {
  /** `bytes`: all attachments, end to end; valid until the listener returns. */
  message(text: string, bytes?: Uint8Array): void;
  /** Called once, also when this side closed. `reason` is for a person to read. */
  close(reason: string): void;
  /** A frame of the layer below sessions (`channel.ts`); whoever does not listen closes the transport on one. */
  control?(kind: number, payload: Uint8Array): void;
}

export interface Transport {
  /** Begins delivery. Messages that came earlier are delivered first. May be called again: the latest listener hears. */
  start(events: TransportEvents): void;
  /**
   * Queues a message; messages of one turn of the event loop leave together, the first of many before. The bytes are
   * not copied: who gave them leaves them alone. Does nothing after close.
   */
  send(text: string, bytes?: readonly Uint8Array[]): void;
  /** What is queued leaves now, where anything is queued here at all. */
  flush?(): void;
  /** Sends what is queued, then closes. Safe to call twice. */
  close(reason?: string): void;
  /** Whether an idle connection keeps the process alive; where nothing is there to hold, nothing happens. */
  hold?(on: boolean): void;
  /** Off: what comes in is left with the other side, who is held up, until it is on again. */
  read?(on: boolean): void;
  /** Bytes (or characters, where nothing is encoded) accepted by `send` that have not left yet. */
  readonly buffered_bytes: number;
  /** Bytes that this transport has carried, both ways. */
  readonly carried_bytes: number;
  /** Messages at the end of all those accepted that have never left for the other side; asked after the close. */
  readonly unsent?: number;
  /** Takes back the message that is so many from the newest, if it has never left; its place stays. */
  retract?(from_newest: number): boolean;
}

/** A transport that carries frames, those below sessions included. */
export interface FrameTransport extends Transport {
  control(kind: number, payload: Uint8Array): void;
}

/** The length of a message's attachments. */
export function bytesLength(bytes: readonly Uint8Array[]): number {
  let length = 0;
  for (const chunk of bytes) length += chunk.length;
  return length;
}

/** Attachments end to end; the one there is, as it is. */
export function joinBytes(bytes: readonly Uint8Array[]): Uint8Array {
  if (bytes.length === 1) return bytes[0]!;
  const joined = new Uint8Array(bytesLength(bytes));
  let at = 0;
  for (const chunk of bytes) {
    joined.set(chunk, at);
    at += chunk.length;
  }
  return joined;
}
