/**
 * The few steps that make a file durable, each in one place.
 *
 * What always holds: `placeFile` leaves either the whole file or nothing under the final name, and when it resolves
 * both the bytes and the name are on the disk.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, rename, unlink } from 'node:fs/promises';

const NO_FOLLOW = constants.O_NOFOLLOW ?? 0;

/** Makes the names in a folder durable. Windows cannot do this with folders and journals them by itself. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a new file and makes its bytes durable. A file that could not be finished is removed. */
export async function writeNew(path: string, bytes: Uint8Array, mode: number): Promise<void> {
  const handle: FileHandle = await open(
    path,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | NO_FOLLOW,
    mode,
  );
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } catch (thrown) {
    await unlink(path).catch(() => {}); // the next open removes it then
    throw thrown;
  } finally {
    await handle.close();
  }
}

/** Writes `bytes` under `temporary`, then names it `final`, which must lie in the folder `folder`. */
export async function placeFile(
  folder: string,
  temporary: string,
  final: string,
  bytes: Uint8Array,
  mode: number,
): Promise<void> {
  await writeNew(temporary, bytes, mode);
  try {
    await rename(temporary, final);
  } catch (thrown) {
    await unlink(temporary).catch(() => {});
    throw thrown;
  }
  await syncFolder(folder);
}
