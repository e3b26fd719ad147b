/**
 * Contents that come piece by piece: one file for each, hashed while it grows, over restarts too.
 *
 * What always holds: what a part's file holds is the beginning of its content, whatever broke off; the hash in memory
 * is that of the file's bytes, or is made anew by reading them. Temporary files here are removed at opening; parts stay
 * until somebody finishes or discards them.
 */
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { BadInput, Overloaded, TooLarge } from '@hauki/protocol';
import { syncFolder, writeAll } from './durable.ts';
import { storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';
import { turns } from './turns.ts';
import type { Part } from './types.ts';

const ENDING = '.part';

/** Writes a stream to the end of a file and makes it durable. Resolves with the file's size, once it is. */
export async function receive(
  handle: FileHandle,
  hash: Hash,
  from: number,
  source: AsyncIterable<Uint8Array>,
  limit_bytes: number,
  what: string,
): Promise<number> {
  let size = from;
  let synced = from;
  const storing = async (work: Promise<unknown>) => {
    try {
      await work;
    } catch (thrown) {
      throw storageFailed(`writing ${what}`, thrown);
    }
  };
  for await (const chunk of source) {
    if (size + chunk.length > limit_bytes) throw new TooLarge({ what, limit_bytes });
    await storing(writeAll(handle, chunk));
    hash.update(chunk);
    size += chunk.length;
    if (size - synced < BACKPLANE_LIMITS.sync_bytes) continue;
    await storing(handle.datasync());
    synced = size;
  }
  await storing(handle.sync());
  return size;
}

export interface Parts {
  part(id: string): Omit<Part, 'finish'> & { finish(): Promise<{ file: string; digest: string; bytes: number }> };
  list(): Promise<{ id: string; bytes: number; touched_at: number }[]>;
  close(): Promise<void>;
}

/** Opens the folder of parts, which is made if need be. */
export async function openParts(folder: string): Promise<Parts> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  for (const name of await readdir(folder)) if (!name.endsWith(ENDING)) await unlink(join(folder, name));
  const alone = turns();
  /** What each file's bytes hash to, as far as known. */
  const hashes = new Map<string, { hash: Hash; size: number }>();

  const sizeOf = async (file: string) =>
    stat(file).then(
      ({ size }) => size,
      (thrown: NodeJS.ErrnoException) => {
        if (thrown.code === 'ENOENT') return undefined;
        throw storageFailed('looking for a part', thrown);
      },
    );

  /** The hash of what the file holds; from memory, or by reading it. */
  async function hashed(id: string, handle: FileHandle): Promise<{ hash: Hash; size: number }> {
    const { size } = await handle.stat();
    const known = hashes.get(id);
    if (known?.size === size) return known;
    const hash = createHash('sha256');
    for (let at = 0; at < size; ) {
      const chunk = Buffer.allocUnsafe(BACKPLANE_LIMITS.chunk_bytes);
      const { bytesRead } = await handle.read(chunk, 0, Math.min(chunk.length, size - at), at);
      if (bytesRead === 0) throw new Error('a part became shorter');
      hash.update(chunk.subarray(0, bytesRead));
      at += bytesRead;
    }
    return { hash, size };
  }

  async function openPart(file: string): Promise<FileHandle> {
    if ((await sizeOf(file)) === undefined) {
      const limit = BACKPLANE_LIMITS.parts;
      if ((await readdir(folder)).length >= limit) throw new Overloaded({ what: 'parts of objects', limit });
    }
    return open(file, 'a+', 0o600);
  }

  return {
    part(id) {
      if (typeof id !== 'string' || !BACKPLANE_LIMITS.part_id.test(id))
        throw new BadInput({ what: 'upload', why: 'its name is 8 to 64 letters, digits, hyphens and underscores' });
      const file = join(folder, `${id}${ENDING}`);
      const failed = (thrown: unknown) => {
        hashes.delete(id);
        throw storageFailed('writing a part of an object', thrown);
      };
      return {
        size: async () => (await sizeOf(file)) ?? 0,

        append: (content, { limit_bytes = BACKPLANE_LIMITS.stream_bytes } = {}) =>
          alone(id, async () => {
            const handle = await openPart(file).catch(failed);
            try {
              const known = await hashed(id, handle).catch(failed);
              // Only for as long as it is that of the file: what breaks off in the middle is read again.
              hashes.delete(id);
              const size = await receive(handle, known.hash, known.size, content, limit_bytes, 'a part of an object');
              if (known.size === 0) await syncFolder(folder).catch(failed);
              hashes.set(id, { hash: known.hash, size });
              return size;
            } finally {
              await handle.close();
            }
          }),

        finish: () =>
          alone(id, async () => {
            try {
              const handle = await open(file, 'a+', 0o600);
              try {
                const { hash, size } = await hashed(id, handle);
                await handle.sync();
                hashes.delete(id);
                return { file, digest: hash.digest('hex'), bytes: size };
              } finally {
                await handle.close();
              }
            } catch (thrown) {
              return failed(thrown);
            }
          }),

        discard: () =>
          alone(id, async () => {
            hashes.delete(id);
            await unlink(file).catch((thrown: NodeJS.ErrnoException) => {
              if (thrown.code !== 'ENOENT') failed(thrown);
            });
          }),
      };
    },

    async list() {
      const found = [];
      for (const name of await readdir(folder)) {
        if (!name.endsWith(ENDING)) continue;
        const info = await stat(join(folder, name)).catch(() => undefined);
        if (info) found.push({ id: name.slice(0, -ENDING.length), bytes: info.size, touched_at: info.mtimeMs });
      }
      return found;
    },

    async close() {
      await alone.idle();
    },
  };
}
