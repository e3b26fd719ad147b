/**
 * The readable files of the wiki: a projection of the pointer table that people and their tools may read.
 *
 * What always holds: nothing is written, read or removed outside the folder, whoever plants links in it. On Linux each
 * folder is opened from its opened parent without following links, and files are reached through that open folder, so
 * that swapping a folder for a link at any moment gains nothing. Elsewhere each folder is looked at (lstat) and its
 * real path compared just before use. A file changes by one rename of a complete temporary file. A link that stands
 * where a file belongs is replaced, never followed. Nothing is synced here: the table is the truth, and a file that a
 * power cut took or spoiled is written again at the next opening.
 */
import { constants, existsSync } from 'node:fs';
import { lstat, mkdir, open, readdir, realpath, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type Content, digestOf, storageFailed, writeNew } from '@hauki/backplane';
import { StorageFailed } from '@hauki/protocol';

const TEMPORARY = /^\.hauki-[0-9]+-[0-9]+\.tmp$/;
/** What says that no plain file stands there. */
const NOTHING = ['ENOENT', 'ELOOP', 'ENXIO', 'EISDIR'];
const BY_HANDLE = process.platform === 'linux' && existsSync('/proc/self/fd');
const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants;

interface Folder {
  /** Through this path the folder itself is reached, whatever its name leads to by now. */
  path: string;
  close(): Promise<void>;
}

/** A new version of a file, complete under a temporary name. */
export interface NewFile {
  /** Gives it its name. */
  place(): Promise<void>;
  discard(): Promise<void>;
}

export interface WikiFolder {
  /** Writes the content beside `file`. Rejects with `StorageFailed`, leaving nothing. */
  prepare(file: string, content: Content): Promise<NewFile>;
  /** Whether a plain file stands there with exactly this content. */
  holds(file: string, content: { digest: string; bytes: number }): Promise<boolean>;
  /** Removes what stands there, where it is a file or a link. */
  remove(file: string): Promise<void>;
  /** Removes what a crash left half written. */
  sweep(): Promise<void>;
}

let count = 0; // over all folders of this process: temporary names must differ

/**
 * Opens the folder, which is made, for its owner alone, if need be. A link may lead to the folder itself: that is its
 * owner's choice.
 */
export async function openWikiFolder(folder: string): Promise<WikiFolder> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
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
        at = await openFolder(join(parent.path, name), real).catch(async (thrown) => {
          if (!make || codeOf(thrown) !== 'ENOENT') throw thrown;
          await makeFolder(parent, name);
          return openFolder(join(parent.path, name), real);
        });
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
    async prepare(file, content) {
      const doing = `writing ${file} in the wiki folder`;
      let folder: Folder | undefined;
      try {
        const [found, name] = await folderOf(file, true);
        folder = found;
        const temporary = join(found.path, `.hauki-${process.pid}-${++count}.tmp`);
        await writeNew(temporary, content, { mode: 0o644, sync: false });
        return {
          async place() {
            try {
              await rename(temporary, join(found.path, name));
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

    async holds(file, { digest, bytes }) {
      let folder: Folder | undefined;
      try {
        const [found, name] = await folderOf(file, false);
        folder = found;
        // Not blocking: opening a planted pipe would wait for ever.
        const handle = await open(join(found.path, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
        const info = await handle.stat();
        if (!info.isFile() || info.size !== bytes) {
          await handle.close();
          return false;
        }
        return (await digestOf(handle.createReadStream())) === digest; // closes the handle
      } catch (thrown) {
        if (NOTHING.includes(codeOf(thrown))) return false;
        throw storageFailed(`reading ${file} in the wiki folder`, thrown);
      } finally {
        await folder?.close();
      }
    },

    async remove(file) {
      let folder: Folder | undefined;
      try {
        const [found, name] = await folderOf(file, false);
        folder = found;
        await unlink(join(found.path, name));
      } catch (thrown) {
        if (codeOf(thrown) !== 'ENOENT') throw storageFailed(`removing ${file} from the wiki folder`, thrown);
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
  } catch (thrown) {
    if (codeOf(thrown) !== 'EEXIST') throw thrown;
  }
}

function codeOf(thrown: unknown): string {
  return (thrown as NodeJS.ErrnoException | undefined)?.code?.toString() ?? '';
}
