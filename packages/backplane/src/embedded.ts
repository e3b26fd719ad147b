/**
 * The embedded backend: one folder, opened by one process alone (the core). `node:sqlite` for keys and
 * small objects, files for larger ones.
 *
 * What always holds: SQLite's exclusive lock on `kv.sqlite` is the folder's lock; the kernel lets go of it when the
 * process ends, however it ends, so no lock is ever stale. The objects are touched only by who holds it. POSIX drops the
 * lock when this process closes any descriptor of `kv.sqlite`: the one that syncs it stays open until SQLite has closed.
 */
import {
  closeSync,
  copyFileSync,
  existsSync,
  fdatasync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { promisify } from 'node:util';
import { StorageFailed } from '@hauki/protocol';
import { type DiskSync, openCommitQueue } from './commit-queue.ts';
import { syncFolder } from './durable.ts';
import { FORMAT, openSqliteKeyValues } from './embedded-kv.ts';
import { openObjects } from './embedded-objects.ts';
import { storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';
import type { Backplane } from './types.ts';
import { lostCommits } from './wal.ts';

/** `SQLITE_BUSY`: somebody else holds the lock. */
const BUSY = 5;
/** The file that names the process which has, or had, the folder open. */
const OWNER = 'owner.pid';
const FILES_TOO = { recursive: true, withFileTypes: true } as const;

export interface EmbeddedOptions {
  /** How long to wait for whoever has the folder open. */
  wait_ms?: number;
  /** How many of each namespace's changes are held in memory for watchers; few where nobody watches. */
  remembered_changes?: number;
  /** Told what a person should know although the folder could be opened. */
  report?: (problem: string) => void;
}

/** Opens the backplane kept in `folder`, which is made if need be. Rejects with `StorageFailed`, saying why not. */
export async function openEmbedded(folder: string, options: EmbeddedOptions = {}): Promise<Backplane> {
  const { wait_ms = BACKPLANE_LIMITS.open_wait_ms, remembered_changes } = options;
  const { report = (problem) => process.emitWarning(problem, 'BackplaneWarning') } = options;
  const root = resolve(folder);
  const db = openDatabase(root, wait_ms);
  let disk: ReturnType<typeof openDisk> | undefined;
  try {
    checkFormat(root, db);
    if (db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'entry'").get() === undefined) checkIsNew(root);
    const lost = lookForLoss(root, db, report);
    disk = openDisk(root);
    const queue = openCommitQueue(db, disk);
    const keys = openSqliteKeyValues(db, queue, remembered_changes);
    const objects = await openObjects(join(root, 'objects'), db, queue);
    // The tables may be new.
    await disk.log();
    await syncFolder(root);
    // From here on a database without tables has lost them.
    tellOwner(root);
    let closing: Promise<void> | undefined;
    return {
      kv: keys.kv,
      objects,
      lost,
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

/**
 * Descriptors of the database's two files, by which they are synced. What is written to a file that was removed is lost, in
 * silence, when it is closed: so no commit is durable unless both files are still there.
 */
function openDisk(root: string): DiskSync & Disposable {
  const sync = promisify(fdatasync);
  const open: { fd: number; path: string; dev: number; ino: number }[] = [];
  const file = (name: string) => {
    const path = join(root, name);
    const fd = openSync(path, 'r+');
    const { dev, ino } = statSync(path);
    open.push({ fd, path, dev, ino });
    return () => sync(fd);
  };
  const checkThere = () => {
    for (const { path, dev, ino } of open) {
      const now = statSync(path, { throwIfNoEntry: false });
      if (now?.dev === dev && now.ino === ino) continue;
      throw new StorageFailed(
        { what: `${path} was removed or replaced while it was open` },
        `${path} was removed or replaced while it was open: what is written now would be lost. Stop the core, put ${root} back from a copy or move what is left of it away, and start the core again`,
      );
    }
  };
  const close = () => {
    for (const { fd } of open.splice(0)) closeSync(fd);
  };
  try {
    const [pages, log] = [file('kv.sqlite'), file('kv.sqlite-wal')];
    return { pages, log: () => log().then(checkThere), [Symbol.dispose]: close };
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
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    // Over an empty database SQLite would remove the log too.
    if (!statSync(join(root, 'kv.sqlite'), { throwIfNoEntry: false })?.size) checkIsNew(root);
    db = new DatabaseSync(join(root, 'kv.sqlite'), { timeout: wait_ms });
    // Exclusive before WAL: the lock then covers the whole life of the connection, and no shared memory is needed.
    db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
    db.exec('BEGIN EXCLUSIVE; COMMIT;');
    // From here on the disk is synced, and the log shortened, by the commit queue.
    db.exec('PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;');
    return db;
  } catch (thrown) {
    db?.close();
    if ((thrown as { errcode?: number }).errcode !== BUSY) throw storageFailed(`opening ${root}`, thrown);
    throw new StorageFailed(
      { what: `${root} is in use` },
      `${root} is open in another process${pidIn(root)}. One process alone may open it: stop that one, or connect to it`,
    );
  }
}

/** Throws `StorageFailed` where a database without tables is not that of a first start. */
function checkIsNew(root: string): void {
  const has_objects = () => readdirSync(join(root, 'objects'), FILES_TOO).some((entry) => entry.isFile());
  if (!existsSync(join(root, OWNER)) && !(existsSync(join(root, 'objects')) && has_objects())) return;
  throw new StorageFailed(
    { what: `${root}/kv.sqlite has lost its contents` },
    `${root}/kv.sqlite is empty or gone, but ${root} was in use before. Nothing was changed. Put kv.sqlite back from a copy; or move ${root} elsewhere, to start anew without what it held`,
  );
}

/** Throws `StorageFailed` where a later version has written what this one would misread. */
function checkFormat(root: string, db: DatabaseSync): void {
  const format = db.prepare('PRAGMA user_version').get()?.user_version as number;
  if (format <= FORMAT) return;
  throw new StorageFailed(
    { what: `${root} was written by a later version of Hauki` },
    `${root} was written by a later version of Hauki, in format ${format}; this one knows formats up to ${FORMAT}. Nothing was changed. Start that version or a newer one; or put the whole data folder back from a copy made before the upgrade`,
  );
}

/**
 * What this opening, or an earlier one, found lost; told then. A damaged log is copied aside, and then moved into the
 * database as far as it is whole: what stands behind the damage would be found again each time.
 */
function lookForLoss(root: string, db: DatabaseSync, report: (problem: string) => void): string | undefined {
  const log = join(root, 'kv.sqlite-wal');
  const page_bytes = db.prepare('PRAGMA page_size').get()?.page_size as number;
  const commits = lostCommits(log, page_bytes);
  if (commits > 0) {
    const aside = `${log}.damaged-${Date.now()}`;
    copyFileSync(log, `${aside}.tmp`);
    renameSync(`${aside}.tmp`, aside);
    db.exec('PRAGMA synchronous = FULL; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA synchronous = NORMAL;');
    report(`${log} is damaged: ${commits} commits or more that were made before the store was killed are lost`);
  }
  const aside = readdirSync(root).find((name) => /^kv\.sqlite-wal\.damaged-\d+$/.test(name));
  if (aside === undefined) return undefined;
  const lost = `A damaged log of the database was put aside as ${join(root, aside)}. Until that file is removed, content that nothing names stays where it is, unless somebody asks for its collection`;
  report(lost);
  return lost;
}

/** For the message that the folder is in use, and to know a folder that was; the lock is SQLite's, and the disk may be full. */
function tellOwner(root: string): void {
  try {
    writeFileSync(join(root, OWNER), `${process.pid}\n`);
  } catch {}
}

function pidIn(root: string): string {
  try {
    return ` (pid ${Number.parseInt(readFileSync(join(root, OWNER), 'utf8'), 10)})`;
  } catch {
    return '';
  }
}
