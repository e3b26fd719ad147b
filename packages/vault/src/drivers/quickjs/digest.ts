/** What `crypto.subtle` of a VM has the host reckon (`guest/vm-crypto.ts`). */
import { createHmac, hash as hashed, timingSafeEqual } from 'node:crypto';
import type { JSValueHandle } from 'quickjs-wasi';
import { CRYPTO } from '../../guest/platform/limits.ts';
import { taken } from './decoded.ts';

const HASHES = new Map([
  ['SHA-1', 'sha1'],
  ['SHA-256', 'sha256'],
  ['SHA-384', 'sha384'],
  ['SHA-512', 'sha512'],
]);

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
