/**
 * CompressionStream and DecompressionStream (Compression Streams standard). The thread outside packs and unpacks, of each
 * piece at once; it keeps nothing between two of them.
 */
import { ZIP } from './limits.ts';
import { bufferOf, joined, viewOf } from './text.ts';

export interface CompressionPowers {
  /** Blocks of deflate (RFC 1951) that end on a whole byte. `before`: what came before, to which they may refer back. */
  deflate(bytes: ArrayBuffer, before: ArrayBuffer): ArrayBuffer;
  /** All of what was packed in a format. Throws TypeError where it is something else, or too much. */
  inflate(format: string, bytes: ArrayBuffer): ArrayBuffer;
  /** The checksum of a format, of these bytes behind those whose checksum is `before`. */
  checksum(format: string, bytes: ArrayBuffer, before: number): number;
}

type Format = 'gzip' | 'deflate' | 'deflate-raw';

/** The last block, and an empty one. */
const LAST_BLOCK = [3, 0];
/** RFC 1952 (no name, no time, made on Unix) and RFC 1950. */
const HEADS: Record<Format, number[]> = {
  gzip: [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3],
  deflate: [0x78, 0x9c],
  'deflate-raw': [],
};

const formatOf = (given: unknown): Format => {
  const format = String(given);
  if (!Object.hasOwn(HEADS, format)) throw new TypeError(`${JSON.stringify(format)} is no format of compression`);
  return format as Format;
};

/** The bytes of a chunk: whoever keeps them copies them. */
function bytesOf(chunk: unknown): Uint8Array {
  if (chunk instanceof ArrayBuffer || ArrayBuffer.isView(chunk)) return viewOf(chunk);
  throw new TypeError('a chunk is neither an ArrayBuffer nor a view of one');
}

/** What turns chunks into the packed form of them. */
export function compressor(given: unknown, powers: CompressionPowers): Transformer<unknown, Uint8Array> {
  const format = formatOf(given);
  let before = new Uint8Array(0);
  let check = format === 'deflate' ? 1 : 0;
  let size = 0;
  return {
    start: (to) => HEADS[format].length > 0 && to.enqueue(new Uint8Array(HEADS[format])),
    transform(chunk, to) {
      const bytes = bytesOf(chunk);
      for (let at = 0; at < bytes.length; at += ZIP.piece_bytes) {
        const piece = bytes.slice(at, at + ZIP.piece_bytes);
        to.enqueue(new Uint8Array(powers.deflate(piece.buffer, bufferOf(before))));
        check = powers.checksum(format, piece.buffer, check);
        size += piece.length;
        before = (piece.length >= ZIP.window_bytes ? piece : joined([before, piece])).slice(-ZIP.window_bytes);
      }
    },
    flush(to) {
      const tail = new DataView(new ArrayBuffer(format === 'gzip' ? 8 : format === 'deflate' ? 4 : 0));
      if (format !== 'deflate-raw') tail.setUint32(0, check, format === 'gzip');
      if (format === 'gzip') tail.setUint32(4, size % 2 ** 32, true);
      to.enqueue(joined([new Uint8Array(LAST_BLOCK), viewOf(tail)]));
    },
  };
}

/** What turns a packed form, once all of it is there, into what was packed. */
export function decompressor(given: unknown, powers: CompressionPowers): Transformer<unknown, Uint8Array> {
  const format = formatOf(given);
  const pieces: Uint8Array[] = [];
  let size = 0;
  return {
    transform(chunk) {
      const bytes = bytesOf(chunk);
      size += bytes.length;
      if (size > ZIP.bytes) throw new TypeError(`at most ${ZIP.bytes} bytes are unpacked here`);
      pieces.push(bytes.slice());
    },
    flush(to) {
      const all = new Uint8Array(powers.inflate(format, bufferOf(joined(pieces))));
      if (all.length > 0) to.enqueue(all);
    },
  };
}
