/**
 * A node's volumes: private folders with a quota, which outlast their workers. Each is a file system in an image file,
 * kept for its owner by name, and mounted while a worker has it.
 *
 * What always holds: a volume has one living worker at a time (or the versions of one module of a kernel), and the next
 * one only after the last one's vault is gone and the volume unmounted; the quota is what the image's file system has for
 * files, so that nothing that a guest does takes more; what is made is made whole or not at all; what a killed agent left
 * mounted, its reaper unmounts at once, and else the next start, before anything else: a mount point's name ends with its
 * owner's.
 * In a sandbox, where nothing can be mounted, a volume is a plain folder: there the quota is looked at when it is given to
 * a worker, and no more.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync } from 'node:fs';
import { mkdir, rm, rmdir, statfs } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { describe, MeshError, VolumeFailed, type VolumeGrant, type VolumeInfo, VolumeInUse } from '@hauki/protocol';
import { type Offer, ownerLives, ownName, type Reaper, startReaper, sweepVolume, UNMOUNT_ALL } from '@hauki/vault';
import {
  copyImage,
  growImage,
  hasTool,
  makeImage,
  mountImage,
  sweepMounts,
  TOOLS,
  tryMount,
  unmountImage,
} from './mounts.ts';
import { keyOf, type Note, readNote, writeNote } from './volume-note.ts';
import { checkRoom, folderBytes } from './volume-room.ts';

/** A volume while a worker has it. */
export interface HeldVolume {
  /** Where it is mounted. */
  path: string;
  /** Unmounts it; to be called when nothing of the vault is left. Never rejects. */
  release(): Promise<void>;
}

interface Entry {
  note: Note;
  worker?: string | undefined;
  /** Of the one group of workers that may have it together: versions of one module. */
  group?: string | undefined;
  /** How many of the group have it. */
  holders?: number;
  /** Settles when it is mounted, or is not. */
  opening?: Promise<string> | undefined;
  /** Where it is mounted, while it is. */
  path?: string | undefined;
  /** It is being let go of. */
  releasing?: Promise<void> | undefined;
  /** It goes with its worker, and has no note: what is left of it after a crash is nobody's. */
  is_copy?: boolean;
}

const MIB = 1024 * 1024;
/** What a volume may hold that is copied. */
const COPIED_BYTES = 1024 * MIB;

/**
 * Where volumes are mounted. Not below the data folder: a vault's mapped root has to get there, and a data folder may lie
 * in a home that nobody else may enter.
 */
const MOUNTS = '/run/hauki/volumes/mounted';
/** How the mount points of a data folder's volumes begin. */
export const mountsOf = (data_dir: string): string =>
  join(MOUNTS, createHash('sha256').update(resolve(data_dir)).digest('hex').slice(0, 16));

export class Volumes {
  readonly #folder: string;
  /** How its mount points begin. */
  readonly #mounted: string;
  readonly #node: string;
  readonly #plain: boolean;
  readonly #log: (line: string, fields?: object) => void;
  readonly #entries = new Map<string, Entry>();
  /** Volumes whose notes cannot be read: they are kept as they are, and given to nobody. */
  readonly #damaged = new Set<string>();
  /** Whatever makes or deletes images is done in turn: the room that is left is counted once. */
  #turn: Promise<unknown> = Promise.resolve();
  #offer: Offer = { available: false, reason: 'not probed yet' };
  #reaper: Reaper | undefined;
  #probing: Promise<Offer> | undefined;

  /** `plain`: volumes are folders, since whoever keeps them is in a sandbox itself. */
  constructor(options: {
    node: string;
    data_dir: string;
    plain?: boolean;
    log(line: string, fields?: object): void;
  }) {
    this.#node = options.node;
    this.#plain = options.plain ?? false;
    this.#folder = join(options.data_dir, 'volumes');
    this.#mounted = mountsOf(options.data_dir);
    this.#log = options.log;
  }

  /** Whether volumes can be kept here, or why not. */
  get offer(): Offer {
    return this.#offer;
  }

