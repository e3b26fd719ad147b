/** `hauki.volume`: the vault's volume by calls to the host, the same in every kind of vault. */
import { BadInput } from '@hauki/protocol';
import { bytesOf, type Carried, carriedBytes, carriedText, textOf } from './carried.ts';
import type { Outside } from './guest.ts';
import { asPiece } from './pieces.ts';

export interface VolumeEntry {
  name: string;
  kind: 'file' | 'folder' | 'other';
  /** A file's size. */
  bytes: number;
}

/**
 * Paths are relative to the volume, parted by `/`. All reject with GrantMissing, BadInput, TooLarge or VolumeFailed, whose
 * `code` is the system's (ENOENT, ENOSPC, …).
 */
export interface GuestVolume {
  /** A file's text; rejects with a TypeError where it is no UTF-8. */
  read(path: string): Promise<string>;
  readBytes(path: string): Promise<Uint8Array>;
  /** Writes a file whole or not at all, with the folders above it; it is on the disk when this resolves. */
  write(path: string, content: string | ArrayBuffer | ArrayBufferView): Promise<void>;
  list(path?: string): Promise<VolumeEntry[]>;
  /** Deletes a file, or an empty folder. */
  delete(path: string): Promise<void>;
}

export function createVolume(outside: Outside): GuestVolume {
  const read = (path: string) => outside.effect('volume.read', [path]) as Promise<Carried>;
  return {
    async read(path) {
      const text = textOf(await read(path));
      if (text === undefined) throw new TypeError(`${path} is not text: use readBytes()`);
      return text;
    },
    readBytes: async (path) => bytesOf(await read(path)),
    async write(path, content) {
      const piece = asPiece(content);
      if (piece === undefined) throw new BadInput({ what: 'volume.write', why: 'the content must be text or bytes' });
      const carried = typeof piece === 'string' ? carriedText(piece) : carriedBytes(piece);
      await outside.effect('volume.write', [path, carried]);
    },
    list: (path = '') => outside.effect('volume.list', [path]) as Promise<VolumeEntry[]>,
    async delete(path) {
      await outside.effect('volume.delete', [path]);
    },
  };
}
