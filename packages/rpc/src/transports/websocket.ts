/**
 * Our frames (`frames.ts`) over a WebSocket: a browser's, Node's own, or one of a server in Node.
 *
 * The payloads of the binary messages, end to end, are the stream of bytes that TCP would carry; where one message ends
 * means nothing, so a relay may cut and join as it likes. What is sent during one turn of the event loop leaves in one
 * message, or in a few where it is large. Nothing here imports Node.
 */
import * as LIMITS from '@hauki/protocol/caller-limits';
import { FRAMES_AT_ONCE, FrameReader, KIND, layFrames, type Outgoing, type Utf8 } from '../frames.ts';
import { bytesLength, type FrameTransport, type TransportEvents } from '../transport.ts';
import { utf8Bytes } from '../values.ts';

/** The subprotocol by which client and server know that they mean the same. */
export const WEBSOCKET_PROTOCOL = 'hauki.v1';

/** What a transport needs of a WebSocket; the WHATWG's has it all. */
export interface WebSocketLike {
  readonly readyState: number;
  readonly bufferedAmount: number;
  binaryType: string;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void;
  addEventListener(type: 'close', listener: (event: { code: number; reason: string }) => void): void;
  addEventListener(type: 'error', listener: () => void): void;
  /** Of `ws` only: ends at once. */
  terminate?(): void;
}

const OPEN = 1;
/** Close codes: an orderly end, and an end for what the other side sent. */
const NORMAL = 1000;
const VIOLATION = 4400;
/** How long a closing side waits for the other to close too, where it can do something about it. */
const LINGER_MS = 1_000;
/** Above so many characters the platform's encoder is quicker than counting. */
const LONG_TEXT = 2_048;
const NONE: readonly Uint8Array[] = [];

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

const platformUtf8: Utf8 = {
  size: (text) => (text.length > LONG_TEXT ? encoder.encode(text).length : utf8Bytes(text)),
  write(into, text, at, length) {
    encoder.encodeInto(text, into.subarray(at, at + length));
  },
  read: (bytes, from, to) => decoder.decode(bytes.subarray(from, to)),
  allocate: (length) => new Uint8Array(length),
};

/** After the turn of the event loop where there is such a thing to wait for, else after what is queued in it. */
const node = globalThis as { setImmediate?: After; process?: { nextTick?: After } };
type After = (run: () => void) => void;
const afterTurn = node.setImmediate ?? queueMicrotask;
/** As soon as what came in was dealt with, all that follows from it included. */
const afterEvent = node.process?.nextTick ?? afterTurn;

/**
 * Frames over `socket`, which is open. `limit` tells how many bytes one incoming message may have, asked for each;
 * `hold` keeps the process alive or lets it go, where the platform has such a thing; `utf8`: faster means, where there
 * are some.
 */
export function webSocketTransport(
  socket: WebSocketLike,
  limit: () => number = () => LIMITS.message_bytes,
  hold?: (on: boolean) => void,
  utf8: Utf8 = platformUtf8,
): FrameTransport {
  let events: TransportEvents | undefined;
  /** What came before anyone listened. */
  const early: Uint8Array[] = [];
  let early_bytes = 0;
  let outgoing: Outgoing[] = [];
  let outgoing_bytes = 0;
  let scheduled = false;
  /** Something came in and nothing has left since: whoever waits for an answer has it at once (see `stream.ts`). */
  let answering = false;
  let ended: string | undefined;
  let carried = 0;

  const end = (reason: string) => {
    if (ended !== undefined) return;
    ended = reason;
    events?.close(reason);
  };

  const shut = (code: number, reason: string) => {
    // A reason may have 123 bytes; ours are ASCII where they come from here.
    socket.close(code, reason.slice(0, 100));
    if (socket.terminate) {
      const timer: { unref?(): void } | number = setTimeout(() => socket.terminate!(), LINGER_MS);
      (timer as { unref?(): void }).unref?.();
    }
  };

  const fail = (reason: string) => {
    if (ended !== undefined) return;
    reader.stop();
    end(reason);
    shut(VIOLATION, reason);
  };

  const reader = new FrameReader(
    {
      message: (text, bytes) => events!.message(text, bytes),
      control: (kind, payload) => {
        if (events!.control) events!.control(kind, payload);
        else fail(`the peer sent a frame of kind ${kind}, which has no meaning here`);
      },
    },
    limit,
    utf8,
  );

  const read = (chunk: Uint8Array) => {
    answering = true;
    try {
      reader.push(chunk);
    } catch (error) {
      fail((error as Error).message);
    }
  };

  const flush = () => {
    if (outgoing.length === 0) return;
    const chunks = layFrames(outgoing, utf8);
    outgoing = [];
    outgoing_bytes = 0;
    if (socket.readyState !== OPEN) return;
    for (const chunk of chunks)
      for (let at = 0; at < chunk.length; at += LIMITS.websocket_bytes) {
        const part = chunk.subarray(at, at + LIMITS.websocket_bytes);
        carried += part.length;
        socket.send(part as Uint8Array<ArrayBuffer>);
      }
  };

  const flushLater = () => {
    scheduled = false;
    flush();
  };

  const queue = (kind: number, text: string, bytes: readonly Uint8Array[]) => {
    if (ended !== undefined) return;
    outgoing.push({ kind, text, bytes });
    outgoing_bytes += text.length + bytesLength(bytes);
    if (outgoing.length >= FRAMES_AT_ONCE) flush();
    if (scheduled) return;
    scheduled = true;
    if (answering) afterEvent(flushLater);
    else afterTurn(flushLater);
    answering = false;
  };

  // Where binary messages come as Buffers they may stay so.
  if (socket.binaryType === 'blob') socket.binaryType = 'arraybuffer';
  socket.addEventListener('message', ({ data }) => {
    if (ended !== undefined) return;
    if (typeof data === 'string') return fail('the peer sent text where only bytes are taken');
    const chunk = data instanceof Uint8Array ? data : new Uint8Array(data as ArrayBuffer);
    carried += chunk.length;
    if (events) return read(chunk);
    early.push(chunk);
    early_bytes += chunk.length;
    if (early_bytes <= LIMITS.unsent_bytes) return;
    early.length = 0;
    fail('the peer sent more than is kept for a listener');
  });
  // Its close event follows, and says more.
  socket.addEventListener('error', () => {});
  socket.addEventListener('close', ({ code, reason }) =>
    end(reason || (code === NORMAL ? 'the other side closed the connection' : `the connection broke (${code})`)),
  );

  return {
    start(given) {
      const over = ended;
      events = given;
      for (const chunk of early.splice(0)) if (ended === over) read(chunk);
      if (over !== undefined) given.close(over);
    },
    send(text, bytes) {
      if (bytes === undefined) queue(KIND.literal, text, NONE);
      else queue(KIND.tagged, text, bytes);
    },
    control: (kind, payload) => queue(kind, '', [payload]),
    close(reason = 'closed by this side') {
      if (ended !== undefined) return;
      flush();
      reader.stop();
      end(reason);
      shut(NORMAL, '');
    },
    ...(hold && { hold }),
    get buffered_bytes() {
      return outgoing_bytes + socket.bufferedAmount;
    },
    get carried_bytes() {
      return carried;
    },
  };
}
