/**
 * Our frames (`frames.ts`) over a WebSocket: a browser's, Node's own, or one of a server in Node.
 *
 * The payloads of the binary messages, end to end, are the stream of bytes that TCP would carry; where one message ends
 * means nothing, so a relay may cut and join as it likes. What is sent during one turn of the event loop leaves in one
 * message, or in a few where it is large. Nothing here imports Node.
 */
import * as LIMITS from '@hauki/protocol/caller-limits';
import { unref, utf8Bytes } from '#platform';
import { FramePipe } from '../frame-pipe.ts';
import type { Utf8 } from '../frames.ts';
import type { FrameTransport } from '../transport.ts';

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

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

const platformUtf8: Utf8 = {
  size: utf8Bytes,
  write(into, text, at, length) {
    encoder.encodeInto(text, into.subarray(at, at + length));
  },
  read: (bytes, from, to) => decoder.decode(bytes.subarray(from, to)),
  allocate: (length) => new Uint8Array(length),
};

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
  const pipe = new FramePipe(
    {
      open: () => socket.readyState === OPEN,
      write(chunks) {
        for (const chunk of chunks)
          for (let at = 0; at < chunk.length; at += LIMITS.websocket_bytes)
            socket.send(chunk.subarray(at, at + LIMITS.websocket_bytes) as Uint8Array<ArrayBuffer>);
      },
      unwritten: () => socket.bufferedAmount,
      close(violation) {
        // A reason may have 123 bytes; ours are ASCII where they come from here.
        if (violation === undefined) socket.close(NORMAL);
        else socket.close(VIOLATION, violation.slice(0, 100));
        if (socket.terminate) unref(setTimeout(() => socket.terminate!(), LINGER_MS));
      },
      ...(hold && { hold }),
    },
    limit,
    utf8,
  );
  // Where binary messages come as Buffers they may stay so.
  if (socket.binaryType === 'blob') socket.binaryType = 'arraybuffer';
  socket.addEventListener('message', ({ data }) => {
    if (typeof data === 'string') pipe.fail('the peer sent text where only bytes are taken');
    else pipe.take(data instanceof Uint8Array ? data : new Uint8Array(data as ArrayBuffer));
  });
  // Its close event follows, and says more.
  socket.addEventListener('error', () => {});
  socket.addEventListener('close', ({ code, reason }) =>
    pipe.end(reason || (code === NORMAL ? 'the other side closed the connection' : `the connection broke (${code})`)),
  );
  return pipe;
}
