/** What the platform of a VM has the host do with bytes. */
import type { JSValueHandle } from 'quickjs-wasi';

/** Bytes of the guest's, which keeps within such bounds unless its worker had a hand in it. */
export function taken(handle: JSValueHandle, most: number): Uint8Array {
  if (!handle.isArrayBuffer) throw new TypeError('bytes are an ArrayBuffer');
  const bytes = new Uint8Array(handle.toArrayBuffer());
  if (bytes.length > most) throw new RangeError(`at most ${most} bytes at once`);
  return bytes;
}

/** Text of bytes, by one of the two encodings that the platform offers. */
export function decoded(bytes: JSValueHandle, encoding: JSValueHandle, fatal: boolean, ignoreBOM: boolean): string {
  const label = encoding.toString() === 'utf-16le' ? 'utf-16le' : 'utf-8';
  return new TextDecoder(label, { fatal, ignoreBOM }).decode(bytes.toArrayBuffer());
}

/** Where `what` stands in bytes, each behind the one before; the first `most` of them, as 32-bit numbers. */
export function found(bytes: JSValueHandle, what: JSValueHandle, most: number): Uint8Array {
  const [where, needle] = [Buffer.from(bytes.toArrayBuffer()), Buffer.from(what.toArrayBuffer())];
  const all: number[] = [];
  // Nothing is everywhere.
  let at = needle.length === 0 ? -1 : where.indexOf(needle);
  for (; at >= 0 && all.length < most; at = where.indexOf(needle, at + needle.length)) all.push(at);
  return new Uint8Array(Uint32Array.from(all).buffer);
}
