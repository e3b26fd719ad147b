/**
 * Effects on the vault's volume, for vaults that have no files themselves, and for whoever likes them better: performed
 * by the host on the mounted folder.
 *
 * What always holds: nothing outside the volume is read, written or named. Each folder on a path is opened from its
 * opened parent without following links, and what a path leads to is opened through that, so that a link that an earlier
 * vault planted, or swaps at this moment, gains nothing: it is refused. Only plain files and folders are touched. What is
 * written stands in the volume's own folder until it is whole, so that whoever mounts the volume finds what a killed agent left.
 */
import { randomInt } from 'node:crypto';
import { constants, type Dirent } from 'node:fs';
import { type FileHandle, mkdir, open, opendir, rename, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { BadInput, GrantMissing, LIMITS, MeshError, TooLarge, VolumeFailed } from '@hauki/protocol';
import type { VolumeEntry } from '@hauki/rpc';
import type { Carried } from '../guest/carried.ts';
import { carried } from './carried.ts';
import type { EffectMaker } from './effect.ts';
import { TEMPORARIES } from './limits.ts';
import { roomInTurn } from './weight.ts';

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
const PATH = { bytes: 1024, segment_bytes: 255, segments: 32 } as const;

/** How files are named while they are written. */
const TEMPORARY = /^\.hauki-[0-9a-f]{12}\.tmp$/;
const temporaryName = (place: number) => `.hauki-${place.toString(16).padStart(12, '0')}.tmp`;

/** Removes what was being written to the volume at `root` when its agent was killed. To be called while nobody has it. */
export async function sweepVolume(root: string): Promise<void> {
  for (let place = 0; place < TEMPORARIES; place++) await unlink(join(root, temporaryName(place))).catch(() => {});
}

/** A new file in the volume's own folder, at a place that is free. */
async function openTemporary(volume: FileHandle): Promise<{ file: FileHandle; path: string }> {
  const first = randomInt(TEMPORARIES);
  for (let i = 1; ; i++) {
    const path = within(volume, temporaryName((first + i) % TEMPORARIES));
    try {
      return { file: await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644), path };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || i === TEMPORARIES) throw error;
    }
  }
}

/** A path as its segments. Throws BadInput for what is no plain relative path. */
export function segmentsOf(given: unknown): string[] {
  // What is no text may be anything of a stranger's: it is not written out.
  if (typeof given !== 'string') throw new BadInput({ what: 'the path', why: 'it is no text' });
  const refuse = (why: string): never => {
    throw new BadInput({ what: `the path ${JSON.stringify(given.slice(0, 200))}`, why });
  };
  if (Buffer.byteLength(given) > PATH.bytes) refuse(`it is longer than ${PATH.bytes} bytes`);
  if (given.includes('\0') || !given.isWellFormed()) refuse('it holds a character that no name has');
  if (given.startsWith('/')) refuse('paths are relative: the volume is where they begin');
  const segments = given === '' ? [] : given.split('/');
  if (segments.length > PATH.segments) refuse(`it has more than ${PATH.segments} parts`);
  for (const segment of segments) {
    if (segment === '' || segment === '.' || segment === '..') refuse('a part of it is empty, . or ..');
    if (Buffer.byteLength(segment) > PATH.segment_bytes) refuse(`a part is longer than ${PATH.segment_bytes} bytes`);
  }
  return segments;
}

const within = (folder: FileHandle, name: string) => join(`/proc/self/fd/${folder.fd}`, name);
const openFolder = (path: string) => open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);

/** Calls `use` with the opened folder that the segments lead to. */
async function inFolder<T>(
  root: string,
  segments: readonly string[],
  make: boolean,
  use: (folder: FileHandle) => Promise<T>,
): Promise<T> {
  let folder = await openFolder(root);
  try {
    for (const segment of segments) {
      const path = within(folder, segment);
      const next = await openFolder(path).catch(async (error: NodeJS.ErrnoException) => {
        if (!make || error.code !== 'ENOENT') throw error;
        await mkdir(path, { mode: 0o755 }).catch((error: NodeJS.ErrnoException) => {
          if (error.code !== 'EEXIST') throw error;
        });
        await folder.sync();
        return openFolder(path);
      });
      await folder.close();
      folder = next;
    }
    return await use(folder);
  } finally {
    await folder.close();
  }
}

