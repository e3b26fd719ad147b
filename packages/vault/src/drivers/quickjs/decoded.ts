/** What the platform of a VM has the host decode. */
import type { JSValueHandle } from 'quickjs-wasi';

/** Text of bytes, by one of the two encodings that the platform offers. */
export function decoded(bytes: JSValueHandle, encoding: JSValueHandle, fatal: boolean, ignoreBOM: boolean): string {
  const label = encoding.toString() === 'utf-16le' ? 'utf-16le' : 'utf-8';
  return new TextDecoder(label, { fatal, ignoreBOM }).decode(bytes.toArrayBuffer());
}
