/**
 * The embedded backend: one folder, opened by one process alone (the core). `node:sqlite` for keys and
 * small objects, files for larger ones.
 *
 * What always holds: SQLite's exclusive lock on `kv.sqlite` is the folder's lock; the kernel lets go of it when the
 * process ends, however it ends, so no lock is ever stale. The objects are touched only by who holds it. POSIX drops the
 * lock when this process closes any descriptor of `kv.sqlite`: the one that syncs it stays open until SQLite has closed.
 */
import { closeSync, fdatasync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { promisify } from 'node:util';
import { StorageFailed } from '@hauki/protocol';
import { type DiskSync, openCommitQueue } from './commit-queue.ts';
import { syncFolder } from './durable.ts';
import { openSqliteKeyValues } from './embedded-kv.ts';
import { openObjects } from './embedded-objects.ts';
import { storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';
import type { Backplane } from './types.ts';

/** `SQLITE_BUSY`: somebody else holds the lock. */
const BUSY = 5;

export interface EmbeddedOptions {
  /** How long to wait for whoever has the folder open. */
  wait_ms?: number;
  /** How many of each namespace's changes are held in memory for watchers; few where nobody watches. */
  remembered_changes?: number;
}

/** Opens the backplane kept in `folder`, which is made if need be. Rejects with `StorageFailed`, saying why not. */
export async function openEmbedded(folder: string, options: EmbeddedOptions = {}): Promise<Backplane> {
  const { wait_ms = BACKPLANE_LIMITS.open_wait_ms, remembered_changes } = options;
  const root = resolve(folder);
  const db = openDatabase(root, wait_ms);
  let disk: ReturnType<typeof openDisk> | undefined;
  try {
    disk = openDisk(root);
    const queue = openCommitQueue(db, disk);
    const keys = openSqliteKeyValues(db, queue, remembered_changes);
    const objects = await openObjects(join(root, 'objects'), db, queue);
    // The tables may be new.
    await disk.log();
    await syncFolder(root);
    let closing: Promise<void> | undefined;
    return {
      kv: keys.kv,
      objects,
      commit: (writes, prepared = []) => keys.commit(writes, () => objects.keep(prepared)),
      close() {
        closing ??= (async () => {
          await queue.close();
          keys.close();
          await objects.close();
          closeDatabase(db, disk);
        })();
        return closing;
      },
    };
  } catch (thrown) {
    closeDatabase(db, disk);
    throw storageFailed(`opening ${root}`, thrown);
  }
}

/** Descriptors of the database's two files, by which they are synced. */
function openDisk(root: string): DiskSync & Disposable {
  const sync = promisify(fdatasync);
  const open: number[] = [];
  const file = (name: string) => {
    const fd = openSync(join(root, name), 'r+');
    open.push(fd);
    return () => sync(fd);
  };
  const close = () => {
    for (const fd of open.splice(0)) closeSync(fd);
  };
  try {
    return { pages: file('kv.sqlite'), log: file('kv.sqlite-wal'), [Symbol.dispose]: close };
  } catch (thrown) {
    close();
    throw thrown;
  }
}

/** SQLite moves its log into the database then, and removes it: it must sync by itself. */
function closeDatabase(db: DatabaseSync, disk: Disposable | undefined): void {
  try {
    db.exec('PRAGMA synchronous = FULL;');
    db.close();
  } finally {
    disk?.[Symbol.dispose]();
  }
}

function openDatabase(root: string, wait_ms: number): DatabaseSync {
  let db: DatabaseSync | undefined;
  const owner = join(root, 'owner.pid');
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    db = new DatabaseSync(join(root, 'kv.sqlite'), { timeout: wait_ms });
    // Exclusive before WAL: the lock then covers the whole life of the connection, and no shared memory is needed.
    db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
    db.exec('BEGIN EXCLUSIVE; COMMIT;');
    // From here on the disk is synced, and the log shortened, by the commit queue.
    db.exec('PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;');
    tellOwner(owner);
    return db;
  } catch (thrown) {
    db?.close();
    if ((thrown as { errcode?: number }).errcode !== BUSY) throw storageFailed(`opening ${root}`, thrown);
    throw new StorageFailed(
      { what: `${root} is in use` },
      `${root} is open in another process${pidIn(owner)}. One process alone may open it: stop that one, or connect to it`,
    );
  }
}

/** Only for the message above; the lock is SQLite's, and the disk may be full. */
function tellOwner(owner: string): void {
  try {
    writeFileSync(owner, `${process.pid}\n`);
  } catch {}
}

function pidIn(owner: string): string {
  try {
    return ` (pid ${Number.parseInt(readFileSync(owner, 'utf8'), 10)})`;
  } catch {
    return '';
  }
}
