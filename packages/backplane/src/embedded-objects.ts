/**
 * The embedded object store: small contents are rows of the database, larger ones files, `ab/cdef…` by their SHA-256.
 *
 * What always holds: a file under its final name was written whole and synced before it got that name; a small object
 * is committed together with the entries that name it; a put resolves only when bytes and name are durable, also for
 * the second of two who put the same at once; `get` never gives bytes that do not have the digest asked for. A crash
 * leaves nothing but temporary files, which the next open removes. One process alone uses the folder (the lock is in
 * `embedded.ts`), so a counter makes temporary names unique.
 */
import { createHash } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { BadInput, Overloaded, StorageFailed, TooLarge } from '@hauki/protocol';
import type { CommitQueue } from './commit-queue.ts';
import { chained, checkDigest, checkWanted, hasDigest, once, sha256, sizeOf } from './content.ts';
import { openNew, syncFolder, writeNew } from './durable.ts';
import { storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';
import { openParts, receive } from './parts.ts';
import { Guard } from './sweep.ts';
import { turns } from './turns.ts';
import type { Content, ContentOptions, ObjectStore, Prepared } from './types.ts';

const SCHEMA = 'CREATE TABLE IF NOT EXISTS object (digest BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT;';
const TEMPORARY = '.tmp-';
const SHELVES = Array.from({ length: 256 }, (_, at) => at.toString(16).padStart(2, '0'));

export interface EmbeddedObjects extends ObjectStore {
  /** Within a commit: keeps what is not on the disk yet. */
  keep(prepared: readonly Prepared[]): void;
  close(): Promise<void>;
}

/** Opens the folder: makes it and its 256 shelves, and removes what a crash left half written. */
export async function openObjects(root: string, db: DatabaseSync, queue: CommitQueue): Promise<EmbeddedObjects> {
  db.exec(SCHEMA);
  // What is there may be damaged; where it is the same, nothing is written.
  const insert = db.prepare(
    `INSERT INTO object (digest, bytes) VALUES (?, ?)
     ON CONFLICT (digest) DO UPDATE SET bytes = excluded.bytes WHERE bytes <> excluded.bytes`,
  );
  const select = db.prepare('SELECT bytes FROM object WHERE digest = ?');
  const measure = db.prepare('SELECT length(bytes) AS bytes FROM object WHERE digest = ?');
  const shelve = db.prepare('SELECT digest FROM object WHERE digest >= ? AND digest < ?');
  const shelve_last = db.prepare('SELECT digest FROM object WHERE digest >= ?');
  const remove = db.prepare('DELETE FROM object WHERE digest = ? RETURNING length(bytes) AS bytes');

  await mkdir(root, { recursive: true, mode: 0o700 });
  await Promise.all(
    SHELVES.map(async (shelf) => {
      const folder = join(root, shelf);
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const left = (await readdir(folder)).filter((name) => name.startsWith(TEMPORARY));
      await Promise.all(left.map((name) => unlink(join(folder, name))));
    }),
  );
  const parts = await openParts(join(root, 'parts'));
  await syncFolder(root);

  const guard = new Guard();
  const alone = turns();
  /** The bytes of prepared small objects. */
  const small = new WeakMap<Prepared, Uint8Array>();
  let count = 0;

  const shelfOf = (digest: string) => join(root, digest.slice(0, 2));
  const fileOf = (digest: string) => join(shelfOf(digest), digest.slice(2));
  const rowOf = (digest: string) => Buffer.from(digest, 'hex');

  /** Those whose file was not there before. */
  const brought = new WeakSet<Prepared>();

  /** The object as somebody who just brought it holds it. */
  function held(digest: string, bytes: number, in_memory?: Uint8Array): Prepared {
    const release = guard.hold(digest);
    const prepared: Prepared = {
      digest,
      bytes,
      read: () => (in_memory ? once(in_memory) : read(digest)),
      async discard() {
        if (!brought.delete(prepared)) return true;
        // Whoever brings the same from now on waits for this turn, and finds no file.
        const unlinked = await alone(digest, async () => {
          if (!guard.isSole(digest)) return false;
          return unlink(fileOf(digest)).then(
            () => true,
            () => false,
          );
        });
        release();
        return unlinked;
      },
      [Symbol.dispose]() {
        brought.delete(prepared);
        release();
      },
    };
    if (in_memory) small.set(prepared, in_memory);
    return prepared;
  }

  /** Names a synced file by its digest. It replaces what may stand there, which could be damaged. */
  async function place(file: string, prepared: Prepared): Promise<void> {
    const { digest } = prepared;
    try {
      await alone(digest, async () => {
        const is_new = (await fileSize(digest)) === undefined;
        await rename(file, fileOf(digest));
        if (is_new) brought.add(prepared);
        await syncFolder(shelfOf(digest));
      });
    } catch (thrown) {
      await unlink(file).catch(() => {});
      throw storageFailed('writing an object', thrown);
    }
  }

  const temporary = () => join(root, 'parts', `${TEMPORARY}${++count}`);

  async function prepareBytes(given: Uint8Array, wanted: string | undefined): Promise<Prepared> {
    // A copy, so that a caller who goes on with its buffer cannot change what the digest stands for.
    const bytes = Uint8Array.prototype.slice.call(given);
    const digest = sha256(bytes);
    checkWanted(wanted, digest);
    if (bytes.length <= BACKPLANE_LIMITS.small_object_bytes) return held(digest, bytes.length, bytes);
    const prepared = held(digest, bytes.length);
    try {
      const there = await alone(digest, async () => {
        if ((await fileSize(digest)) !== bytes.length) return false;
        if (!(await hasDigest(fileOf(digest), digest).catch(() => false))) return false; // it may be damaged
        await syncFolder(shelfOf(digest)); // whoever wrote it may have died between naming it and syncing the name
        return true;
      });
      if (there) return prepared;
      const file = temporary();
      await writeNew(file, bytes, { mode: 0o600, sync: true });
      await place(file, prepared);
      return prepared;
    } catch (thrown) {
      prepared[Symbol.dispose]();
      throw storageFailed('writing an object', thrown);
    }
  }

  /** A finished file as a prepared object; from before it has its name on, no sweep takes it. */
  async function placed(file: string, digest: string, bytes: number): Promise<Prepared> {
    const prepared = held(digest, bytes);
    try {
      await place(file, prepared);
    } catch (thrown) {
      prepared[Symbol.dispose]();
      throw thrown;
    }
    return prepared;
  }

  async function prepareStream(source: AsyncIterable<Uint8Array>, options: ContentOptions): Promise<Prepared> {
    const { limit_bytes = BACKPLANE_LIMITS.stream_bytes, digest: wanted } = options;
    const chunks = source[Symbol.asyncIterator]();
    const first: Uint8Array[] = [];
    let length = 0;
    let over = false;
    while (!over && length <= BACKPLANE_LIMITS.small_object_bytes) {
      const { done, value } = await chunks.next();
      if (done) over = true;
      else {
        first.push(value);
        length += value.length;
        if (length > limit_bytes) {
          await chunks.return?.();
          throw new TooLarge({ what: 'object', limit_bytes });
        }
      }
    }
    if (over) return prepareBytes(Buffer.concat(first), wanted);
    const file = temporary();
    const hash = createHash('sha256');
    let bytes: number;
    try {
      const handle = await openNew(file, 0o600).catch((thrown) => {
        throw storageFailed('writing an object', thrown);
      });
      try {
        const all = { [Symbol.asyncIterator]: () => chained(first, chunks) };
        bytes = await receive(handle, hash, 0, all, limit_bytes, 'object');
      } finally {
        await handle.close();
      }
      const digest = hash.digest('hex');
      checkWanted(wanted, digest);
      return await placed(file, digest, bytes);
    } catch (thrown) {
      await unlink(file).catch(() => {});
      throw thrown;
    }
  }

  async function prepare(content: Content, options: ContentOptions = {}): Promise<Prepared> {
    queue.checkOpen();
    if (!(content instanceof Uint8Array)) {
      if (typeof content?.[Symbol.asyncIterator] === 'function') return prepareStream(content, options);
      throw new BadInput({ what: 'object', why: 'it is neither bytes nor a stream of them' });
    }
    const { limit_bytes = BACKPLANE_LIMITS.object_bytes } = options;
    if (content.length > limit_bytes) throw new TooLarge({ what: 'object', limit_bytes, got_bytes: content.length });
    return prepareBytes(content, options.digest);
  }

  function keep(prepared: readonly Prepared[]): void {
    for (const one of prepared) {
      const bytes = small.get(one);
      if (bytes) insert.run(rowOf(one.digest), bytes);
    }
  }

  const fileSize = (digest: string) => sizeOf(fileOf(digest));
  const rowSize = (digest: string) => measure.get(rowOf(digest))?.bytes as number | undefined;

  const rowBytes = (digest: string) => select.get(rowOf(digest))?.bytes as Uint8Array | undefined;

  async function size(digest: string): Promise<number | undefined> {
    checkDigest(digest);
    return (await queue.read(() => rowSize(digest))) ?? (await fileSize(digest));
  }

  async function get(digest: string): Promise<Uint8Array | undefined> {
    checkDigest(digest);
    const row = await queue.read(() => rowBytes(digest));
    if (row) {
      if (sha256(row) === digest) return row;
      // Kept among the files, so that a person can look; it stays a row where the disk is full.
      const aside = writeFile(`${fileOf(digest)}.damaged`, row, { mode: 0o600 });
      if (!(await aside.then(() => true).catch(() => false))) return undefined;
      // Unless the right bytes have been put meanwhile.
      await queue.run(() => sha256(rowBytes(digest) ?? row) !== digest && remove.run(rowOf(digest)));
      return undefined;
    }
    const bytes = await fileSize(digest);
    const limit_bytes = BACKPLANE_LIMITS.object_bytes;
    if (bytes !== undefined && bytes > limit_bytes)
      throw new TooLarge({ what: 'object', limit_bytes, got_bytes: bytes });
    const found = await readFile(fileOf(digest)).catch((thrown: NodeJS.ErrnoException) => {
      if (thrown.code === 'ENOENT') return undefined;
      throw storageFailed('reading an object', thrown);
    });
    if (found === undefined || sha256(found) === digest) return found;
    await putAside(digest);
    return undefined;
  }

  /** Out of the way, and kept so that a person can look; unless the right bytes have been put meanwhile. */
  const putAside = (digest: string) =>
    alone(digest, async () => {
      const file = fileOf(digest);
      if (!(await hasDigest(file, digest))) await rename(file, `${file}.damaged`);
    }).catch(() => {});

  async function* read(digest: string, { start = 0, end = Infinity } = {}): AsyncGenerator<Uint8Array> {
    checkDigest(digest);
    const row = await queue.read(() => rowBytes(digest));
    if (row) {
      if (sha256(row) !== digest) throw new StorageFailed({ what: `the object ${digest} is damaged` });
      yield row.subarray(start, Math.min(end, row.length));
      return;
    }
    const handle = await open(fileOf(digest)).catch((thrown) => {
      throw storageFailed('reading an object', thrown);
    });
    try {
      const { size } = await handle.stat();
      const stop = Math.min(end, size);
      const hash = start === 0 && stop === size ? createHash('sha256') : undefined;
      // One buffer for all: new ones would gather outside of the heap faster than they are collected.
      const chunk = Buffer.allocUnsafeSlow(Math.max(0, Math.min(BACKPLANE_LIMITS.chunk_bytes, stop - start)));
      for (let at = start; at < stop; ) {
        const { bytesRead } = await handle.read(chunk, 0, Math.min(chunk.length, stop - at), at);
        if (bytesRead === 0) throw new StorageFailed({ what: `the object ${digest} became shorter` });
        at += bytesRead;
        const got = chunk.subarray(0, bytesRead);
        hash?.update(got);
        yield got;
      }
      if (hash && hash.digest('hex') !== digest) {
        await putAside(digest);
        throw new StorageFailed({ what: `the object ${digest} is damaged` });
      }
    } finally {
      await handle.close();
    }
  }

  async function put(content: Content, options?: ContentOptions): Promise<string> {
    using prepared = await prepare(content, options);
    await queue.run(() => keep([prepared]));
    return prepared.digest;
  }

  async function* shelves(): AsyncGenerator<string[]> {
    for (const [at, shelf] of SHELVES.entries()) {
      const names = (await readdir(join(root, shelf))).filter((name) => /^[0-9a-f]{62}$/.test(name));
      const next = SHELVES[at + 1];
      const rows = next ? shelve.all(rowOf(shelf), rowOf(next)) : shelve_last.all(rowOf(shelf));
      yield [
        ...names.map((name) => shelf + name),
        ...rows.map((row) => Buffer.from(row.digest as Uint8Array).toString('hex')),
      ];
    }
  }

  /** Removes the rows of a batch in one commit, each unless it is no candidate any more. */
  const removeRows = (digests: string[]) =>
    queue.run(() => {
      let [removed, bytes] = [0, 0];
      for (const digest of digests) {
        if (!guard.take(digest)) continue;
        removed += 1;
        bytes += remove.get(rowOf(digest))!.bytes as number;
      }
      return [removed, bytes] as const;
    });

  const removeFile = (digest: string) =>
    alone(digest, async () => {
      const bytes = await fileSize(digest);
      if (bytes === undefined || !guard.take(digest)) return undefined;
      await unlink(fileOf(digest));
      return bytes;
    });

  async function sweep(strike: (candidates: Set<string>) => Promise<void>) {
    queue.checkOpen();
    if (guard.sweeping) throw new Overloaded({ what: 'sweeps', limit: 1 });
    const swept = { kept: 0, removed: 0, removed_bytes: 0 };
    try {
      for await (const candidates of guard.groups(shelves())) {
        const found = candidates.size;
        await strike(candidates);
        let removed = 0;
        const batch: string[] = [];
        for (const digest of [...candidates]) {
          queue.checkOpen();
          if (rowSize(digest) !== undefined) {
            batch.push(digest);
            continue;
          }
          const bytes = await removeFile(digest);
          if (bytes === undefined) continue;
          removed += 1;
          swept.removed_bytes += bytes;
        }
        for (let at = 0; at < batch.length; at += BACKPLANE_LIMITS.sweep_batch) {
          const [rows, bytes] = await removeRows(batch.slice(at, at + BACKPLANE_LIMITS.sweep_batch));
          removed += rows;
          swept.removed_bytes += bytes;
        }
        swept.removed += removed;
        swept.kept += found - removed;
      }
    } catch (thrown) {
      throw storageFailed('removing objects', thrown);
    }
    return swept;
  }

  return {
    put,
    prepare,
    keep,
    get,
    size,
    read,
    sweep,
    part: (id) => {
      queue.checkOpen();
      const part = parts.part(id);
      return {
        ...part,
        async finish({ digest: wanted } = {}) {
          const { file, digest, bytes } = await part.finish();
          try {
            checkWanted(wanted, digest);
          } catch (thrown) {
            await part.discard();
            throw thrown;
          }
          return placed(file, digest, bytes);
        },
      };
    },
    parts: parts.list,
    async close() {
      await alone.idle();
      await parts.close();
    },
  };
}
