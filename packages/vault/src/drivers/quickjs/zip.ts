/** What the streams of compression of a VM have the host do (`guest/platform/compression.ts`): nothing is kept between two pieces. */
import { constants, crc32, deflateRawSync, gunzipSync, inflateRawSync, inflateSync } from 'node:zlib';
import type { JSValueHandle } from 'quickjs-wasi';
import { ZIP } from '../../guest/platform/limits.ts';
import { taken } from './decoded.ts';

/** RFC 1950; so many bytes are added up before what they come to has to be brought down. */
const ADLER = { base: 65_521, bytes: 5_552 };

export function deflated(piece: JSValueHandle, before: JSValueHandle): Uint8Array {
  const window = taken(before, ZIP.window_bytes);
  const dictionary = window.length > 0 ? { dictionary: window } : {};
  return deflateRawSync(taken(piece, ZIP.piece_bytes), { finishFlush: constants.Z_SYNC_FLUSH, ...dictionary });
}

const UNPACK = new Map([
  ['gzip', gunzipSync],
  ['deflate', inflateSync],
  ['deflate-raw', inflateRawSync],
]);

/** Throws TypeError for what is of another format, is cut off or goes on behind its end, and for too much. */
export function inflated(format: JSValueHandle, packed: JSValueHandle): Uint8Array {
  const unpack = format.isString ? UNPACK.get(format.toString()) : undefined;
  if (!unpack) throw new TypeError('there is no such format');
  const bytes = taken(packed, ZIP.bytes);
  try {
    const { buffer, engine } = unpack(bytes, { maxOutputLength: ZIP.bytes, info: true }) as unknown as {
      buffer: Uint8Array;
      engine: { bytesWritten: number };
    };
    if (engine.bytesWritten === bytes.length) return buffer;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ERR_BUFFER_TOO_LARGE') throw new TypeError(`at most ${ZIP.bytes} bytes are unpacked here`);
    throw new TypeError(`the compressed data was not valid: ${message}`);
  }
  throw new TypeError('the compressed data was not valid: something stands behind its end');
}

/** Of `before` and the piece behind it: CRC-32 for gzip, else Adler-32. */
export function checksum(format: JSValueHandle, piece: JSValueHandle, before: JSValueHandle): number {
  const bytes = taken(piece, ZIP.piece_bytes);
  const sum = before.toNumber() >>> 0;
  return format.isString && format.toString() === 'gzip' ? crc32(bytes, sum) : adler32(bytes, sum);
}

function adler32(bytes: Uint8Array, sum: number): number {
  let [a, b] = [sum & 0xffff, sum >>> 16];
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(at + ADLER.bytes, bytes.length);
    for (; at < end; at++) {
      a += bytes[at]!;
      b += a;
    }
    a %= ADLER.base;
    b %= ADLER.base;
  }
  return b * 65_536 + a;
}
