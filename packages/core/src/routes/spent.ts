/**
 * Keeps the memory of large transfers small.
 *
 * The bytes of a body lie outside of the garbage collector's own heap, so it hurries to take them only when tens of
 * megabytes have gathered. A young collection takes about a millisecond and gives them back; after every few
 * megabytes that passed, we ask for one.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Bytes that may pass, in all transfers together, between two collections. */
const BETWEEN_BYTES = 8 * 1024 * 1024;

let passed = 0;
let collect: ((options: { type: 'minor' }) => void) | undefined;

/** Says that so many bytes have been used and are not needed any more. */
export function spent(bytes: number): void {
  passed += bytes;
  if (passed < BETWEEN_BYTES) return;
  passed = 0;
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as typeof collect;
  }
  collect?.({ type: 'minor' });
}

/** A stream whose chunks are counted when their reader has come back for more. */
export async function* counted(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    yield chunk;
    spent(chunk.length);
  }
}
