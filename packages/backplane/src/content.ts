/** Small helpers for content on its way: streams joined, digests made and checked, sizes asked for. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { BadInput, DigestMismatch } from '@hauki/protocol';
import { storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';

export async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** What was read ahead, then the rest; who ends early ends the rest too. */
export async function* chained(first: Uint8Array[], rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* first;
    for (;;) {
      const { done, value } = await rest.next();
      if (done) return;
      yield value;
    }
  } finally {
    await rest.return?.();
  }
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The SHA-256 of bytes that come in pieces. Rejects with what their source threw. */
export async function digestOf(content: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of content) hash.update(chunk);
  return hash.digest('hex');
}

/** Whether a file's bytes have the digest. Rejects with what the system threw where it cannot be read. */
export const hasDigest = async (path: string, digest: string): Promise<boolean> =>
  (await digestOf(createReadStream(path, { highWaterMark: BACKPLANE_LIMITS.chunk_bytes }))) === digest;

export function checkWanted(wanted: string | undefined, got: string): void {
  if (wanted !== undefined && wanted !== got) throw new DigestMismatch({ wanted, got });
}

/** A digest becomes a path: nothing but 64 hex digits may. */
export function checkDigest(digest: string): void {
  if (typeof digest !== 'string' || !/^[0-9a-f]{64}$/.test(digest)) {
    throw new BadInput({ what: 'digest', why: 'it is not 64 small hex digits' });
  }
}

export async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw storageFailed('looking for an object', thrown);
  }
}
