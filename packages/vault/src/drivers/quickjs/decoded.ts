/** What the platform of a VM has the host do with bytes. */
import type { JSValueHandle } from 'quickjs-wasi';
import { FIND } from './limits.ts';

/** Bytes of the guest's, which keeps within such bounds unless its worker had a hand in it. */
export function taken(handle: JSValueHandle, most: number): Uint8Array {
  if (!handle.isArrayBuffer) throw new TypeError('bytes are an ArrayBuffer');
  const bytes = new Uint8Array(handle.toArrayBuffer());
  if (bytes.length > most) throw new RangeError(`at most ${most} bytes at once`);
  return bytes;
}

/**
 * What every host function is given: plain values and bytes. Of any other object the engine would ask the worker's code for
 * the text or the number, in the middle of the host's own work.
 */
export function checkPlain(args: readonly JSValueHandle[]): void {
  for (const arg of args)
    if (arg.isObject && !arg.isArrayBuffer) throw new TypeError('the host takes plain values and ArrayBuffers');
}

/** Text of bytes, by one of the two encodings that the platform offers. */
export function decoded(bytes: JSValueHandle, encoding: JSValueHandle, fatal: boolean, ignoreBOM: boolean): string {
  const label = encoding.toString() === 'utf-16le' ? 'utf-16le' : 'utf-8';
  return new TextDecoder(label, { fatal, ignoreBOM }).decode(bytes.toArrayBuffer());
}

/** Where `what` stands in bytes, each behind the one before; the first `most` of them, as 32-bit numbers. */
export function found(bytes: JSValueHandle, what: JSValueHandle, most: number): Uint8Array {
  const [where, needle] = [
    Buffer.from(taken(bytes, FIND.bytes).buffer),
    Buffer.from(taken(what, FIND.what_bytes).buffer),
  ];
  if (!(most <= FIND.places)) throw new RangeError(`at most ${FIND.places} places at once`);
  const all: number[] = [];
  // Nothing is everywhere.
  let at = needle.length === 0 ? -1 : where.indexOf(needle);
  for (; at >= 0 && all.length < most; at = where.indexOf(needle, at + needle.length)) all.push(at);
  return new Uint8Array(Uint32Array.from(all).buffer);
}
