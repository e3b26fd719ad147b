/** Blob and File (File API): bytes that never change, so that parts of them share them. */
import type { PlatformPowers } from '../vm-platform.ts';
import { bufferOf, joined, viewOf } from './text.ts';

/** What both need of the platform; given once. */
export type BlobPowers = Pick<PlatformPowers, 'encode' | 'decode' | 'streams'>;
let powers: BlobPowers;
/** Called once, before anything else here. */
export function useBlobs(given: BlobPowers): void {
  powers = given;
}

const typeOf = (given: unknown): string => {
  const type = given === undefined ? '' : String(given);
  return /^[\x20-\x7e]*$/.test(type) ? type.toLowerCase() : '';
};

/** Bytes that nobody else changes, in place of parts that are copied. */
class Own {
  readonly bytes: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}
/** For what was read: a file's bytes are those of the form that it came in. */
export const own = (bytes: Uint8Array): Iterable<unknown> => new Own(bytes) as unknown as Iterable<unknown>;

function bytesIn(parts: unknown, endings: unknown): Uint8Array {
  if (parts instanceof Own) return parts.bytes;
  if (parts === undefined) return new Uint8Array(0);
  if (typeof parts !== 'object' || parts === null || !(Symbol.iterator in parts))
    throw new TypeError('Blob: its parts are a sequence');
  const pieces = [...(parts as Iterable<unknown>)].map((part) => {
    if (part instanceof Blob) return Blob.bytesOf(part);
    if (part instanceof ArrayBuffer || ArrayBuffer.isView(part)) return viewOf(part);
    const text = String(part);
    return new Uint8Array(powers.encode(endings === 'native' ? text.replace(/\r\n?/g, '\n') : text));
  });
  return joined(pieces);
}

/** Where a slice begins or ends: from the end where it is negative. */
const edge = (given: unknown, size: number, missing: number): number => {
  if (given === undefined) return missing;
  const at = Math.trunc(Number(given)) || 0;
  return at < 0 ? Math.max(size + at, 0) : Math.min(at, size);
};

export class Blob {
  readonly #bytes: Uint8Array;
  readonly type: string;

  constructor(parts?: Iterable<unknown>, { type, endings }: { type?: unknown; endings?: unknown } = {}) {
    this.#bytes = bytesIn(parts, endings);
    this.type = typeOf(type);
  }

  /** Its bytes themselves, for readers that leave them as they are. */
  static bytesOf(blob: Blob): Uint8Array {
    return blob.#bytes;
  }

  get size(): number {
    return this.#bytes.length;
  }
  get [Symbol.toStringTag](): string {
    return 'Blob';
  }
  slice(start?: number, end?: number, type?: unknown): Blob {
    const from = edge(start, this.size, 0);
    const to = edge(end, this.size, this.size);
    return new Blob(own(this.#bytes.subarray(from, Math.max(from, to))), { type: type ?? '' });
  }
  async bytes(): Promise<Uint8Array> {
    return this.#bytes.slice();
  }
  async arrayBuffer(): Promise<ArrayBuffer> {
    return bufferOf(this.#bytes.slice());
  }
  async text(): Promise<string> {
    return powers.decode(bufferOf(this.#bytes), 'utf-8', 0, 0);
  }
  stream(): ReadableStream {
    return powers.streams().ReadableStream.from(this.size === 0 ? [] : [this.#bytes.slice()]) as ReadableStream;
  }
}

/** Without the grant `time` there is no clock: a file is then of the year 1970. */
function now(): number {
  try {
    return Date.now();
  } catch {
    return 0;
  }
}

export class File extends Blob {
  readonly name: string;
  readonly lastModified: number;

  constructor(
    parts: Iterable<unknown>,
    name: unknown,
    { lastModified, ...more }: { type?: unknown; endings?: unknown; lastModified?: unknown } = {},
  ) {
    super(parts, more);
    this.name = String(name);
    this.lastModified = lastModified === undefined ? now() : Math.trunc(Number(lastModified)) || 0;
  }

  override get [Symbol.toStringTag](): string {
    return 'File';
  }
}
