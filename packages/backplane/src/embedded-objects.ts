/**
 * The embedded object store: one file for each content, `ab/cdef…` by its SHA-256.
 *
 * What always holds: a file under its final name was written whole and synced before it got that name; a put resolves
 * only when bytes and name are durable, also for the second of two who put the same at once; `get` never gives bytes
 * that do not have the digest asked for. A crash leaves nothing but temporary files, which the next open removes.
 * One process alone uses the folder (the lock is in `embedded.ts`), so a counter makes temporary names unique.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { BadInput, StorageFailed, TooLarge } from '@hauki/protocol';
import { placeFile, syncFolder } from './durable.ts';
import { storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';
import type { ObjectStore } from './types.ts';

const TEMPORARY = '.tmp-';

export interface FileObjects extends ObjectStore {
  close(): Promise<void>;
}

/** Opens the folder: makes it and its 256 shelves, and removes what a crash left half written. */
export async function openFileObjects(root: string): Promise<FileObjects> {
  const shelves = Array.from({ length: 256 }, (_, at) => at.toString(16).padStart(2, '0'));
  await mkdir(root, { recursive: true, mode: 0o700 });
  await Promise.all(
    shelves.map(async (shelf) => {
      const folder = join(root, shelf);
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const left = (await readdir(folder)).filter((name) => name.startsWith(TEMPORARY));
      await Promise.all(left.map((name) => unlink(join(folder, name))));
    }),
  );
  await syncFolder(root);

  /** Puts under way, by digest: a second put of the same bytes waits for the first instead of trusting its file. */
  const under_way = new Map<string, Promise<void>>();
  let count = 0;
  let closed = false;

  const shelfOf = (digest: string) => join(root, digest.slice(0, 2));
  const fileOf = (digest: string) => join(shelfOf(digest), digest.slice(2));

  async function keep(digest: string, bytes: Uint8Array): Promise<void> {
    const folder = shelfOf(digest);
    if ((await sizeOf(fileOf(digest))) === bytes.length) {
      // Whoever wrote it may have died between naming it and syncing the name.
      await syncFolder(folder);
      return;
    }
    count += 1;
    await placeFile(folder, join(folder, `${TEMPORARY}${count}`), fileOf(digest), bytes, 0o600);
  }

  function checkOpen(): void {
    if (closed) throw new StorageFailed({ what: 'the object store is closed' });
  }

  return {
    async put(bytes) {
      checkOpen();
      if (!(bytes instanceof Uint8Array)) throw new BadInput({ what: 'object', why: 'it is not bytes' });
      const limit_bytes = BACKPLANE_LIMITS.object_bytes;
      if (bytes.length > limit_bytes) throw new TooLarge({ what: 'object', limit_bytes, got_bytes: bytes.length });
      // A copy, so that a caller who goes on with its buffer cannot change what the digest stands for.
      const mine = Uint8Array.prototype.slice.call(bytes);
      const digest = sha256(mine);
      let work = under_way.get(digest);
      if (work === undefined) {
        work = keep(digest, mine).finally(() => under_way.delete(digest));
        under_way.set(digest, work);
      }
      await work.catch((thrown) => {
        throw storageFailed('writing an object', thrown);
      });
      return digest;
    },

    async get(digest) {
      checkOpen();
      checkDigest(digest);
      await under_way.get(digest)?.catch(() => {});
      const bytes = await readFile(fileOf(digest)).catch((thrown: NodeJS.ErrnoException) => {
        if (thrown.code === 'ENOENT') return undefined;
        throw storageFailed('reading an object', thrown);
      });
      if (bytes === undefined || sha256(bytes) === digest) return bytes;
      // Out of the way, so that the next put of the right bytes writes them again; kept, so that a person can look.
      await rename(fileOf(digest), `${fileOf(digest)}.damaged`).catch(() => {});
      return undefined;
    },

    async has(digest) {
      checkOpen();
      checkDigest(digest);
      await under_way.get(digest)?.catch(() => {});
      return (await sizeOf(fileOf(digest))) !== undefined;
    },

    async close() {
      closed = true;
      await Promise.allSettled(under_way.values());
    },
  };
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A digest becomes a path: nothing but 64 hex digits may. */
function checkDigest(digest: string): void {
  if (typeof digest !== 'string' || !/^[0-9a-f]{64}$/.test(digest)) {
    throw new BadInput({ what: 'digest', why: 'it is not 64 small hex digits' });
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw storageFailed('looking for an object', thrown);
  }
}
