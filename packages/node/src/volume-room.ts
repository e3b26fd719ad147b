/** What volumes take, and whether the disk has room for more beside all that was promised to others. */
import { lstat, opendir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { LIMITS, Overloaded } from '@hauki/protocol';
import type { Note } from './volume-note.ts';

const MIB = 1024 * 1024;
/** Files of a plain folder that are counted, one after the other. */
const PLAIN_FILES = 100_000;
/** What volumes leave of the disk to others. */
const DISK_SHARE = 0.9;
/** The owner of what is made with the token of the core's own. */
const ADMIN = 'admin';
/** A token and all below it are one owner here. */
const topOf = (owner: string) => owner.split('/')[0]!;

/** `kept`: the volumes that there are, in `folder`. Rejects with Overloaded. */
export async function checkRoom(
  folder: string,
  kept: readonly (Note & { image: string })[],
  { owner, more_mib, is_new }: { owner: string; more_mib: number; is_new: boolean },
): Promise<void> {
  if (is_new && kept.length > LIMITS.volumes_per_node)
    throw new Overloaded({ what: 'volumes of this node', limit: LIMITS.volumes_per_node });
  // Images take room as they fill: what was promised and is not taken yet must still be there.
  let owed_bytes = more_mib * MIB;
  let own_mib = more_mib;
  for (const { owner: other, quota_mib, image } of kept) {
    if (topOf(other) === topOf(owner)) own_mib += quota_mib;
    const taken = await stat(image).catch(() => undefined);
    owed_bytes += Math.max(0, quota_mib * MIB - (taken?.blocks ?? 0) * 512);
  }
  const { bavail, bsize } = await statfs(folder);
  const free_mib = Math.floor((bavail * bsize * DISK_SHARE) / MIB);
  if (owed_bytes > free_mib * MIB)
    throw new Overloaded({ what: 'MiB on disk for this node’s volumes', limit: free_mib });
  // An empty one costs its owner nothing. What the admin's own take is the admin's to say.
  const left_mib = Math.floor(free_mib - owed_bytes / MIB);
  if (topOf(owner) !== ADMIN && own_mib > left_mib) {
    const limit = own_mib - Math.ceil((own_mib - left_mib) / 2);
    throw new Overloaded({ what: 'MiB for one owner’s volumes, who leaves as much to others', limit });
  }
}

/** What the files below a folder take; a folder with too many counts as full. */
export async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  let files = 0;
  for await (const entry of await opendir(folder, { recursive: true })) {
    if (++files > PLAIN_FILES) return Number.MAX_SAFE_INTEGER;
    const { blocks } = await lstat(join(entry.parentPath, entry.name)).catch(() => ({ blocks: 0 }));
    bytes += entry.isDirectory() ? 0 : blocks * 512;
  }
  return bytes;
}
