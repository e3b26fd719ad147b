/**
 * Our frames (`frames.ts`) over any Node duplex stream: TCP, TLS, a Unix socket, an upgraded HTTP connection. What is
 * sent during one turn of the event loop leaves in one write.
 */
import type { Duplex } from 'node:stream';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { FrameReader, KIND, layFrames, type Outgoing } from '../frames.ts';
import { bytesLength, type FrameTransport, type TransportEvents } from '../transport.ts';

/** How long a closing side waits for its last bytes to be taken. */
const LINGER_MS = 1_000;
const NONE: readonly Uint8Array[] = [];

const powers = {
  size: (text: string) => Buffer.byteLength(text),
  write: (into: Uint8Array, text: string, at: number, length: number) => {
    (into as Buffer).write(text, at, length, 'utf8');
  },
  allocate: (length: number) => Buffer.allocUnsafe(length),
};

/** Chunks of a socket are Buffers; what was joined of them is not. */
const readText = (bytes: Uint8Array, from: number, to: number) =>
  (bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)).toString(
    'utf8',
    from,
    to,
  );

/** Frames over `stream`. `limit` tells how many bytes one incoming message may have; it is asked for each. */
export function streamTransport(stream: Duplex, limit: () => number = () => LIMITS.message_bytes): FrameTransport {
  let events: TransportEvents | undefined;
  let outgoing: Outgoing[] = [];
  let outgoing_bytes = 0;
  let scheduled = false;
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
    readText,
  );

  const flush = () => {
    scheduled = false;
    if (outgoing.length === 0 || stream.destroyed) return;
    const chunks = layFrames(outgoing, powers);
    outgoing = [];
    outgoing_bytes = 0;
    if (chunks.length > 1) stream.cork();
    for (const chunk of chunks) {
      carried += chunk.length;
      stream.write(chunk);
    }
    if (chunks.length > 1) stream.uncork();
  };

  const queue = (kind: number, text: string, bytes: readonly Uint8Array[]) => {
    if (ended !== undefined) return;
    outgoing.push({ kind, text, bytes });
    outgoing_bytes += text.length + bytesLength(bytes);
    if (scheduled) return;
    scheduled = true;
    setImmediate(flush);
  };

  const take = (chunk: Buffer) => {
    carried += chunk.length;
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
    get buffered_bytes() {
      return outgoing_bytes + stream.writableLength;
    },
    get carried_bytes() {
      return carried;
    },
  };
}
