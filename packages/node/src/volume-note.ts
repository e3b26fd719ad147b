/** What is kept beside a volume's image, apart from what is done with images: read with suspicion, written whole. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { VolumeInfo } from '@hauki/protocol';

export type Note = Omit<VolumeInfo, 'worker'>;

/** How a volume's files are called. */
export const keyOf = (owner: string, name: string): string =>
  createHash('sha256')
    .update(JSON.stringify([owner, name]))
    .digest('hex')
    .slice(0, 24);

/** The note in a file, of the volume with that key; undefined where it is damaged. */
export function readNote(file: string, key: string): Note | undefined {
  try {
    const note = JSON.parse(readFileSync(file, 'utf8')) as Note;
    const numbers = [note.quota_mib, note.used_bytes, note.created_at];
    const whole = numbers.every((value) => typeof value === 'number' && value >= 0);
    return whole && keyOf(note.owner, note.name) === key ? note : undefined;
  } catch {
    return undefined;
  }
}

/** Resolves when the note is on disk; at any time the file has the old one or this one. */
export async function writeNote(file: string, note: Note): Promise<void> {
  const handle = await open(`${file}.making`, 'w', 0o600);
  try {
    await handle.writeFile(JSON.stringify(note));
    await handle.sync();
  } finally {
    await handle.close();
  }
  await place(`${file}.making`, file);
}

/** Gives a file that is on disk its name; resolves when that is on disk too. */
export async function place(made: string, file: string): Promise<void> {
  await rename(made, file);
  const folder = await open(dirname(file), 'r');
  await folder.sync().finally(() => folder.close());
}
