/**
 * Our frames over any Node duplex stream: TCP, TLS, a Unix socket, an upgraded HTTP connection.
 *
 * A frame is a 4-byte big-endian length, one byte of kind, and the payload; the length counts kind and payload. It is
 * below 2^24, so a frame begins with 0x00, which tells it from JSON, HTTP and TLS. Kind 1 is one JSON-RPC text (UTF-8).
 * What is sent during one turn of the event loop leaves in one write.
 */
import type { Duplex } from 'node:stream';
import { LIMITS } from '@hauki/protocol';
import type { Transport, TransportEvents } from '../transport.ts';

const HEADER = 5;
const KIND_TEXT = 1;
/** How long a closing side waits for its last bytes to be taken. */
const LINGER_MS = 1_000;

/** Frames over `stream`. `limit` tells how many bytes one incoming message may have; it is asked for each. */
export function streamTransport(stream: Duplex, limit: () => number = () => LIMITS.message_bytes): Transport {
  let events: TransportEvents | undefined;
  let outgoing: string[] = [];
  let outgoing_chars = 0;
  let scheduled = false;
  let ended: string | undefined;
  let carried = 0;
  let held: Buffer[] = [];
  let held_bytes = 0;
  let wanted = HEADER;

  const end = (reason: string) => {
    if (ended !== undefined) return;
    ended = reason;
    held = [];
    events?.close(reason);
  };

  const flush = () => {
    scheduled = false;
    if (outgoing.length === 0 || stream.destroyed) return;
    let size = 0;
    const lengths: number[] = [];
    for (const text of outgoing) {
      const length = Buffer.byteLength(text);
      lengths.push(length);
      size += length + HEADER;
    }
    const bytes = Buffer.allocUnsafe(size);
    let at = 0;
    for (let i = 0; i < outgoing.length; i++) {
      bytes.writeUInt32BE(lengths[i]! + 1, at);
      bytes[at + 4] = KIND_TEXT;
      bytes.write(outgoing[i]!, at + HEADER, 'utf8');
      at += lengths[i]! + HEADER;
    }
    outgoing = [];
    outgoing_chars = 0;
    carried += size;
    stream.write(bytes);
  };

  const fail = (reason: string) => {
    end(reason);
    stream.destroy();
  };

  const take = (chunk: Buffer) => {
    carried += chunk.length;
    held.push(chunk);
    held_bytes += chunk.length;
    if (held_bytes < wanted) return;
    const bytes = held.length === 1 ? chunk : Buffer.concat(held, held_bytes);
    let at = 0;
    wanted = HEADER;
    while (ended === undefined && bytes.length - at >= HEADER) {
      const length = bytes.readUInt32BE(at);
      if (length < 1 || length > limit() + 1)
        return fail(`the peer sent a frame of ${length} bytes; at most ${limit()} are taken`);
      if (bytes.length - at < 4 + length) {
        wanted = 4 + length;
        break;
      }
      if (bytes[at + 4] !== KIND_TEXT) return fail(`the peer sent a frame of unknown kind ${bytes[at + 4]}`);
      events!.message(bytes.toString('utf8', at + HEADER, at + 4 + length));
      at += 4 + length;
    }
    held = at < bytes.length ? [bytes.subarray(at)] : [];
    held_bytes = bytes.length - at;
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
    send(text) {
      if (ended !== undefined) return;
      outgoing.push(text);
      outgoing_chars += text.length;
      if (scheduled) return;
      scheduled = true;
      setImmediate(flush);
    },
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
      return outgoing_chars + stream.writableLength;
    },
    get carried_bytes() {
      return carried;
    },
  };
}
