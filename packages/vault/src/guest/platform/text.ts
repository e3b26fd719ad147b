/** TextEncoder and TextDecoder (Encoding standard): UTF-8 and UTF-16LE. The bytes themselves are turned outside. */
import type { PlatformPowers } from '../vm-platform.ts';

const LABELS: Record<string, 'utf-8' | 'utf-16le'> = {
  'utf-8': 'utf-8',
  utf8: 'utf-8',
  'unicode-1-1-utf-8': 'utf-8',
  'utf-16le': 'utf-16le',
  'utf-16': 'utf-16le',
};

/** The bytes of a view or a buffer, as a view. */
export function viewOf(source: ArrayBuffer | ArrayBufferView): Uint8Array {
  if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  return new Uint8Array(source);
}

/** Not each engine has shared ones. */
const isBuffer = (given: unknown): boolean =>
  /^\[object (?:Shared)?ArrayBuffer\]$/.test(Object.prototype.toString.call(given));

/** The same as a buffer of its own. */
export function bufferOf(source: ArrayBuffer | ArrayBufferView): ArrayBuffer {
  const view = viewOf(source);
  const whole = view.byteLength === view.buffer.byteLength && view.buffer instanceof ArrayBuffer;
  return (whole ? view.buffer : view.slice().buffer) as ArrayBuffer;
}

/** Pieces as one. */
export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** How many bytes at the end of `bytes` begin a character that is not whole yet. */
function unfinished(bytes: Uint8Array, encoding: string): number {
  const { length } = bytes;
  if (encoding === 'utf-16le') {
    const odd = length % 2;
    const high = length - odd >= 2 ? bytes[length - odd - 1]! : 0;
    return odd + (high >= 0xd8 && high <= 0xdb ? 2 : 0);
  }
  for (let back = 1; back <= Math.min(3, length); back++) {
    const byte = bytes[length - back]!;
    if (byte < 0x80) return 0;
    if (byte < 0xc0) continue;
    const needs = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
    if (needs <= back || byte > 0xf4 || byte < 0xc2) return 0;
    // A second byte that can never follow makes it a fault now, not later.
    const second = bytes[length - back + 1];
    const [least, most] =
      byte === 0xe0
        ? [0xa0, 0xbf]
        : byte === 0xed
          ? [0x80, 0x9f]
          : byte === 0xf0
            ? [0x90, 0xbf]
            : byte === 0xf4
              ? [0x80, 0x8f]
              : [0x80, 0xbf];
    return second !== undefined && (second < least! || second > most!) ? 0 : back;
  }
  return 0;
}

export function textCoders(powers: Pick<PlatformPowers, 'encode' | 'decode'>) {
  class TextEncoder {
    get encoding(): string {
      return 'utf-8';
    }

    encode(text: unknown = ''): Uint8Array {
      return new Uint8Array(powers.encode(String(text)));
    }

    encodeInto(text: string, into: Uint8Array): { read: number; written: number } {
      let read = 0;
      let written = 0;
      for (const character of String(text)) {
        const code = character.codePointAt(0)!;
        const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        if (written + size > into.length) break;
        into.set(size === 1 ? [code] : new Uint8Array(powers.encode(character)), written);
        written += size;
        read += character.length;
      }
      return { read, written };
    }
  }

  class TextDecoder {
    readonly encoding: string;
    readonly fatal: boolean;
    readonly ignoreBOM: boolean;
    #left: Uint8Array | undefined;
    #begun = false;

    constructor(label: unknown = 'utf-8', options: { fatal?: unknown; ignoreBOM?: unknown } = {}) {
      const encoding = LABELS[String(label).trim().toLowerCase()];
      if (!encoding)
        throw new RangeError(
          `The encoding ${JSON.stringify(String(label))} is not supported here: utf-8 and utf-16le are`,
        );
      this.encoding = encoding;
      this.fatal = Boolean(options?.fatal);
      this.ignoreBOM = Boolean(options?.ignoreBOM);
    }

    decode(input?: ArrayBuffer | ArrayBufferView, options: { stream?: unknown } = {}): string {
      if (input !== undefined && !ArrayBuffer.isView(input) && !isBuffer(input))
        throw new TypeError(
          'The "list" argument must be an instance of SharedArrayBuffer, ArrayBuffer or ArrayBufferView.',
        );
      let bytes = input === undefined ? new Uint8Array(0) : viewOf(input);
      if (this.#left) {
        const joined = new Uint8Array(this.#left.length + bytes.length);
        joined.set(this.#left);
        joined.set(bytes, this.#left.length);
        bytes = joined;
      }
      const stream = Boolean(options?.stream);
      const kept = stream ? unfinished(bytes, this.encoding) : 0;
      this.#left = kept > 0 ? bytes.slice(bytes.length - kept) : undefined;
      const now = kept > 0 ? bytes.subarray(0, bytes.length - kept) : bytes;
      // A byte order mark is one at the very beginning only.
      const keep_bom = this.ignoreBOM || this.#begun;
      this.#begun = stream && (this.#begun || now.length > 0);
      try {
        return powers.decode(bufferOf(now), this.encoding, this.fatal ? 1 : 0, keep_bom ? 1 : 0);
      } catch {
        this.#left = undefined;
        this.#begun = false;
        throw new TypeError(`The encoded data was not valid for encoding ${this.encoding}`);
      }
    }
  }
  return { TextEncoder, TextDecoder };
}
