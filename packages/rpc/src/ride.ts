/**
 * The first messages of an owner's session and the first answers to them: they ride with the request for its worker and
 * with the answer to that, so a first call waits for no connection.
 *
 * To the channel on either side a ride is its first connection, one that was cut: what it carried is never sent again,
 * whatever it did not carry the next one does. Both sides keep the same count of it, by the answers that came along.
 */
import { type FirstMessage, LIMITS } from '@hauki/protocol';
import type { Channel } from './channel.ts';
import { ackOf, KIND } from './frames.ts';
import { fromBase64url, toBase64url } from './handshake.ts';
import { type FrameTransport, joinBytes, type TransportEvents } from './transport.ts';

export class Ride implements FrameTransport {
  readonly carried_bytes = 0;
  readonly buffered_bytes = 0;
  readonly #channel: Channel;
  readonly #messages: FirstMessage[] = [];
  #chars = 0;
  #events!: TransportEvents;

  /** Takes what waits in the channel along, and what is sent until `take`. */
  constructor(channel: Channel) {
    this.#channel = channel;
    channel.attach(this);
  }

  start(events: TransportEvents): void {
    this.#events = events;
  }

  send(text: string, bytes?: readonly Uint8Array[]): void {
    const message: FirstMessage = bytes ? { text, bytes: toBase64url(joinBytes(bytes)) } : { text };
    this.#chars += sizeOf(message);
    if (this.#messages.length < LIMITS.first_messages && this.#chars <= LIMITS.first_chars)
      this.#messages.push(message);
    else this.#chars = Number.POSITIVE_INFINITY;
  }

  control(): void {}
  close(): void {}

  /** What there is for the other side; what did not fit in its order the next connection carries. */
  take(): FirstMessage[] {
    return this.#messages;
  }

  /** Says to the channel what has come from the other side. */
  deliver(messages: readonly FirstMessage[]): void {
    for (const { text, bytes } of messages)
      this.#events.message(text, bytes === undefined ? undefined : fromBase64url(bytes));
  }

  /** What was taken has come to the other side. */
  confirm(): void {
    this.#events.control!(KIND.ack, ackOf(this.#messages.length));
  }

  /** Carries no more. */
  end(): void {
    this.#channel.detach();
  }
}

const sizeOf = ({ text, bytes }: FirstMessage) => text.length + (bytes?.length ?? 0);

/** Whether these are messages as they may ride: from whom one does not trust. */
export function areFirst(messages: unknown): messages is FirstMessage[] {
  if (!Array.isArray(messages) || messages.length > LIMITS.first_messages) return false;
  const fit = messages.every(
    (one) =>
      typeof one?.text === 'string' &&
      (one.bytes === undefined || (typeof one.bytes === 'string' && /^[A-Za-z0-9_-]*$/.test(one.bytes))),
  );
  return fit && (messages as FirstMessage[]).reduce((sum, one) => sum + sizeOf(one), 0) <= LIMITS.first_chars;
}
