/**
 * The few steps that make a file durable, each in one place.
 *
 * What always holds: `writeNew` leaves the whole file or nothing; after `syncFolder` the names in a folder are on the
 * disk. What the system throws comes out as it is; callers say what they were doing.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';

const { O_WRONLY, O_CREAT, O_EXCL, O_RDONLY, O_NOFOLLOW = 0 } = constants;

/** Makes the names in a folder durable. Windows cannot do this with folders and journals them by itself. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(folder, O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Opens a file for writing that must not be there yet. A link in its place is not followed. */
export function openNew(path: string, mode: number): Promise<FileHandle> {
  return open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
}

/** Writes all of the bytes: the system may take fewer at a time, as on a disk that is nearly full. */
export async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at)).bytesWritten;
}

/** Writes a new file; `sync` makes its bytes durable. A file that could not be finished is removed. */
export async function writeNew(
  path: string,
  content: Uint8Array | AsyncIterable<Uint8Array>,
  { mode, sync }: { mode: number; sync: boolean },
): Promise<void> {
  const handle = await openNew(path, mode);
  try {
    if (content instanceof Uint8Array) await writeAll(handle, content);
    else for await (const chunk of content) await writeAll(handle, chunk);
    if (sync) await handle.sync();
  } catch (thrown) {
    await unlink(path).catch(() => {}); // the next open removes it then
    throw thrown;
  } finally {
    await handle.close();
  }
}
