/** Our frames (`frames.ts`) over any Node duplex stream: TCP, TLS, a Unix socket, an upgraded HTTP connection. */
import type { Duplex } from 'node:stream';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { FramePipe } from '../frame-pipe.ts';
import type { Utf8 } from '../frames.ts';
import type { FrameTransport } from '../transport.ts';

/** How long a closing side waits for its last bytes to be taken. */
const LINGER_MS = 1_000;

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
  const pipe = new FramePipe(
    {
      open: () => !stream.destroyed,
      write(chunks) {
        if (chunks.length > 1) stream.cork();
        for (const chunk of chunks) stream.write(chunk);
        if (chunks.length > 1) stream.uncork();
      },
      unwritten: () => stream.writableLength,
      close(violation) {
        if (violation !== undefined) return stream.destroy();
        stream.end();
        setTimeout(() => stream.destroy(), LINGER_MS).unref();
      },
      listen: () => stream.on('data', (chunk: Buffer) => pipe.take(chunk)),
      hold(on) {
        const socket = stream as { ref?(): void; unref?(): void };
        if (on) socket.ref?.();
        else socket.unref?.();
      },
      read(on) {
        if (on) stream.resume();
        else stream.pause();
      },
    },
    limit,
    bufferUtf8,
  );
  stream.on('error', (error) => pipe.end(error.message));
  stream.on('close', () => pipe.end('the connection was closed'));
  stream.on('end', () => {
    pipe.end('the other side closed the connection');
    stream.end();
  });
  return pipe;
}