async function readFile(folder: FileHandle, name: string, inTurn: ReturnType<typeof roomInTurn>): Promise<Carried> {
  const file = await open(within(folder, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const found = await file.stat();
    if (!found.isFile()) throw Object.assign(new Error('it is no plain file'), { code: 'EISDIR' });
    const limit_bytes = LIMITS.volume_file_bytes;
    // It may be growing: no more is read than what was measured.
    if (found.size > limit_bytes) throw new TooLarge({ what: name, limit_bytes, got_bytes: found.size });
    return await inTurn(found.size, async () => {
      const bytes = Buffer.alloc(found.size);
      const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
      return carried(bytes.subarray(0, bytesRead));
    });
  } finally {
    await file.close();
  }
}

/** Whole or not at all, and on the disk when it resolves. */
async function writeFile(root: string, folder: FileHandle, name: string, bytes: Uint8Array): Promise<void> {
  const volume = await openFolder(root);
  let temporary: Awaited<ReturnType<typeof openTemporary>> | undefined;
  try {
    temporary = await openTemporary(volume);
    const { file, path } = temporary;
    await file.writeFile(bytes);
    await file.sync();
    await rename(path, within(folder, name));
    await folder.sync();
  } catch (error) {
    if (temporary) await unlink(temporary.path).catch(() => {});
    throw error;
  } finally {
    await temporary?.file.close();
    await volume.close();
  }
}

async function listFolder(folder: FileHandle): Promise<VolumeEntry[]> {
  const found: Dirent[] = [];
  // No further: links cost a guest next to nothing, and there may be a million of them.
  for await (const entry of await opendir(within(folder, '.'), { bufferSize: 1_024 }))
    if (found.push(entry) > LIMITS.volume_entries)
      throw Object.assign(new Error('too many entries'), { code: 'EOVERFLOW' });
  const entries: VolumeEntry[] = [];
  for (const entry of found) {
    let bytes = 0;
    if (entry.isFile()) {
      const file = await open(within(folder, entry.name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch(() => undefined);
      bytes = (await file?.stat().finally(() => file.close()))?.size ?? 0;
    }
    entries.push({ name: entry.name, kind: entry.isFile() ? 'file' : entry.isDirectory() ? 'folder' : 'other', bytes });
  }
  return entries;
}

export const volumeEffects: EffectMaker = (vault) => {
  // Whatever is read or written is turned into text and back in the one thread that all vaults of the node share.
  const inTurn = roomInTurn(LIMITS.message_bytes);
  /** What is done at a path, with the system's errors as ours. */
  const at = async <T>(
    given: unknown,
    make: boolean,
    use: (folder: FileHandle, name: string) => Promise<T>,
  ): Promise<T> => {
    const segments = segmentsOf(given);
    const { volume: root, grants } = vault;
    const path = segments.join('/');
    if (root === undefined || grants.volume === null) throw new GrantMissing({ grant: 'volume', wanted: path || '/' });
    try {
      return await inFolder(root, segments.slice(0, -1), make, (folder) => use(folder, segments.at(-1) ?? '.'));
    } catch (error) {
      if (error instanceof MeshError) throw error;
      const { code = '' } = error as NodeJS.ErrnoException;
      const reasons: Record<string, string> = {
        ELOOP: 'a link is not followed',
        EEXIST: `${TEMPORARIES} files named .hauki-….tmp are there or being written, and no more may be`,
        ENOENT: 'there is nothing of that name',
        ENOSPC: 'it is full',
        ENOTDIR: 'a part of the path is no folder, or a link',
        ENOTEMPTY: 'the folder is not empty',
        EISDIR: 'it is no plain file',
        EOVERFLOW: `the folder has more than ${LIMITS.volume_entries} entries, and no more are listed`,
      };
      throw new VolumeFailed({ volume: grants.volume.name, why: `${path}: ${reasons[code] ?? code}`, code });
    }
  };
  const named = (given: unknown): string => {
    if (segmentsOf(given).length === 0) throw new BadInput({ what: 'the path', why: 'it names nothing' });
    return given as string;
  };
  return {
    'volume.read': ([path]) => at(named(path), false, (folder, name) => readFile(folder, name, inTurn)),
    async 'volume.write'([given, content]) {
      const limit_bytes = LIMITS.volume_file_bytes;
      const path = named(given);
      if (TEMPORARY.test(path))
        throw new BadInput({ what: `the path ${path}`, why: 'files of such names are being written, and swept away' });
      const { text, base64 } = (content ?? {}) as { text?: unknown; base64?: unknown };
      if (typeof text !== 'string' && typeof base64 !== 'string')
        throw new BadInput({ what: 'volume.write', why: 'the content must be text or bytes' });
      const bytes = typeof text === 'string' ? Buffer.from(text) : Buffer.from(base64 as string, 'base64');
      if (bytes.length > limit_bytes) throw new TooLarge({ what: path, limit_bytes, got_bytes: bytes.length });
      await at(path, true, (folder, name) => inTurn(bytes.length, () => writeFile(vault.volume!, folder, name, bytes)));
    },
    'volume.list': ([path = '']) =>
      at(path, false, async (folder, name) => {
        if (name === '.') return listFolder(folder);
        const listed = await openFolder(within(folder, name));
        return listFolder(listed).finally(() => listed.close());
      }),
    'volume.delete': ([path]) =>
      at(named(path), false, async (folder, name) => {
        const target = within(folder, name);
        // A link goes itself; what it leads to stays.
        await unlink(target).catch((error: NodeJS.ErrnoException) => {
          if (error.code !== 'EISDIR' && error.code !== 'EPERM') throw error;
          return rmdir(target);
        });
      }),
  };
};
