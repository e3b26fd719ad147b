/**
 * Gives a volume's files to the user that a vault's root is on this machine. Only while nobody has the volume: nothing in
 * it changes meanwhile. Links are given away themselves, never what they lead to.
 */
import { lchown, lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';

/** Does nothing where its root says that it was done; bounded by the volume's own number of files. */
export async function ownVolume(root: string, uid: number): Promise<void> {
  if ((await lstat(root)).uid === uid) return;
  await give(root, uid);
  // Last: whoever is killed before this begins anew.
  await lchown(root, uid, uid);
}

async function give(folder: string, uid: number): Promise<void> {
  for await (const entry of await opendir(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await give(path, uid);
    await lchown(path, uid, uid);
  }
}
