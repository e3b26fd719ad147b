/**
 * Our frames (`frames.ts`) over any Node duplex stream: TCP, TLS, a Unix socket, an upgraded HTTP connection. What is
 * sent during one turn of the event loop leaves together; what follows from bytes that came in, before that.
 */
import type { Duplex } from 'node:stream';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { FRAMES_AT_ONCE, FrameReader, KIND, layFrames, type Outgoing, type Utf8 } from '../frames.ts';
import { bytesLength, type FrameTransport, type TransportEvents } from '../transport.ts';

/** How long a closing side waits for its last bytes to be taken. */
const LINGER_MS = 1_000;
const NONE: readonly Uint8Array[] = [];

/** UTF-8 by Buffer, several times as fast as what every platform has. */
export const bufferUtf8: Utf8 = {
  size: (text) => Buffer.byteLength(text),
  write(into, text, at, length) {
    (into as Buffer).write(text, at, length, 'utf8');
  },
  // Chunks of a socket are Buffers; what was joined of them is not.
  read: (bytes, from, to) =>
    (bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)).toString(
      'utf8',
      from,
      to,
    ),
  allocate: (length) => Buffer.allocUnsafe(length),
};

/** Frames over `stream`. `limit` tells how many bytes one incoming message may have; it is asked for each. */
export function streamTransport(stream: Duplex, limit: () => number = () => LIMITS.message_bytes): FrameTransport {
  let events: TransportEvents | undefined;
  let outgoing: Outgoing[] = [];
  let outgoing_bytes = 0;
  let scheduled = false;
  /** Something came in and nothing has left since. */
  let answering = false;
  let ended: string | undefined;
  let carried = 0;

  const end = (reason: string) => {
    if (ended !== undefined) return;
    ended = reason;
    reader.stop();
    events?.close(reason);
  };

  const fail = (reason: string) => {
    end(reason);
    stream.destroy();
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
    bufferUtf8,
  );

  const flush = () => {
    if (outgoing.length === 0 || stream.destroyed) return;
    const chunks = layFrames(outgoing, bufferUtf8);
    outgoing = [];
    outgoing_bytes = 0;
    if (chunks.length > 1) stream.cork();
    for (const chunk of chunks) {
      carried += chunk.length;
      stream.write(chunk);
    }
    if (chunks.length > 1) stream.uncork();
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
    // Who waits for an answer has it as soon as what came in was dealt with, once for each chunk that came in. All else
    // waits for the end of the turn, so that what is sent for many others leaves together.
    if (answering) process.nextTick(flushLater);
    else setImmediate(flushLater);
    answering = false;
  };

  const take = (chunk: Buffer) => {
    carried += chunk.length;
    answering = true;
    try {
      reader.push(chunk);
    } catch (error) {
      fail((error as Error).message);
    }
  };

  stream.on('error', (error) => end(error.message));
  stream.on('close', () => end('the connection was closed'));
  stream.on('end', () => {
    end('the other side closed the connection');
    stream.end();
  });

  return {
    start(given) {
      const first = events === undefined;
      events = given;
      if (ended !== undefined) return given.close(ended);
      if (first) stream.on('data', take);
    },
    send(text, bytes) {
      if (bytes === undefined) queue(KIND.literal, text, NONE);
      else queue(KIND.tagged, text, bytes);
    },
    control: (kind, payload) => queue(kind, '', [payload]),
    close(reason = 'closed by this side') {
      if (ended !== undefined) return;
      flush();
      end(reason);
      stream.end();
      setTimeout(() => stream.destroy(), LINGER_MS).unref();
    },
    hold(on) {
      const socket = stream as { ref?(): void; unref?(): void };
      if (on) socket.ref?.();
      else socket.unref?.();
    },
    read(on) {
      if (on) stream.resume();
      else stream.pause();
    },
    get buffered_bytes() {
      return outgoing_bytes + stream.writableLength;
    },
    get carried_bytes() {
      return carried;
    },
  };
}
