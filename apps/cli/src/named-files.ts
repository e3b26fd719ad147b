/** Files and folders that somebody named: what is wrong with them is said of the name, and can be mended by another. */
import { chmodSync, existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { BadInput } from '@hauki/protocol';

/** What whoever named a file can mend, by the code of the error. */
const MENDABLE: Record<string, string> = {
  ENOENT: 'there is no such file or folder',
  ENOTDIR: 'one of its folders is a file',
  EISDIR: 'it is a folder',
  EACCES: 'this user may not',
  EPERM: 'this user may not',
  EROFS: 'its file system is read-only',
};

/** An error of the system over a file that was named: BadInput that names it, where that can be mended; else as it is. */
export function asInput(file: string, error: unknown): unknown {
  const { code = '' } = error as NodeJS.ErrnoException;
  return MENDABLE[code] === undefined ? error : new BadInput({ what: file, why: `${MENDABLE[code]} (${code})` });
}

/** Makes a folder, with those above it. Throws as the system does. */
function makeWay(folder: string, mode?: number): void {
  let first = resolve(folder);
  while (!existsSync(dirname(first))) first = dirname(first);
  // Node's way of making several goes round for ever where a folder that is there takes none, as /proc does.
  if (!existsSync(first)) mkdirSync(first, { mode });
  mkdirSync(folder, { recursive: true, mode });
}

/** Makes a folder that somebody named, with those above it. Throws BadInput where it cannot be there. */
export function makeFoldersTo(folder: string): void {
  try {
    makeWay(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code === 'EEXIST' ? new BadInput({ what: folder, why: 'it is no folder' }) : asInput(folder, error);
  }
}

/** Of a folder in which everybody may make files, and nobody remove others' ("sticky"). */
const EVERYBODYS = 0o1000;

/**
 * Makes the folder that data goes to, with those above it, which nobody else may change. Throws BadInput where it cannot be
 * there.
 */
export function makeFolder(folder: string): void {
  try {
    makeWay(folder, 0o755);
    if (statSync(folder).mode & EVERYBODYS)
      throw new BadInput({ what: folder, why: 'it is everybody’s, as /tmp is; name a folder in it with --data' });
    // Vaults' mapped users pass through it to what is theirs; what is secret in it has modes of its own.
    chmodSync(folder, 0o711);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return;
    if (code !== 'EEXIST' && MENDABLE[code] === undefined) throw error;
    throw new BadInput({
      what: folder,
      why: `no data folder of this user can be there (${code}); name another with --data`,
    });
  }
}
