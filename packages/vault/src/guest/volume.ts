/** `hauki.volume`: the vault's volume by calls to the host, the same in every kind of vault. */
import { BadInput, isError, LIMITS, TooLarge } from '@hauki/protocol';
import type { GuestVolume, VolumeEntry } from '@hauki/rpc';
import { bytesOf, type Carried, carriedBytes, carriedText, textOf } from './carried.ts';
import type { Outside } from './guest.ts';
import { asPiece } from './pieces.ts';

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
      try {
        await outside.effect('volume.write', [path, carried]);
      } catch (error) {
        // A file that is much too large does not even fit into a message, of which its writer knows nothing.
        if (!isError(error, TooLarge) || error.fields.what === path) throw error;
        throw new TooLarge({ what: path, limit_bytes: LIMITS.volume_file_bytes });
      }
    },
    list: (path = '') => outside.effect('volume.list', [path]) as Promise<VolumeEntry[]>,
    async delete(path) {
      await outside.effect('volume.delete', [path]);
    },
  };
}