  /** Tries whether images can be mounted here, and says so. */
  probe(): Promise<Offer> {
    this.#probing = this.#probe();
    return this.#probing;
  }

  async #probe(): Promise<Offer> {
    this.#offer = await this.#trial().then(
      () => ({ available: true }),
      (error) => ({ available: false, reason: describe(error) }),
    );
    if (!this.#offer.available) this.#log(`volumes are not offered: ${this.#offer.reason}`);
    return this.#offer;
  }

  async #trial(): Promise<void> {
    if (this.#plain) return void mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    if (process.platform !== 'linux' || process.getuid?.() !== 0) throw new Error('volumes need Linux and root');
    const missing = TOOLS.find((name) => !hasTool(name));
    if (missing !== undefined) throw new Error(`${missing} is not installed`);
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    // A vault's mapped root passes through to what is mounted; a volume itself is its root's alone.
    mkdirSync(MOUNTS, { recursive: true, mode: 0o755 });
    // Before anything is mounted that it would have to unmount.
    this.#reaper ??= startReaper(UNMOUNT_ALL, MOUNTS);
    const at = await this.#mountPoint('trial');
    await tryMount(this.#file('trial', 'img'), at).finally(() => rmdir(at).catch(() => {}));
  }

  /**
   * Unmounts what an earlier run left, and reads what is kept. To be called once, after the drivers have swept their vaults
   * and after `probe`.
   */
  async start(): Promise<void> {
    if (!this.#offer.available) return;
    if (!this.#plain) await this.#sweep();
    const files = readdirSync(this.#folder);
    const keyIn = (file: string) => file.split('.')[0]!;
    for (const key of files.filter((file) => file.endsWith('.json')).map(keyIn)) {
      const note = readNote(this.#file(key, 'json'), key);
      if (note) this.#entries.set(key, { note });
      else this.#damaged.add(key);
    }
    for (const key of this.#damaged)
      this.#log('a volume’s note is damaged, so nobody is given it: write the note again, and start the node again', {
        note: this.#file(key, 'json'),
        says: ['owner', 'name', 'quota_mib', 'used_bytes', 'created_at'],
      });
    // What was being made, or being deleted: without its note it is nobody's.
    const isKept = (file: string) =>
      this.#damaged.has(keyIn(file)) || (this.#entries.has(keyIn(file)) && !file.endsWith('.making'));
    for (const file of files.filter((file) => /^[0-9a-z]+\.(?:img|d|json)(?:\.making)?$/.test(file) && !isKept(file))) {
      this.#log('removing what no note names', { file });
      await rm(join(this.#folder, file), { recursive: true, force: true });
    }
  }

  async #sweep(): Promise<void> {
    // Names of earlier versions tell no owner.
    const isPoint = (path: string) => path.startsWith(`${this.#mounted}-`) && ownerLives(path) !== true;
    const swept = await sweepMounts((path) => isPoint(path) || path.startsWith(`${this.#folder}/`));
    if (swept > 0) this.#log(`unmounted ${swept} volumes of an earlier run`);
    const points = readdirSync(MOUNTS).map((name) => join(MOUNTS, name));
    for (const at of points.filter(isPoint)) await rmdir(at).catch(() => {});
  }

  /**
   * Gives the owner's volume of that name to a worker, made or grown if need be. Rejects with VolumeInUse, VolumeFailed or
   * Overloaded.
   */
  async acquire(owner: string, grant: VolumeGrant, worker: string, group?: string | undefined): Promise<HeldVolume> {
    const { name } = grant;
    if (!this.#offer.available) throw new VolumeFailed({ volume: name, why: this.#offer.reason });
    const key = keyOf(owner, name);
    if (this.#damaged.has(key))
      throw new VolumeFailed({
        volume: name,
        why: 'its note is damaged, as its node’s log tells. It is kept as it is until that is mended, or you delete it',
      });
    const entry: Entry = this.#entries.get(key) ?? {
      note: { owner, name, quota_mib: 0, used_bytes: 0, created_at: Date.now() },
    };
    while (entry.releasing) await entry.releasing;
    if (entry.worker !== undefined) {
      if (group === undefined || entry.group !== group || !entry.opening)
        throw new VolumeInUse({ volume: name, worker: entry.worker });
      entry.holders = (entry.holders ?? 0) + 1;
      return this.#held(key, entry);
    }
    // From the look above to here nothing awaits: the volume is this worker's, or its group's.
    Object.assign(entry, { worker, group, holders: 1 });
    this.#entries.set(key, entry);
    entry.opening = this.#open(key, entry, grant);
    return this.#held(key, entry);
  }

  /** One holder's share. The last that lets go of its own unmounts the volume. */
  async #held(key: string, entry: Entry): Promise<HeldVolume> {
    const path = await entry.opening!;
    let released: Promise<void> | undefined;
    const release = async () => {
      entry.holders = (entry.holders ?? 1) - 1;
      if (entry.holders === 0) await this.#release(key, entry);
    };
    return {
      path,
      release: () => {
        released ??= release();
        return released;
      },
    };
  }

  async #open(key: string, entry: Entry, { name, quota_mib }: VolumeGrant): Promise<string> {
    try {
      const image = this.#file(key, 'img');
      const { quota_mib: has_mib, used_bytes } = entry.note;
      // With the quota that it had it is given as it is, however full; only a folder has nothing else that holds it.
      if ((this.#plain || quota_mib < has_mib) && used_bytes > quota_mib * MIB)
        throw new VolumeFailed({
          volume: name,
          why: `it holds ${Math.ceil(used_bytes / MIB)} MiB, more than ${quota_mib}`,
        });
      const grows = quota_mib > has_mib;
      const path = await this.#inTurn(async () => {
        if (grows) await this.#checkRoom(entry.note.owner, quota_mib - has_mib, has_mib === 0);
        if (this.#plain) {
          const folder = this.#file(key, 'd');
          await mkdir(folder, { recursive: true, mode: 0o700 });
          if (grows) await this.#note(key, entry, { quota_mib });
          await sweepVolume(folder);
          return folder;
        }
        if (has_mib === 0) {
          await makeImage(image, quota_mib);
          await this.#note(key, entry, { quota_mib });
        }
        if (grows && has_mib > 0) {
          await growImage(image, quota_mib);
          await this.#note(key, entry, { quota_mib });
        }
        const at = await this.#mountPoint(key);
        await mountImage(image, at).catch(async (error) => {
          await rmdir(at);
          throw error;
        });
        // The checker's own; it makes it again where it is gone.
        await rmdir(join(at, 'lost+found')).catch(() => {});
        await sweepVolume(at);
        return at;
      });
      entry.path = path;
      return path;
    } catch (error) {
      Object.assign(entry, { worker: undefined, group: undefined, holders: 0, opening: undefined });
      if (entry.note.quota_mib === 0) this.#entries.delete(key);
      throw error instanceof MeshError ? error : new VolumeFailed({ volume: name, why: describe(error) });
    }
  }

  /**
   * Gives another owner a volume that holds what this one holds now, or nothing where there is none, until its worker lets
   * go of it, or `remove`. What is written meanwhile may be torn in it, as by a power cut. False where it is not copied: it
   * is a plain folder, or holds more than 1 GiB. Rejects with VolumeFailed or Overloaded.
   */
  async copy(owner: string, name: string, to: string): Promise<boolean> {
    const [from, key] = [keyOf(owner, name), keyOf(to, name)];
    const { note, path } = this.#entries.get(from) ?? {};
    if (this.#plain || !this.#offer.available || this.#damaged.has(from)) return false;
    const used_bytes = path === undefined ? (note?.used_bytes ?? 0) : await this.#usedBytes(path);
    if (used_bytes > COPIED_BYTES) return false;
    const quota_mib = note?.quota_mib ?? 0;
    const made = { owner: to, name, used_bytes, created_at: Date.now() };
    try {
      await this.#inTurn(async () => {
        if (quota_mib > 0) await this.#checkRoom(to, quota_mib, true);
        this.#entries.set(key, { note: { ...made, quota_mib }, is_copy: true });
      });
      if (quota_mib > 0) await copyImage(this.#file(from, 'img'), this.#file(key, 'img'), path);
      return true;
    } catch (error) {
      await this.remove(to, name);
      throw error instanceof MeshError ? error : new VolumeFailed({ volume: name, why: describe(error) });
    }
  }

  /** Whether the owner has a volume of that name. */
  has(owner: string, name: string): boolean {
    return this.#entries.has(keyOf(owner, name));
  }

  async list(): Promise<VolumeInfo[]> {
    const entries = [...this.#entries.values()].filter(({ note }) => note.quota_mib > 0);
    return Promise.all(
      entries.map(async ({ note, worker = null, path }) => {
        const used_bytes =
          path === undefined ? note.used_bytes : await this.#usedBytes(path).catch(() => note.used_bytes);
        return { ...note, used_bytes, worker };
      }),
    );
  }

  /** Deletes a volume with all that is in it. False where there is none; rejects with VolumeInUse. */
  async remove(owner: string, name: string): Promise<boolean> {
    const key = keyOf(owner, name);
    const entry = this.#entries.get(key);
    if (this.#damaged.has(key)) return this.#removeFiles(key);
    if (!entry) return false;
    while (entry.releasing) await entry.releasing;
    if (entry.worker !== undefined) throw new VolumeInUse({ volume: name, worker: entry.worker });
    entry.worker = 'nobody: it is being deleted';
    try {
      return await this.#removeFiles(key);
    } finally {
      entry.worker = undefined;
    }
  }

  async #removeFiles(key: string): Promise<true> {
    // The note first: an image without one is nobody's, and is made anew.
    await this.#inTurn(async () => {
      await rm(this.#file(key, 'json'), { force: true });
      await rm(this.#file(key, this.#plain ? 'd' : 'img'), { recursive: true, force: true });
    });
    this.#entries.delete(key);
    this.#damaged.delete(key);
    return true;
  }

  #release(key: string, entry: Entry): Promise<void> {
    entry.releasing ??= (async () => {
      const path = entry.path!;
      try {
        const used_bytes = await this.#usedBytes(path);
        if (!this.#plain) {
          await unmountImage(path);
          await rmdir(path).catch(() => {});
        }
        await (entry.is_copy ? this.#removeFiles(key) : this.#note(key, entry, { used_bytes }));
      } catch (error) {
        this.#log(`the volume ${entry.note.name} could not be let go of: ${describe(error)}`, {
          owner: entry.note.owner,
        });
      }
      const none = { path: undefined, worker: undefined, group: undefined, opening: undefined };
      Object.assign(entry, { ...none, releasing: undefined });
    })();
    return entry.releasing;
  }

  #checkRoom(owner: string, more_mib: number, is_new: boolean): Promise<void> {
    const notes = [...this.#entries].map(([key, { note }]) => ({ ...note, image: this.#file(key, 'img') }));
    return checkRoom(this.#folder, notes, { owner, more_mib, is_new });
  }

  async #note(key: string, entry: Entry, change: Partial<Note>): Promise<void> {
    entry.note = { ...entry.note, ...change };
    if (!entry.is_copy) await writeNote(this.#file(key, 'json'), entry.note);
  }

  async #mountPoint(key: string): Promise<string> {
    const at = `${this.#mounted}-${this.#node}.${key}.${ownName()}`;
    await mkdir(at, { mode: 0o700 });
    return at;
  }

  /** To be called when nothing is held any more; if something is after all, it is left to the reaper. */
  async close(): Promise<void> {
    await this.#probing;
    const held = [...this.#entries.values()].some(({ worker, releasing }) => worker !== undefined || releasing);
    if (!held) await this.#reaper?.dismiss();
  }

  async #usedBytes(path: string): Promise<number> {
    if (this.#plain) return folderBytes(path);
    const { blocks, bfree, bsize } = await statfs(path);
    return (blocks - bfree) * bsize;
  }

  #file(key: string, ending: string): string {
    return join(this.#folder, `${key}.${ending}`);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work);
    this.#turn = mine.catch(() => {});
    return mine;
  }
}
