/** `hauki.volume`: the vault's volume by calls to the host, the same in every kind of vault. */
import { BadInput } from '@hauki/protocol';
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

/** A file's content on its way: text where it is UTF-8. */
export type Carried = { text: string } | { base64: string };

function toBase64(bytes: Uint8Array): string {
  const native = (bytes as { toBase64?(): string }).toBase64;
  if (native) return native.call(bytes);
  let binary = '';
  for (let at = 0; at < bytes.length; at += 4096) binary += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return btoa(binary);
}

const bytesOf = (carried: Carried): Uint8Array => {
  const binary = 'base64' in carried ? atob(carried.base64) : unescape(encodeURIComponent(carried.text));
  return Uint8Array.from(binary, (one) => one.charCodeAt(0));
};

export function createVolume(outside: Outside): GuestVolume {
  const read = (path: string) => outside.effect('volume.read', [path]) as Promise<Carried>;
  return {
    async read(path) {
      const carried = await read(path);
      if ('text' in carried) return carried.text;
      throw new TypeError(`${path} is not text: use readBytes()`);
    },
    readBytes: async (path) => bytesOf(await read(path)),
    async write(path, content) {
      const piece = asPiece(content);
      if (piece === undefined) throw new BadInput({ what: 'volume.write', why: 'the content must be text or bytes' });
      const carried: Carried = typeof piece === 'string' ? { text: piece.toWellFormed() } : { base64: toBase64(piece) };
      await outside.effect('volume.write', [path, carried]);
    },
    list: (path = '') => outside.effect('volume.list', [path]) as Promise<VolumeEntry[]>,
    async delete(path) {
      await outside.effect('volume.delete', [path]);
    },
  };
}
