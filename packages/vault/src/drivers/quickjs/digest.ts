/** What `crypto.subtle` of a VM has the host reckon (`guest/vm-crypto.ts`): within the VM's turn, whose time it takes. */
import { createHmac, hash as hashed, timingSafeEqual } from 'node:crypto';
import type { JSValueHandle } from 'quickjs-wasi';
import { CRYPTO } from '../../guest/platform/limits.ts';

const HASHES = new Map([
  ['SHA-1', 'sha1'],
  ['SHA-256', 'sha256'],
  ['SHA-384', 'sha384'],
  ['SHA-512', 'sha512'],
]);

/** The guest keeps within these bounds, unless its worker had a hand in it. */
function taken(handle: JSValueHandle, most: number): Uint8Array {
  if (!handle.isArrayBuffer) throw new TypeError('bytes are an ArrayBuffer');
  const bytes = new Uint8Array(handle.toArrayBuffer());
  if (bytes.length > most) throw new RangeError(`at most ${most} bytes at once`);
  return bytes;
}

/** The hash of bytes; with a key their HMAC. */
export function digested(hash: JSValueHandle, given: JSValueHandle, key?: JSValueHandle): Uint8Array {
  // Of anything else the text would come from the worker's code.
  const name = hash.isString ? HASHES.get(hash.toString()) : undefined;
  if (!name) throw new TypeError('there is no such hash');
  const bytes = taken(given, CRYPTO.bytes);
  if (!key || key.isUndefined) return hashed(name, bytes, 'buffer');
  return createHmac(name, taken(key, CRYPTO.key_bytes)).update(bytes).digest();
}

/** Whether a HMAC is the right one; told in the same time wherever it is wrong. */
export function verified(hash: JSValueHandle, given: JSValueHandle, key: JSValueHandle, mac: JSValueHandle): boolean {
  const [right, told] = [digested(hash, given, key), taken(mac, CRYPTO.bytes)];
  return right.length === told.length && timingSafeEqual(right, told);
}
