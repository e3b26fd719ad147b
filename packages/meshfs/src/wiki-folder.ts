/**
 * The readable files of the wiki: a projection of the pointer table that people and their tools may read.
 *
 * What always holds: nothing is written, read or removed outside the folder, whoever plants links in it. On Linux each
 * folder is opened from its opened parent without following links, and files are reached through that open folder, so
 * that swapping a folder for a link at any moment gains nothing. Elsewhere each folder is looked at (lstat) and its
 * real path compared just before use. A file changes by one rename of a synced temporary file. A link that stands where
 * a file belongs is replaced, never followed.
 */
import { constants, existsSync } from 'node:fs';
import { lstat, mkdir, open, readdir, realpath, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { storageFailed, syncFolder, writeNew } from '@hauki/backplane';
import { StorageFailed } from '@hauki/protocol';
import { MESHFS_LIMITS } from './limits.ts';

const TEMPORARY = /^\.hauki-[0-9]+-[0-9]+\.tmp$/;
const BY_HANDLE = process.platform === 'linux' && existsSync('/proc/self/fd');
const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants;

interface Folder {
  /** Through this path the folder itself is reached, whatever its name leads to by now. */
  path: string;
  close(): Promise<void>;
}

/** A new version of a file, synced under a temporary name. */
export interface Prepared {
  /** Gives it its name, durably. */
  place(): Promise<void>;
  discard(): Promise<void>;
}

export interface WikiFolder {
  /** Writes the bytes beside `file`. Rejects with `StorageFailed`, leaving nothing. */
  prepare(file: string, bytes: Uint8Array): Promise<Prepared>;
  /** What stands there now; undefined for nothing, or for what is no plain file of a document's size. */
  read(file: string): Promise<Uint8Array | undefined>;
  /** Removes what a crash left half written. */
  sweep(): Promise<void>;
}

let count = 0; // over all folders of this process: temporary names must differ

/** Opens the folder, which is made if need be. A link may lead to the folder itself: that is its owner's choice. */
export async function openWikiFolder(folder: string): Promise<WikiFolder> {
  await mkdir(folder, { recursive: true });
  const root = await realpath(folder);

  async function openFolder(path: string, real: string): Promise<Folder> {
    const not_ours = () =>
      new StorageFailed({ what: `in the wiki folder, ${real} is a link or no folder. Remove it; it is not followed` });
    if (!BY_HANDLE) {
      if (!(await lstat(path)).isDirectory() || (await realpath(path)) !== real) throw not_ours();
      return { path, close: async () => {} };
    }
    try {
      const handle = await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      return { path: `/proc/self/fd/${handle.fd}`, close: () => handle.close() };
    } catch (thrown) {
      throw ['ELOOP', 'ENOTDIR'].includes(codeOf(thrown)) ? not_ours() : thrown;
    }
  }

  /** Walks from the root to the folder of `file`. */
  async function folderOf(file: string, make: boolean): Promise<[Folder, string]> {
    const names = file.split('/');
    const last = names.pop()!;
    let at = await openFolder(root, root);
    let real = root;
    for (const name of names) {
      const parent = at;
      real = join(real, name);
      try {
        if (make) await makeFolder(parent, name);
        at = await openFolder(join(parent.path, name), real);
      } finally {
        await parent.close();
      }
    }
    return [at, last];
  }

  async function sweepFolder(folder: Folder, real: string): Promise<void> {
    for (const entry of await readdir(folder.path, { withFileTypes: true })) {
      if (entry.isFile() && TEMPORARY.test(entry.name)) await unlink(join(folder.path, entry.name));
      if (!entry.isDirectory()) continue;
      const inner = await openFolder(join(folder.path, entry.name), join(real, entry.name));
      await sweepFolder(inner, join(real, entry.name)).finally(() => inner.close());
    }
  }

  return {
    async prepare(file, bytes) {
      const doing = `writing ${file} in the wiki folder`;
      let folder: Folder | undefined;
      try {
        const [found, name] = await folderOf(file, true);
        folder = found;
        const temporary = join(found.path, `.hauki-${process.pid}-${++count}.tmp`);
        await writeNew(temporary, bytes, 0o644);
        return {
          async place() {
            try {
              await rename(temporary, join(found.path, name));
              await syncFolder(found.path);
            } catch (thrown) {
              await unlink(temporary).catch(() => {});
              throw storageFailed(doing, thrown);
            } finally {
              await found.close();
            }
          },
          async discard() {
            await unlink(temporary).catch(() => {}); // the next open removes it then
            await found.close();
          },
        };
      } catch (thrown) {
        await folder?.close();
        throw storageFailed(doing, thrown);
      }
    },

    async read(file) {
      let folder: Folder | undefined;
      try {
        const [found, name] = await folderOf(file, false);
        folder = found;
        // Not blocking: opening a planted pipe would wait for ever.
        const handle = await open(join(found.path, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
        try {
          const { size } = await handle.stat();
          const is_file = (await handle.stat()).isFile();
          return is_file && size <= MESHFS_LIMITS.content_bytes ? await handle.readFile() : undefined;
        } finally {
          await handle.close();
        }
      } catch (thrown) {
        if (['ENOENT', 'ELOOP', 'ENXIO', 'EISDIR'].includes(codeOf(thrown))) return undefined;
        throw storageFailed(`reading ${file} in the wiki folder`, thrown);
      } finally {
        await folder?.close();
      }
    },

    async sweep() {
      const folder = await openFolder(root, root);
      await sweepFolder(folder, root).finally(() => folder.close());
    },
  };
}

async function makeFolder(parent: Folder, name: string): Promise<void> {
  try {
    await mkdir(join(parent.path, name));
    await syncFolder(parent.path);
  } catch (thrown) {
    if (codeOf(thrown) !== 'EEXIST') throw thrown;
  }
}

function codeOf(thrown: unknown): string {
  return (thrown as NodeJS.ErrnoException | undefined)?.code?.toString() ?? '';
}
