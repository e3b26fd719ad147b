/**
 * A transport over anything that posts messages whole and in order: an IPC channel, a MessagePort, the bridge into a
 * QuickJS vault. Whoever owns the port feeds `deliver` and `closed`.
 */
import { bytesLength, type Transport, type TransportEvents } from '../transport.ts';

export interface PortTransport extends Transport {
  deliver(text: string, bytes?: Uint8Array): void;
  /** The other end is gone. */
  closed(reason: string): void;
}

/** `post` sends a message; `shut` is called once when this side closes. */
export function portTransport(
  post: (text: string, bytes?: readonly Uint8Array[]) => void,
  shut: (reason: string) => void = () => {},
): PortTransport {
  let events: TransportEvents | undefined;
  const early: [string, Uint8Array | undefined][] = [];
  let ended: string | undefined;
  let carried = 0;
  const end = (reason: string) => {
    if (ended !== undefined) return false;
    ended = reason;
    events?.close(reason);
    return true;
  };
  return {
    start(given) {
      const over = ended;
      events = given;
      // The listener may close while it hears: then it hears no more, and was told of the end by that.
      for (const [text, bytes] of early.splice(0)) if (ended === over) given.message(text, bytes);
      if (over !== undefined) given.close(over);
    },
    send(text, bytes) {
      if (ended !== undefined) return;
      carried += text.length + (bytes ? bytesLength(bytes) : 0);
      post(text, bytes);
    },
    close(reason = 'closed by this side') {
      if (end(reason)) shut(reason);
    },
    deliver(text, bytes) {
      if (ended !== undefined) return;
      carried += text.length + (bytes?.length ?? 0);
      if (events) events.message(text, bytes);
      else early.push([text, bytes?.slice()]);
    },
    closed(reason) {
      end(reason);
    },
    buffered_bytes: 0,
    get carried_bytes() {
      return carried;
    },
  };
}
